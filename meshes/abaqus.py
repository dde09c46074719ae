# SPDX-License-Identifier: MIT
"""Abaqus and CalculiX input files (meshio lacks the plane 4- and 8-node elements, surfaces, instances, and sets of
sets)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .abaqus_lines import find, key, title
from .abaqus_model import LINE, PLANE, NodesOf, Scope, read_model
from .blocks import TDIM, Blocks, NamedSet
from .errors import MeshError
from .formats import VTK_ORDERED, vtk_blocks

# Corners of the faces S1, S2, ... of the elements (Abaqus manual, "Element faces"), counted from 0.
SIDES: dict[str, list[tuple[int, ...]]] = {
    "triangle": [(0, 1), (1, 2), (2, 0)],
    "quad": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "tetra": [(0, 1, 2), (0, 3, 1), (1, 3, 2), (2, 3, 0)],
    "hexahedron": [(0, 1, 2, 3), (4, 7, 6, 5), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0)],
}
SIDES |= {
    "triangle6": SIDES["triangle"], "quad8": SIDES["quad"], "quad9": SIDES["quad"],
    "tetra10": SIDES["tetra"], "hexahedron20": SIDES["hexahedron"], "hexahedron27": SIDES["hexahedron"],
}  # fmt: skip

# Of the last nodes of the 27-node hexahedron Abaqus has the middle first, then the middles of S1 to S6; VTK has those
# of the faces x = min, max, y = min, max, z = min, max, then the middle.
VTK_HEXAHEDRON27 = [*range(20), 26, 24, 23, 25, 21, 22, 20]

Model = Mapping[str, Scope]
Numbers = Mapping[str, set[int]]  # scope → numbers of nodes or elements
EMPTY = np.empty(0, dtype=np.int64)


def read_abaqus(path: Path, sets: Sequence[str] | None = None) -> Blocks:
    """Nodes, elements, element sets (as cell sets), surfaces of element faces (as facet sets) and node sets.

    Phases are the element sets with a section. In a file without sections they are all sets except internal ones of
    Abaqus/CAE, and the parts if there are several. The same set in several instances of a part is one set; sets of the
    same name in different parts are named "part.set".

    Args:
        path: the file.
        sets: names of the requested sets and surfaces; the phases and all surfaces if None. Others are not checked.
    """
    model = read_model(path)
    nodes, elements = sum(len(s.nodes) for s in model.values()), sum(len(s.elements) for s in model.values())
    if not nodes or not elements:
        raise MeshError(f"the file has {nodes} nodes and {elements} elements; it needs *NODE and *ELEMENT")
    points = np.array([x for scope in model.values() for x in scope.nodes.values()])
    rows = _rows(model)
    raw, place = _connectivity(model, rows)

    named = _element_sets(model, sets, [kind for kind, _ in raw], place)
    for name, homes in _titles(model, "surfaces").items():
        if sets is None or name in sets:
            faces = np.array([c for home, k in homes for c in _corners(model, home, k, rows)])
            if faces.ndim == 2:
                raw.append((LINE[2] if faces.shape[1] == 2 else PLANE[faces.shape[1]], faces))
                named.append(NamedSet(name, None, [EMPTY] * (len(raw) - 1) + [np.arange(len(faces))]))
    named = [replace(s, members=[*s.members, *[EMPTY] * (len(raw) - len(s.members))]) for s in named]
    points, blocks = vtk_blocks(points, raw)
    return Blocks(points, blocks, named, NodeSets(model, rows))


class NodeSets(Mapping):
    """Name → rows of the points (n,), evaluated on access, so that unused node sets may be invalid."""

    def __init__(self, model: Model, rows: Mapping[str, Mapping[int, int]]):
        self._model, self._rows, self._homes = model, rows, _titles(model, "node_sets")

    def __getitem__(self, name: str) -> npt.NDArray[np.int64]:
        found = [_members(self._model, home, "node_sets", k) for home, k in self._homes[name]]
        rows = {self._rows[scope][n] for part in found for scope, numbers in part.items() for n in numbers}
        return np.array(sorted(rows), dtype=np.int64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _rows(model: Model) -> dict[str, dict[int, int]]:
    """Scope → number of a node → row of the points."""
    count, rows = 0, {}
    for name, scope in model.items():
        rows[name] = {number: count + i for i, number in enumerate(scope.nodes)}
        count += len(scope.nodes)
    return rows


def _connectivity(model: Model, rows) -> tuple[list[tuple[str, npt.NDArray]], dict[str, dict[int, tuple[int, int]]]]:
    """Rows of the points of the elements of each kind, and scope → number → index of the kind and position there."""
    kinds = sorted({kind for scope in model.values() for kind, _ in scope.elements.values()})
    found: list[list[list[int]]] = [[] for _ in kinds]
    place: dict[str, dict[int, tuple[int, int]]] = {}
    strangers: set[int] = set()
    for name, scope in model.items():
        row, place[name] = rows[name], {}
        for number, (kind, nodes) in scope.elements.items():
            strangers.update(n for n in nodes if n not in row)
            which = kinds.index(kind)
            place[name][number] = which, len(found[which])
            found[which].append([row.get(n, -1) for n in nodes])
    if strangers:
        raise MeshError(f"{len(strangers)} nodes of elements are not in *NODE, among them {sorted(strangers)[:5]}")
    raw = [(kind, np.array(nodes)) for kind, nodes in zip(kinds, found)]
    return [(k, n[:, VTK_HEXAHEDRON27] if k == "hexahedron27" else n) for k, n in raw], place


def _element_sets(model: Model, sets, kinds, place) -> list[NamedSet]:
    """The element sets; sets that are no phases (see `read_abaqus`) are read on request only."""
    regions = {(home, find(s.element_sets, label)): label for home, s in model.items() for label in s.regions}
    for (_, k), label in regions.items():
        if k is None:
            raise MeshError(f'a section is given to the element set "{title(label)}", which the file does not define')

    def of_kinds(numbers):
        parts: list[list[int]] = [[] for _ in kinds]
        for home, mine in numbers:
            for which, position in (place[home][n] for n in mine if n in place[home]):
                parts[which].append(position)
        return [np.array(sorted(part), dtype=np.int64) for part in parts]

    named: list[NamedSet] = []
    phases: set[str] = set()
    for name, homes in _titles(model, "element_sets").items():
        internal = all(model[home].element_sets[k].internal for home, k in homes)
        if regions.keys() & set(homes):
            phases.add(name)
        wanted = name in sets if sets is not None else name in phases or not (regions or internal)
        try:
            numbers = [item for home, k in homes for item in _members(model, home, "element_sets", k).items()]
        except MeshError:
            if wanted:
                raise
            continue
        named.append(NamedSet(name, None, of_kinds(numbers), on_request=internal and name not in phases))
    parts = dict.fromkeys(scope.part for scope in model.values() if scope.elements)
    if not regions and len(parts) > 1:
        for part in parts:
            numbers = [(home, set(scope.elements)) for home, scope in model.items() if scope.part == part]
            named.append(NamedSet(part or "assembly", None, of_kinds(numbers)))

    def dims(s):
        return {TDIM[VTK_ORDERED[kind][0]] for kind, members in zip(kinds, s.members) if len(members)}

    covered = set().union(*(dims(s) for s in named if s.name in phases))
    return [replace(s, on_request=True) if s.name not in phases and dims(s) & covered else s for s in named]


def _titles(model: Model, kind: str) -> dict[str, list[tuple[str, str]]]:
    """Name of a set or surface → its scopes and its key in each; one set for all instances of a part."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for home, scope in model.items():
        for k, group in getattr(scope, kind).items():
            if any(other != k for _, other in found[scope.part, group.title]):
                raise MeshError(f'two sets have the name "{group.title}", one of them between quotation marks')
            found[scope.part, group.title].append((home, k))
    parts = defaultdict(set)
    for part, name in found:
        parts[name].add(part)
    return {f"{p}.{name}" if p and len(parts[name]) > 1 else name: homes for (p, name), homes in found.items()}


def _members(model: Model, home: str, kind: str, label: str, seen: tuple = ()) -> Numbers:
    """Scope → numbers of the members of a set, including those of the sets in it.

    Args:
        model: the scopes.
        home: scope of the set.
        kind: "element_sets" or "node_sets".
        label: key of the set.
        seen: sets that contain it.
    """
    group = getattr(model[home], kind)[label]
    if (home, kind, label) in seen:
        raise MeshError(f'the set "{group.title}" contains itself')
    seen = (*seen, (home, kind, label))
    found: dict[str, set[int]] = defaultdict(set)
    for instance, tokens in group.entries:
        where = home if instance is None else key(instance)
        if where not in model:
            raise MeshError(f'the set "{group.title}" is in the instance "{title(instance)}", which does not exist')
        if isinstance(tokens, range):  # may have gaps
            found[where].update(n for n in tokens if _exists(model[where], kind, n))
            continue
        for token in tokens:
            if isinstance(token, int) and _exists(model[where], kind, token):
                found[where].add(token)
                continue
            if isinstance(token, NodesOf):
                scope, member = _looked_up(model, where, "element_sets", token.elements)
                part = _nodes_of(model, _members(model, scope, "element_sets", str(member), seen))
            else:
                scope, member = _looked_up(model, where, kind, str(token))
                part = {scope: {member}} if isinstance(member, int) else _members(model, scope, kind, member, seen)
            for scope, numbers in part.items():
                found[scope] |= numbers
    return found


def _looked_up(model: Model, where: str, kind: str, label: str) -> tuple[str, int | str]:
    """Scope, and number or key of a set there, for a member of a set: 3, FIBRE, PART-1-1.3 or PART-1-1.FIBRE."""
    if not find(getattr(model[where], kind), label):
        name = title(label)
        for scope in sorted(model, key=len, reverse=True):
            if scope and name.upper().startswith(f"{scope.upper()}."):
                where, name = scope, name[len(scope) + 1 :]
                break
        if name.isdigit() and _exists(model[where], kind, int(name)):
            return where, int(name)
        label = f'"{name}"' if label.startswith('"') else name
    found = find(getattr(model[where], kind), label)
    if found is None:
        what = kind.removesuffix("_sets")
        raise MeshError(f'the file has no {what} set "{title(label)}", or {what} of this number, but refers to it')
    return where, found


def _exists(scope: Scope, kind: str, number: int) -> bool:
    if kind == "node_sets":
        return number in scope.nodes
    return number in scope.elements or number in scope.without_volume


def _nodes_of(model: Model, elements: Numbers) -> Numbers:
    return {
        name: {n for e in mine if e in model[name].elements for n in model[name].elements[e][1]}
        for name, mine in elements.items()
    }


def _corners(model: Model, home: str, label: str, rows) -> list[list[int]]:
    """Vertices (rows of the points) of the element faces of a surface."""
    group = model[home].surfaces[label]
    corners = []
    for _, (where, face) in group.entries:
        if not re.fullmatch(r"S[1-6]", face.upper()):
            raise MeshError(
                f'surface "{group.title}": the face "{face}" is not supported, only S1 to S6; without this surface '
                "the file can be read by naming the wanted sets, sets=(...)"
            )
        scope, found = _looked_up(model, home, "element_sets", where)
        numbers = {scope: {found}} if isinstance(found, int) else _members(model, scope, "element_sets", found)
        for name, mine in numbers.items():
            for kind, nodes in (model[name].elements[e] for e in sorted(mine) if e in model[name].elements):
                sides = SIDES.get(kind, [])
                if int(face[1]) > len(sides):
                    raise MeshError(f'surface "{group.title}": an element of the type {kind} has no face {face}')
                corners.append([rows[name][nodes[i]] for i in sides[int(face[1]) - 1]])
    if len({len(c) for c in corners}) > 1:
        raise MeshError(f'surface "{group.title}": it has faces of three and of four corners')
    return corners
