# SPDX-License-Identifier: MIT
"""The source files of the four packages as syntax trees: their imports, public signatures and docstrings."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("meshes", "fe2", "spon", "coupling")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Module:
    """A module of the project.

    Args:
        name: full name, such as "spon.spaces.graphs"; that of the package for an `__init__`.
        path: its file.
        tree: its syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """One module of the project that another one imports.

    Args:
        importer: name of the importing module.
        imported: name of the imported module.
        on_import: whether it happens when the importer is imported, not inside a function or for type checks only.
    """

    importer: str
    imported: str
    on_import: bool


@dataclass(frozen=True)
class Public:
    """A public function, method or class.

    Args:
        name: full name.
        parameters: names of the parameters, or of the fields of a dataclass, without `self`.
        docstring: its docstring, without indentation; "" without one.
        is_function: whether it is called with these parameters, not a dataclass with fields.
    """

    name: str
    parameters: tuple[str, ...]
    docstring: str
    is_function: bool


@functools.cache
def modules(root: Path = PROJECT) -> dict[str, Module]:
    """The modules of the four packages in a folder, by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, ast.parse(path.read_text(), str(path)))
    return found


def imports(root: Path = PROJECT) -> list[Import]:
    """All imports among the modules of the four packages."""
    known = modules(root)
    return [
        Import(module.name, name, on_import)
        for module in known.values()
        for node, on_import in _import_nodes(module.tree, True)
        for name in _imported(module, node, known)
    ]


def _import_nodes(node: ast.AST, on_import: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, on_import
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _import_nodes(ast.Module([part], []), False)
            for part in child.orelse:
                yield from _import_nodes(ast.Module([part], []), on_import)
        else:
            yield from _import_nodes(child, on_import and not isinstance(child, Function | ast.Lambda))


def _imported(module: Module, node: ast.Import | ast.ImportFrom, known: dict[str, Module]) -> Iterator[str]:
    """Modules that an import names: of `from package import name` the module `name`, or else the package."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = node.module or ""
        if node.level:
            start = module.package.split(".")
            base = ".".join(start[: len(start) - node.level + 1] + ([node.module] if node.module else []))
        names = [f"{base}.{alias.name}" for alias in node.names]
    for name in names:
        while name and name not in known:
            name = name.rpartition(".")[0]
        if name and name != module.name:
            yield name


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Circles in a graph of name → names, one for each set of names that reach each other."""
    reach = {name: _reached(name, arrows) for name in arrows}
    together = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in arrows}
    return sorted([*circle] for circle in together if circle)


def _reached(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [*arrows.get(start, ())]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += arrows.get(name, ())
    return found


def public(root: Path = PROJECT) -> Iterator[Public]:
    """The public functions, methods and classes of the four packages: no name on the way to them begins with "_"."""
    for module in modules(root).values():
        if not any(part.startswith("_") for part in module.name.split(".")):
            for node in module.tree.body:
                yield from _public(module.name, node)


def _public(home: str, node: ast.AST) -> Iterator[Public]:
    if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
        return
    name, docstring = f"{home}.{node.name}", inspect.cleandoc(ast.get_docstring(node) or "")
    if isinstance(node, Function):
        yield Public(name, _parameters(node), docstring, True)
        return
    init = next((n for n in node.body if isinstance(n, Function) and n.name == "__init__"), None)
    if init is not None:
        yield Public(name, _parameters(init), docstring, True)
    else:
        yield Public(name, _fields(node), docstring, False)
    for inner in node.body:
        yield from _public(name, inner)


def _parameters(node: Function) -> tuple[str, ...]:
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if x is not None]
    return tuple(name for name in names if name not in ("self", "cls"))


def _fields(node: ast.ClassDef) -> tuple[str, ...]:
    """Names of the public fields that a dataclass or a NamedTuple is made from."""
    record = any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    if not record and "NamedTuple" not in map(ast.unparse, node.bases):
        return ()
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    names = [n.target.id for n in fields if "init=False" not in ast.unparse(n) and "ClassVar" not in ast.unparse(n)]
    return tuple(name for name in names if not name.startswith("_"))


def argument_faults(thing: Public) -> list[str]:
    """Faults of a docstring: in "Args" ("Attributes" of a record) each begins its own line, in "Raises" each error.

    A docstring may do without these sections, but then it has no "name: text" for two parameters either.
    """
    found = []
    is_record = not thing.is_function and thing.parameters
    args = section(thing.docstring, "Args") or (section(thing.docstring, "Attributes") if is_record else "")
    if args:
        begun = re.findall(r"^ {4}\*{0,2}(\w+):", args, re.M)
        for name in thing.parameters:
            if name not in begun:
                there = re.search(rf"\b{name}\b(, \*{{0,2}}\w+)*:", args)
                found.append(f"{thing.name}: {name} " + ("begins no line of its own" if there else "is not in Args"))
        found += [f"{thing.name}: {name} is no parameter" for name in begun if name not in thing.parameters]
    elif sum(bool(re.search(rf"\b{name}: ", thing.docstring)) for name in thing.parameters) > 1:
        found.append(f"{thing.name}: parameters outside of Args")
    for line in section(thing.docstring, "Raises").splitlines():
        errors = re.findall(r"\S +([A-Z][a-z]+[A-Z]\w+): ", line)
        found += [f"{thing.name}: {name} begins no line of its own" for name in errors]
    return found


def section(docstring: str, title: str) -> str:
    """The indented lines under a title of a docstring; "" without it."""
    match = re.search(rf"^{title}:\n((?:(?: {{4}}.*)?\n?)*)", docstring, re.M)
    return match[1] if match else ""
