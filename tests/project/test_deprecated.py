# SPDX-License-Identifier: MIT
"""Deprecated names work, warn with the new name, and are used nowhere in the project."""

import ast
import importlib
import pkgutil
import re

import pytest
from sources import PACKAGES, PROJECT

SEARCHED = ["README.md", *PACKAGES, "demos", "benchmarks", "docs"]


def new_names(package):
    """Deprecated name → full new name, from the source of a package."""
    tree = ast.parse((PROJECT / package / "__init__.py").read_text())
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == "_NEW_NAMES":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{package} has no _NEW_NAMES")


OLD = [(package, old, new) for package in PACKAGES for old, new in new_names(package).items()]


def uses(package, old, text):
    """Places where a text has a name of a package, as an attribute or an import, unless it says what it is now."""
    found = re.findall(rf"(?<![\w.]){package}\.{old}\b(?![\w.]* is now )", text)
    for names in re.findall(rf"^[ >]*from {package} import (\([^)]*\)|[^\n(]*)", text, re.M):
        found += re.findall(rf"(?<![\w.]){old}\b", re.sub(r"#[^\n]*|\bas \w+", "", names))
    return found


@pytest.mark.parametrize(("package", "old", "new"), OLD, ids=[f"{package}.{old}" for package, old, _ in OLD])
def test_a_deprecated_name_works_and_warns(package, old, new):
    pytest.importorskip("torch" if package in ("spon", "coupling") else "dolfinx")
    if package == "coupling":
        pytest.importorskip("dolfinx")
    module = importlib.import_module(package)
    assert old not in getattr(module, "__all__", ())
    with pytest.warns(DeprecationWarning, match=rf"^{package}\.{old} is now {re.escape(new)}$"):
        found = getattr(module, old)
    assert found == pkgutil.resolve_name(new)  # a class method is made anew each time


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_no_attribute(package):
    pytest.importorskip("torch" if package == "spon" else "dolfinx")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module(package).nothing  # noqa: B018


def test_deprecated_names_are_used_nowhere():
    files = [
        path
        for place in SEARCHED
        for path in ([PROJECT / place] if (PROJECT / place).is_file() else sorted((PROJECT / place).rglob("*")))
        if path.suffix in (".py", ".md", ".rst", ".sh") and "_build" not in path.parts  # of `make docs`
    ]
    texts = {path.relative_to(PROJECT): path.read_text() for path in files}
    found = [
        f"{path}: {package}.{old} is now {new}"
        for path, text in texts.items()
        for package, old, new in OLD
        if uses(package, old, text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("meshes.cell(a)", 1),
        ("`meshes.cell`.", 1),
        ("from meshes import bar, cell, read", 1),
        ("from meshes import (\n    bar,\n    cell as c,\n)", 1),
        ("import meshes.cell", 1),
        ("meshes.cells and meshes.cell_volumes, own.meshes.cell, cell", 0),
        ("from meshes import bar as cell  # cell", 0),
        ("from meshes.arrays import cell", 0),
        ("meshes.cell is now meshes.rve, meshes.cell.made is now meshes.rve", 0),
    ],
)
def test_uses_are_found(text, count):
    assert len(uses("meshes", "cell", text)) == count
