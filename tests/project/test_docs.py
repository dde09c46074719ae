# SPDX-License-Identifier: MIT
"""The documentation: every page is in it, its links lead somewhere, and the reference has every public name."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from functools import reduce
from pathlib import Path, PurePosixPath

import pytest

for module in ("dolfinx", "torch", "jupytext"):
    pytest.importorskip(module)

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
sys.path.insert(0, str(DOCS))
import docstrings  # noqa: E402
import pages  # noqa: E402
import reference  # noqa: E402


@pytest.fixture(scope="module")
def site():
    """Path → text of all pages."""
    return pages.markdown((PROJECT / "benchmarks" / "RESULTS.md").read_text()) | reference.pages()


def test_every_page_has_its_place():
    for folder, listed in (("howto", pages.HOW_TO), ("explanation", pages.EXPLANATION)):
        assert sorted(listed) == sorted(path.stem for path in (DOCS / folder).glob("*.md"))


def test_every_demo_is_a_tutorial():
    demos = sorted(path.stem.removeprefix("demo_") for path in (PROJECT / "demos").glob("demo_*.py"))
    assert sorted(row.name for row in pages.tutorials()) == demos
    assert all(row.shows and row.time for row in pages.tutorials())


def test_start_is_the_readme(site):
    """A page for each section but those left out, with its blocks of code."""
    start = "".join(text for page, text in site.items() if page.startswith("start/"))
    assert start.count("```python") == (PROJECT / "README.md").read_text().count("```python")


def _anchors(text):
    """GitHub's names of the headings."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", prose, re.M)}


def test_links_lead_somewhere(site):
    """Links and pictures of all pages, to other pages and their headings, pictures, and copies of files."""
    there = set(site) | {path.name for path in DOCS.glob("*.png")} | {f"files/{f}" for f in pages.files(site)}
    wrong = []
    for page, text in site.items():
        for _, target in pages.links(text):
            path, _, anchor = target.partition("#")
            aim = os.path.normpath(PurePosixPath(page).parent / path) if path else page
            if aim not in there or (anchor and anchor not in _anchors(site[aim])):
                wrong.append(f"{page}: {target}")
    assert not wrong, "\n".join(wrong)
    assert len(pages.files(site)) >= len(pages.tutorials())


def test_a_link_to_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"howto/mesh.md links to nothing.md"):
        pages.relinked("[a](nothing.md)", "docs/howto/mesh.md", "howto/mesh.md")
    text = "[a](../../README.md#install) [b](../../demos/batch) `[c](d)` [e](https://f.g) ![h](../cook.png)"
    assert pages.relinked(text, "docs/howto/mesh.md", "howto/mesh.md") == (
        "[a](../start/install.md) `demos/batch` `[c](d)` [e](https://f.g) ![h](../cook.png)"
    )


def test_the_reference_has_every_public_name(site):
    """Each name of an `__all__` is in the table of its module, and each object is documented once."""
    documented = Counter(
        name for text in site.values() for name in re.findall(r"^\.\. (?:auto|py:)\w+:: (\S+)$", text, re.M)
    )
    modules, entries = reference.modules(), reference.entries()
    shown_as = {name: entry.name for entry in entries for name in (entry.name, *entry.also)}
    assert set(reference.PACKAGES) <= set(modules)
    for module in modules.values():
        table = site[f"reference/{module.__name__}.rst"]
        for name in reference.names(module):
            full = f"{module.__name__}.{name}"
            shown = shown_as.get(full) or getattr(module, name).__name__  # of a module
            assert f"`{shown}" in table and documented[shown] == 1, full


def test_every_public_name_is_described():
    assert not [entry.name for entry in reference.entries() if not entry.summary]


def _used(tree):
    """Full names of what a script uses of the packages."""
    bound = {package: package for package in reference.PACKAGES}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in reference.PACKAGES:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            if first in bound and all(part.isidentifier() for part in rest):
                yield ".".join([bound[first], *rest])


def test_demos_and_pages_use_public_names_only(site):
    """What they take from a module of the packages is in the reference."""
    sources = {path.name: path.read_text() for path in (PROJECT / "demos").rglob("*.py")}
    sources |= {page: "\n".join(pages.blocks(text)) for page, text in site.items() if page.endswith(".md")}
    known = reference.modules()
    public = {id(getattr(module, name)) for module in known.values() for name in reference.names(module)}
    hidden = set()
    for file, source in sources.items():
        for name in _used(ast.parse(source)):
            value = reduce(getattr, name.split(".")[1:], importlib.import_module(name.split(".")[0]))
            owner = name.rpartition(".")[0]
            if owner in known and name not in known and id(value) not in public:
                hidden.add(f"{file}: {name}")
    assert not hidden


@pytest.mark.parametrize(
    ("docstring", "rst"),
    [
        ("One `name` and a*b.", "One `name` and a\\*b."),
        ("`Constant`s have |gap|.", "`Constant`\\ s have \\|gap\\|."),
        ("Text:\n\n    x = 1 * 2", "Text:\n\n::\n\n      x = 1 * 2"),
        ("Args:\n    a: n.\n    b: (n,) of it.", "Args:\n    a: \\ n.\n    b: (n,) of it."),
        ("Args:\n    *a: one * two.", "Args:\n    *a: one \\* two."),
        ("Code `over\ntwo * lines` and * one", "Code `over\ntwo * lines` and \\* one"),
        ("load, save      files\ntrain           models", "::\n\n  load, save      files\n  train           models"),
    ],
)
def test_docstrings_become_rst(docstring, rst):
    assert "\n".join(docstrings.as_rst(docstring.splitlines())) == rst


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="there is no Sphinx: `make docs` installs it")
def test_sphinx_builds_without_a_warning(site, tmp_path):
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    pytest.importorskip("latex2mathml")
    pages.write(tmp_path / "source", site)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", str(DOCS)]
    done = subprocess.run([*command, "source", "html"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "reference" / "spon.html").stat().st_size > 0
