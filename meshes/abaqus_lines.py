# SPDX-License-Identifier: MIT
"""The lines of an Abaqus or CalculiX input file as keywords with their options and data (Abaqus manual, "Input syntax
rules")."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import MeshError

BARE_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')  # a comma followed by an even number of quotation marks

# Keywords whose data may be in another file, named by INPUT.
ELSEWHERE = ("NODE", "ELEMENT", "NSET", "ELSET", "NGEN", "ELGEN")


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword line with the data lines that follow it.

    Args:
        name: in upper case and without blanks, which Abaqus ignores.
        options: name in upper case → value as written, quotes included; "" for an option without a value.
        lines: fields of each data line.
        place: file and line, for messages.
    """

    name: str
    options: dict[str, str]
    lines: list[list[str]]
    place: str

    def option(self, name: str) -> str:
        """Value of an option; raises MeshError if it is missing."""
        if not self.options.get(name):
            raise MeshError(f"{self.place}: *{self.name} needs {name}=")
        return self.options[name]

    def whole(self, text: str) -> int:
        """A field as a whole number; raises MeshError if it is none."""
        try:
            return int(text)
        except ValueError:
            raise MeshError(f'{self.place}: *{self.name}: "{text}" is no whole number') from None

    def number(self, text: str) -> float:
        """A field as a number, also with the exponent of Fortran (1.0D-3); an empty one is 0; raises MeshError."""
        try:
            return float(text) if text else 0.0
        except ValueError:
            pass
        try:
            return float(text.upper().replace("D", "E"))
        except ValueError:
            raise MeshError(f'{self.place}: *{self.name}: "{text}" is no number') from None


def key(label: str) -> str:
    """Canonical spelling of a label: upper and lower case differ only between quotation marks."""
    label = label.strip()
    return label.strip('"') if label.startswith('"') else label.upper()


def find(table: Collection[str], label: str) -> str | None:
    """The key of a label in a table, None if it is missing; a quoted label also matches without its quotes."""
    if key(label) in table:
        return key(label)
    alike = [k for k in table if k.upper() == title(label).upper()]
    return alike[0] if len(alike) == 1 else None


def title(label: str) -> str:
    """A label without its quotation marks."""
    return label.strip().strip('"')


def keywords(path: Path) -> Iterator[Keyword]:
    """The keywords of a file, with those of included files at the place of inclusion.

    Raises:
        MeshError: data before the first keyword, an unreadable file or one that includes itself.
    """
    head, place = "", ""
    data: list[list[str]] = []
    for where, line in _lines(path):
        if line.startswith("*"):
            if head:
                yield _keyword(head, data, place, path.parent)
            head, place, data = line, where, []
        elif not head:
            raise MeshError(f"{where}: data before the first keyword; an Abaqus file begins with a line like *NODE")
        elif head.endswith(",") and not data and (line[0].isalpha() or line[0] == '"'):
            head += line  # a keyword line that ends with a comma continues in the next one; options begin with letters
        else:
            data.append(_fields(line))
    if head:
        yield _keyword(head, data, place, path.parent)


def _lines(path: Path, including: tuple[Path, ...] = ()) -> Iterator[tuple[str, str]]:
    """Place and text of all lines except empty ones and comments; *INCLUDE may occur between data lines."""
    if path in including:
        raise MeshError(f"*INCLUDE: the file {path.name} includes itself")
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")  # Windows editors begin with a byte order mark
    except OSError as error:
        raise MeshError(f"the file {path} cannot be read: {error.strerror}") from None
    unfinished = ""
    for number, line in enumerate(text.splitlines(), start=1):
        line = unfinished + line.strip()
        unfinished = ""
        if not line or line.startswith("**"):
            continue
        where = f"line {number} of {path.name}" if including else f"line {number}"
        if line.startswith("*") and line[1:].lstrip().upper().startswith("INCLUDE"):
            if line.endswith(","):
                unfinished = line
                continue
            include = _keyword(line, [], where, path.parent)
            yield from _lines(path.parent / title(include.option("INPUT")), (*including, path))
        else:
            yield where, line


def _keyword(head: str, data: list[list[str]], place: str, folder: Path) -> Keyword:
    name, *rest = _fields(head[1:])
    name = "".join(name.split()).upper()
    pairs = (part.partition("=") for part in rest)
    options = {option.strip().upper(): value.strip() for option, _, value in pairs if option.strip()}
    if name in ELSEWHERE and "INPUT" in options:
        data = data + [_fields(line) for _, line in _lines(folder / title(options["INPUT"]))]
    return Keyword(name, options, data, place)


def _fields(line: str) -> list[str]:
    """A line split at commas outside quotation marks, without empty fields at the end."""
    fields = [field.strip() for field in (BARE_COMMA.split(line) if '"' in line else line.split(","))]
    while len(fields) > 1 and not fields[-1]:
        fields.pop()
    return fields
