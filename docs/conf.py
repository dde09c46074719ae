# SPDX-License-Identifier: MIT
"""Settings of Sphinx; docs/build runs it on the pages that docs/pages.py makes."""

import sys
import urllib.request
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import meshes  # noqa: E402  the folder is on the path from here on

project = "fe2x"
author = "The fe2x authors"
copyright = "the fe2x authors, MIT license"
version = release = meshes.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "extension",
]
exclude_patterns = ["files"]
nitpicky = True
smartquotes_action = "D"  # dashes only: "fluxes" is a name
highlight_language = "none"  # indented blocks are commands; Python is in fenced ones
default_role = "name"

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"fe2x {version}"
html_static_path = [str(DOCS / "static")]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False

OTHERS = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "mpi4py": "https://mpi4py.readthedocs.io/en/stable/",
    "petsc4py": "https://petsc.org/release/petsc4py/",
    "dolfinx": "https://docs.fenicsproject.org/dolfinx/main/python/",
    "ufl": "https://docs.fenicsproject.org/ufl/main/",
}
# Types of other projects link to their documentation where it can be reached, and are plain text elsewhere.
nitpick_ignore_regex = [(r"py:.*", r"(?!(meshes|fe2|spon|coupling)\b).*")]


def _reachable(folder: Path, seconds: float = 5.0) -> dict[str, tuple[str, str]]:
    """The inventories of other projects; none after the first that cannot be reached, and a sentence that says so."""
    found = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, address in OTHERS.items():
        kept = folder / f"{name}.inv"
        try:
            if not kept.exists():
                with urllib.request.urlopen(f"{address}objects.inv", timeout=seconds) as answer:
                    kept.write_bytes(answer.read())
        except OSError as error:
            print(f"docs: no links to the documentation of other projects: {address} cannot be reached ({error})")
            return found
        found[name] = (address, str(kept))
    return found


intersphinx_mapping = _reachable(DOCS / "_build" / "inventories")
