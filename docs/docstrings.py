# SPDX-License-Identifier: MIT
"""Docstrings as reStructuredText: they are plain text with `code` in backticks, sections, and indented displays."""

import re

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Warns|Yields):$")
_FIELD = re.compile(r"^( +\*{0,2}\w+: )(.*)$")  # of a section; napoleon escapes the asterisks of its name
_MARKUP = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")
_COLUMNS = re.compile(r"^\S.*\S {3,}\S")  # of a list of names, without indentation


def as_rst(lines: list[str]) -> list[str]:
    """The same lines, with characters escaped that would be markup, and displays as literal blocks."""
    made: list[str] = []
    in_section = in_display = in_code = False
    for before, line in zip(["", *lines], lines, strict=False):
        is_indented = line.startswith(" ") or bool(_COLUMNS.match(line))
        if line and not is_indented:
            in_section, in_display = bool(_SECTION.match(line)), False
        if is_indented and not in_section and not in_display and not before.strip():
            made += ["::", ""]
            in_display = True
        if in_display or not line.strip():
            in_code = False
            made.append(f"  {line}" if in_display and line else line)
            continue
        field = _FIELD.match(line) if in_section else None
        name, text = field.groups() if field else ("", line)
        parts = text.split("`")
        escaped = [part if in_code ^ (k % 2 == 1) else _MARKUP.sub(r"\\\1", part) for k, part in enumerate(parts)]
        in_code ^= len(parts) % 2 == 0  # code goes on in the next line
        made.append(name + _no_item(_apart("`".join(escaped))))
    return made


def _apart(line: str) -> str:
    """An invisible space between code and a letter that follows it, as in `Constant`s."""
    return re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line)


def _no_item(text: str) -> str:
    """Text that begins like an item of a list, as "d." does, is none."""
    return re.sub(r"^(?=\(?\w\)?[.)](\s|$))", r"\\ ", text)
