# SPDX-License-Identifier: MIT
"""The reference: a page for each public module of the four packages, with every public name.

A module is public if it is one of the packages or has an `__all__`, if the `__all__` of a public module names it, or if
it is in `MORE`. Its public names are its `__all__`, or else what it defines without a leading underscore.
"""

import importlib
import inspect
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import as_rst

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("meshes", "fe2", "spon", "coupling")
MORE = ("fe2.pictures", "coupling.doctor")  # for scripts, and as a command: `import fe2` does not load them


@dataclass(frozen=True)
class Entry:
    """A public object, documented once.

    Args:
        name: the shortest public name, such as "spon.EquiNO".
        page: the public module on whose page it is documented, the innermost that has it.
        also: its other public names.
        value: the object.
    """

    name: str
    page: str
    also: tuple[str, ...]
    value: Any

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring, or the comment beside the assignment."""
        text = (inspect.getdoc(self.value) or "") if self.is_code else _comment(self.name)
        return " ".join(text.split("\n\n")[0].split())

    @property
    def is_code(self) -> bool:
        """Whether it is a class or a function, which have docstrings."""
        return inspect.isclass(self.value) or inspect.isroutine(self.value)

    @property
    def directive(self) -> str:
        """The autodoc directive that documents it."""
        if not self.is_code:
            return f".. py:data:: {self.name}\n\n   {_inline(self.summary)}"
        return f".. auto{'class' if inspect.isclass(self.value) else 'function'}:: {self.name}"


def names(module: ModuleType) -> list[str]:
    """The public names of a module."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
    return sorted(n for n in own if not n.startswith("_"))


def modules() -> dict[str, ModuleType]:
    """The public modules, by name."""
    found: dict[str, ModuleType] = {}
    for name in PACKAGES:
        package = importlib.import_module(name)
        inner = [m.name for m in pkgutil.walk_packages(package.__path__, f"{name}.") if m.ispkg]
        for module in map(importlib.import_module, (name, *inner)):
            _add(module, found)
    for name in MORE:
        _add(importlib.import_module(name), found)
    return dict(sorted(found.items(), key=lambda item: (PACKAGES.index(item[0].split(".")[0]), item[0])))


def _add(module: ModuleType, found: dict[str, ModuleType]) -> None:
    found[module.__name__] = module
    for name in names(module):
        value = getattr(module, name)
        if isinstance(value, ModuleType) and value.__name__ not in found:
            _add(value, found)


def entries() -> list[Entry]:
    """All public objects except modules."""
    found: dict[Any, list[tuple[str, str, Any]]] = {}
    for page, module in modules().items():
        for name in names(module):
            value, full = getattr(module, name), f"{page}.{name}"
            if inspect.isclass(value) or inspect.isroutine(value):
                found.setdefault(value, []).append((full, page, value))
            elif not isinstance(value, ModuleType):
                found.setdefault(full, []).append((full, page, value))
    return [_entry(places) for places in found.values()]


def _entry(places: list[tuple[str, str, Any]]) -> Entry:
    """The entry of an object with these names, pages and values; those of another package only import it."""
    home = str(getattr(places[0][2], "__module__", places[0][1])).split(".")[0]
    own = [place for place in places if place[0].split(".")[0] == home] or places
    name = min((full for full, _, _ in own), key=lambda full: full.count("."))
    page = max((page for _, page, _ in own), key=lambda page: page.count("."))
    return Entry(name, page, tuple(full for full, _, _ in places if full != name), places[0][2])


def _comment(name: str) -> str:
    """The comment above the assignment of a constant, or at its end."""
    package, constant = name.split(".")[0], name.split(".")[-1]
    for path in sorted((PROJECT / package).rglob("*.py")):
        lines = path.read_text().splitlines()
        for k, line in enumerate(lines):
            if re.match(rf"{constant}(: .+)? = ", line):
                if "  # " in line:
                    return line.split("  # ")[1]
                first = k
                while lines[first - 1].startswith("# "):
                    first -= 1
                return " ".join(above.removeprefix("# ") for above in lines[first:k])
    return ""


def count() -> int:
    """The number of public names, each of an object that has several."""
    return sum(len(names(module)) for module in modules().values())


def pages() -> dict[str, str]:
    """The pages of the reference in reStructuredText, by path in the site."""
    known, all_entries = modules(), entries()
    by_name = {name: entry for entry in all_entries for name in (entry.name, *entry.also)}
    made = {f"reference/{name}.rst": _page(name, module, by_name) for name, module in known.items()}
    return {"reference/index.rst": _index(known)} | made


def _index(known: dict[str, ModuleType]) -> str:
    rows = [(f":doc:`{name} <{name}>`", _inline(_first_line(module))) for name, module in known.items()]
    hidden = "\n".join(f"   {name}" for name in known)
    text = (
        f"{count()} public names in {len(known)} modules: all that an ``__all__`` has. "
        "What is not here may change without notice. :ref:`genindex` has all names and methods by the alphabet."
    )
    return "\n\n".join([_title("Reference"), text, _table(rows), f".. toctree::\n   :hidden:\n\n{hidden}\n"])


def _page(name: str, module: ModuleType, by_name: dict[str, Entry]) -> str:
    parts = [_title(name), f".. automodule:: {name}\n   :no-members:"]
    here = [by_name[f"{name}.{n}"] for n in names(module) if f"{name}.{n}" in by_name]
    inner = [getattr(module, n) for n in names(module) if isinstance(getattr(module, n), ModuleType)]
    rows = [(f":doc:`{m.__name__} <{m.__name__}>`", _inline(_first_line(m))) for m in inner]
    rows += [(f":py:obj:`{entry.name}`", _inline(entry.summary)) for entry in here]
    parts.append(_table(rows))
    parts += [entry.directive for entry in here if entry.page == name]
    return "\n\n".join(parts) + "\n"


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}"


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [".. list-table::", "   :widths: 30 70", "   :class: names", ""]
    for left, right in rows:
        lines += [f"   * - {left}", f"     - {right}"]
    return "\n".join(lines)


def _first_line(module: ModuleType) -> str:
    return (inspect.getdoc(module) or "").splitlines()[0]


def _inline(text: str) -> str:
    return " ".join(as_rst(text.splitlines()))
