# SPDX-License-Identifier: MIT
"""Phases by tag or by name, in mappings with one entry per phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import dolfinx.mesh
import numpy as np

from .errors import MeshError
from .tagged import TaggedMesh

T = TypeVar("T")

# One entry per phase, by tag or by name.
ByPhase = Mapping[int, T] | Mapping[str, T] | Mapping[int | str, T]


def by_tag(given: ByPhase[T], names: Mapping[str, int], what: str) -> dict[int, T]:
    """The entries of a mapping from phases, by tag.

    Args:
        given: tag or name of a phase → entry.
        names: name of a phase → tag, as in `TaggedMesh.names`.
        what: name of an entry for messages, such as "material".

    Raises:
        MeshError: an unknown name, or two entries for one phase.
        TypeError: not a mapping, or a key that is neither a tag nor a name.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"the {what}s are {short(given)}, need one for each phase: {{tag or name: {what}}}")
    found: dict[int, T] = {}
    for key, value in given.items():
        if isinstance(key, str):
            if key not in names:
                known = ", ".join(f'"{name}" (tag {tag})' for name, tag in names.items()) or "none; use its tag"
                raise MeshError(f'a {what} is given for "{key}", but no phase has this name. Names of phases: {known}')
            tag = names[key]
        elif isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            tag = int(key)
        else:
            raise TypeError(f"a {what} is given for {key!r}, need the tag of a phase, an integer, or its name")
        if tag in found:
            raise MeshError(f"there are two {what}s for the phase of {phase_label(tag, names)}")
        found[tag] = value
    return found


def phase_label(tag: int, names: Mapping[str, int]) -> str:
    """The tag, with its name if it has one, for messages."""
    called = [name for name, number in names.items() if number == tag]
    return f'tag {tag} ("{called[0]}")' if called else f"tag {tag}"


def need_tagged_mesh(value: object, argument: str) -> None:
    """Raise unless the value is a `TaggedMesh`.

    Args:
        value: the value of an argument.
        argument: name of the argument, for the message.

    Raises:
        TypeError: the value is no `TaggedMesh`.
    """
    if isinstance(value, TaggedMesh):
        return
    if isinstance(value, dolfinx.mesh.Mesh):
        make = f"meshes.TaggedMesh.of({argument}, cell_tags, names={{name: tag}})"
        raise TypeError(f"{argument} is a dolfinx.mesh.Mesh, which has no phases: give {make}")
    raise TypeError(
        f"{argument} is {short(value)}, need a meshes.TaggedMesh, as from meshes.rve or meshes.read, or TaggedMesh.of"
    )


def short(value: object) -> str:
    """Short description of a value for messages."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = getattr(value, "__name__", None)
    if callable(value) and name is not None:
        return f"the function {name}"
    shown = repr(value)
    if shown.startswith("<"):
        return f"of the type {type(value).__name__}"
    return f"{shown if len(shown) <= 40 else shown[:37] + '...'} ({type(value).__name__})"
