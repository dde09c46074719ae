# SPDX-License-Identifier: MIT
"""Sphinx extension of the site: docstrings as plain text, links of names in backticks, formulas as MathML."""

import functools
import importlib
import inspect
import re
from typing import Any

import latex2mathml.converter
import numpy.typing as npt
import reference
from docstrings import as_rst
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.roles import XRefRole
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import stringify_annotation

_NAME = re.compile(r"(?:meshes|fe2|spon|coupling)(?:\.\w+)+")


class NamesInMarkdown(SphinxTransform):
    """Code in the text of Markdown pages that begins with a full name becomes a link, as in docstrings."""

    default_priority = 400

    def apply(self, **options: Any) -> None:
        if not self.env.docname.startswith(("index", "start/", "howto/", "explanation/", "tutorials", "demos/")):
            return  # the changelog has old names
        for code in list(self.document.findall(nodes.literal)):
            match = _NAME.match(code.astext())
            if match and not isinstance(code.parent, nodes.reference | pending_xref):
                link = pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=match[0], refdoc=self.env.docname, is_code=True
                )
                code.replace_self(link)
                link += code


class NameRole(XRefRole):
    """`text` of a docstring: a link if it is a public name, else code."""

    def process_link(self, env, refnode, has_explicit_title, title, target):
        refnode["refdomain"], refnode["reftype"], refnode["is_code"] = "py", "obj", True
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        return title, target.split("(")[0]


@functools.cache
def _documented() -> dict[Any, str]:
    return {entry.value: entry.name for entry in reference.entries() if entry.is_code}


def _value(name: str) -> Any:
    """The object of a full name in one of the packages, or the class of an attribute; None if there is none."""
    parts = name.split(".")
    if parts[0] not in reference.PACKAGES:
        return None
    # The innermost module first: `meshes.read` is a module and, as an attribute of `meshes`, its function.
    for k in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        value: Any = module
        for part in parts[k:]:
            if inspect.isclass(value) and not hasattr(value, part):
                return value  # an attribute that its constructor sets
            value = getattr(value, part, None)
        if value is not None:
            return value
    return None


def find_by_object(app: Sphinx, env, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """What stands for a name that Sphinx does not know.

    A link, if the name is another one of a documented object; plain text, if it is one of an object that is not public,
    as types in signatures are, or code that is no name. Names that do not exist are left to Sphinx, which warns.
    """
    if node.get("refdomain") != "py":
        return None
    value = _value(node["reftarget"])
    is_known = inspect.isclass(value) or inspect.isroutine(value)
    name = _documented().get(value) if is_known else None
    if name and name != node["reftarget"]:
        domain = env.domains.python_domain
        found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
        if found is not None:
            return found
    is_wrong = value is None and node.get("is_code") and _NAME.fullmatch(node["reftarget"])
    return content if value is not None or (node.get("is_code") and not is_wrong) else None


def docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


_ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[[^\]]*\], ~?numpy\.dtype\[~?[\w.]+\]\]")


def signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Types of arrays in short: Sphinx writes out what NumPy's names stand for."""
    array_like = stringify_annotation(npt.ArrayLike, "smart")

    def short(text: str | None) -> str | None:
        return text and _ARRAY.sub("~numpy.ndarray", text.replace(array_like, "~numpy.typing.ArrayLike"))

    return short(arguments), short(returned)


def skip(app: Sphinx, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Old names are not in the reference."""
    return True if (inspect.getdoc(value) or "").startswith(("Old name", "Deprecated")) else None


def mathml(translator, node: nodes.math) -> None:
    translator.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def mathml_block(translator, node: nodes.math_block) -> None:
    translator.body.append(latex2mathml.converter.convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(NamesInMarkdown)
    app.add_role("name", NameRole(innernodeclass=nodes.literal))
    app.connect("autodoc-process-docstring", docstring, priority=100)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", find_by_object)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
