# SPDX-License-Identifier: MIT
"""Contents of an Abaqus input file: nodes, elements, sets, surfaces and sections, in the scopes of their numbering."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .abaqus_lines import Keyword, key, keywords, title
from .errors import MeshError

# Family and number of nodes → meshio's name; the letters after the number (R, H, I, M, T, ...) do not change the
# geometry.
ELEMENT = re.compile(r"(CPE|CPS|CPEG|CGPE|CAX|DC2D|M3D|S|STRI|R3D|SFM3D|C3D|DC3D|T2D|T3D|B2|B3)(\d+)")
PLANE = {3: "triangle", 4: "quad", 6: "triangle6", 8: "quad8", 9: "quad9"}
SOLID = {4: "tetra", 8: "hexahedron", 10: "tetra10", 20: "hexahedron20", 27: "hexahedron27"}
LINE = {2: "line", 3: "line3"}
WITHOUT_VOLUME = re.compile(r"MASS|ROTARYI|SPRING|DASHPOT|CONN|GAP|HEATCAP|DCOUP")

REGIONS = ("SOLIDSECTION", "SHELLSECTION", "MEMBRANESECTION")

# Keywords that move, add, join or remove nodes or elements, so that ignoring them would change the mesh, with the
# remedy.
REFUSED = {
    "NCOPY": "write out the nodes",
    "NFILL": "write out the nodes",
    "NMAP": "write out the nodes",
    "ELCOPY": "write out the elements",
    "SYMMETRICMODELGENERATION": "write out the whole mesh",
    "IMPERFECTION": "write out the nodes where they are",
    "IMPORT": "write out the mesh",
    "MODELCHANGE": "leave out the elements that it removes",
    "EMBEDDEDELEMENT": "mesh the embedded part and its host so that they share their nodes",
    "PARAMETER": "write out the values",
    "TIE": (
        "join the parts in one mesh (in Abaqus/CAE merge the instances); if the nodes of both sides coincide, take it "
        'out and read with coincident="merge"'
    ),
}


@dataclass(frozen=True, slots=True)
class NodesOf:
    """The nodes of an element set, in a node set."""

    elements: str


@dataclass(slots=True)
class Group:
    """A set or a surface.

    Args:
        title: its name as first written.
        internal: whether it is an internal set of Abaqus/CAE.
        entries: name of an instance or None, and numbers, names of sets or `NodesOf` there; for a surface, the name or
            number of elements and a face.
    """

    title: str
    internal: bool
    entries: list[tuple[str | None, Sequence]] = field(default_factory=list)


@dataclass(slots=True)
class Scope:
    """A scope of numbers: a part, an instance of one, or the rest of the file.

    Args:
        part: name of the part, "" outside.
        nodes: number → (3,) coordinates.
        elements: number → meshio's name of the type and node numbers.
        without_volume: numbers of masses, springs and similar elements.
        element_sets: `key` of the name → members.
        node_sets: `key` of the name → members.
        surfaces: `key` of the name → members.
        regions: labels of the element sets with a section.
    """

    part: str
    nodes: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)
    elements: dict[int, tuple[str, list[int]]] = field(default_factory=dict)
    without_volume: set[int] = field(default_factory=set)
    element_sets: dict[str, Group] = field(default_factory=dict)
    node_sets: dict[str, Group] = field(default_factory=dict)
    surfaces: dict[str, Group] = field(default_factory=dict)
    regions: list[str] = field(default_factory=list)

    def copy(self) -> Scope:
        """A copy that can be extended independently."""
        groups = ("element_sets", "node_sets", "surfaces")
        copied = {n: {k: replace(g, entries=list(g.entries)) for k, g in getattr(self, n).items()} for n in groups}
        return Scope(
            self.part, dict(self.nodes), dict(self.elements), set(self.without_volume), **copied,
            regions=list(self.regions),
        )  # fmt: skip


def read_model(path: Path) -> dict[str, Scope]:
    """The scopes of a file: the instances of its parts (the parts if there are none) by `key`, and "" for the rest.

    Raises:
        MeshError: invalid data, or unsupported keywords that change the geometry; the message has line and keyword.
    """
    outside = scope = Scope("")
    parts: dict[str, Scope] = {}
    instances: dict[str, Scope] = {}
    begun: Keyword | None = None
    for k in keywords(path):
        if k.name in REFUSED and not k.options.get("TYPE", "").upper().startswith("CONTACT"):  # *MODEL CHANGE has both
            raise MeshError(f"{k.place}: *{k.name} is not supported and changes the mesh; {REFUSED[k.name]}")
        if k.name == "SYSTEM" and any(any(fields) for fields in k.lines):
            raise MeshError(f"{k.place}: *SYSTEM is not supported and moves the nodes; write global coordinates")
        if k.name == "PART":
            scope = _new(parts, k, Scope(title(k.option("NAME"))))
        elif k.name == "INSTANCE":
            scope, begun = _new(instances, k, _instance(k, parts)), k
        elif k.name in ("ENDPART", "ENDINSTANCE"):
            if begun is not None:
                _place(scope, begun)
            scope, begun = outside, None
        elif k.name in READERS:
            READERS[k.name](scope, k)
    if begun is not None:
        raise MeshError(f"{begun.place}: *INSTANCE has no *END INSTANCE; the file may be cut off")
    return {"": outside} | (instances or parts)


def _new(table: dict[str, Scope], k: Keyword, scope: Scope) -> Scope:
    name = k.option("NAME")
    if table.setdefault(key(name), scope) is not scope:
        raise MeshError(f'{k.place}: *{k.name}: the name "{title(name)}" occurs twice')
    return scope


def _instance(k: Keyword, parts: dict[str, Scope]) -> Scope:
    if "LIBRARY" in k.options or "INSTANCE" in k.options:
        raise MeshError(f"{k.place}: *INSTANCE from another analysis is not supported; write out the mesh")
    part = k.option("PART")
    if key(part) not in parts:
        raise MeshError(f'{k.place}: *INSTANCE: there is no part "{title(part)}" before it')
    return parts[key(part)].copy()


def _place(scope: Scope, k: Keyword) -> None:
    """Move the nodes of an instance: first the translation, then the rotation about the axis from a to b."""
    for fields in k.lines:
        values = np.array([k.number(f) for f in fields])
        if len(values) <= 3:
            move = np.zeros(3)
            move[: len(values)] = values
            scope.nodes = {n: x + move for n, x in scope.nodes.items()}
        elif len(values) == 7:
            a, axis, angle = values[:3], values[3:6] - values[:3], np.radians(values[6])
            if not np.any(axis):
                raise MeshError(f"{k.place}: *INSTANCE is rotated about an axis whose two points are the same")
            x, y, z = axis / np.linalg.norm(axis)
            cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues' formula
            scope.nodes = {n: a + turn @ (x - a) for n, x in scope.nodes.items()}
        else:
            raise MeshError(
                f"{k.place}: *INSTANCE has a line of {len(values)} numbers; 3 are a translation, 7 a rotation"
            )


def _nodes(scope: Scope, k: Keyword) -> None:
    system = k.options.get("SYSTEM", "R").upper()
    if system not in ("R", "RC", "C"):
        raise MeshError(
            f"{k.place}: *NODE, SYSTEM={system} is not supported; write rectangular (R) or cylindrical (C) coordinates"
        )
    found: dict[int, npt.NDArray[np.float64]] = {}
    twice = []
    for fields in k.lines:
        number = k.whole(fields[0])
        x = [k.number(f) for f in fields[1:4]]
        x += [0.0] * (3 - len(x))
        if system == "C":
            radius, angle = x[0], np.radians(x[1])
            x[:2] = radius * np.cos(angle), radius * np.sin(angle)
        if number in found or number in scope.nodes:
            twice.append(number)
        found[number] = np.array(x)
    _refuse_twice(k, "node", twice)
    scope.nodes |= found
    if "NSET" in k.options:
        _group(scope.node_sets, k, "NSET").entries.append((None, list(found)))


def _elements(scope: Scope, k: Keyword) -> None:
    kind_name = k.option("TYPE").upper()
    if WITHOUT_VOLUME.match(kind_name):
        scope.without_volume |= {int(fields[0]) for fields in k.lines if fields[0].isdigit()}
        return
    kind, width = _kind(k, kind_name)
    numbers = [k.whole(f) for fields in k.lines for f in fields if f]
    if len(numbers) % (width + 1):
        raise MeshError(
            f"{k.place}: *ELEMENT, TYPE={kind_name}: {len(numbers)} numbers are not a multiple of {width + 1}, an "
            f"element number and its {width} nodes; the file may be cut off"
        )
    rows = [numbers[i : i + width + 1] for i in range(0, len(numbers), width + 1)]
    found = {row[0]: (kind, row[1:]) for row in rows}
    twice = [n for n, count in Counter(row[0] for row in rows).items() if count > 1 or n in scope.elements]
    _refuse_twice(k, "element", twice)
    scope.elements |= found
    if "ELSET" in k.options:
        _group(scope.element_sets, k, "ELSET").entries.append((None, list(found)))


def _refuse_twice(k: Keyword, what: str, numbers: Sequence[int]) -> None:
    if numbers:
        raise MeshError(
            f"{k.place}: {len(numbers)} {what} numbers occur twice, the first is {min(numbers)}; each {what} needs a "
            "number of its own"
        )


def _kind(k: Keyword, name: str) -> tuple[str, int]:
    """meshio's name and number of nodes."""
    match = ELEMENT.match(name)
    if match:
        family, count = match[1], int(match[2])
        if name.startswith("STRI65"):
            count = 6
        if family in ("B2", "B3"):  # B21, B31: 2 nodes; B22, B32: 3
            count += 1
        table = SOLID if family in ("C3D", "DC3D") else LINE if family[0] in "TB" else PLANE
        if count in table:
            return table[count], count
    raise MeshError(f"{k.place}: elements of the type {name} are not supported")


def _generated_nodes(scope: Scope, k: Keyword) -> None:
    """Nodes at equal distances on a straight line between two."""
    if "LINE" in k.options:
        raise MeshError(f"{k.place}: *NGEN, LINE={k.options['LINE']} is not supported, only straight lines")
    for fields in k.lines:
        first, last = (_existing(k, scope.nodes, "node", k.whole(f)) for f in fields[:2])
        step = k.whole(fields[2]) if len(fields) > 2 and fields[2] else 1
        if step == 0 or (last - first) % step or last == first:
            raise MeshError(f"{k.place}: *NGEN: no number of steps of {step} leads from {first} to {last}")
        step = abs(step) if last > first else -abs(step)
        line = range(first, last + (1 if step > 0 else -1), step)
        _refuse_twice(k, "node", [n for n in line[1:-1] if n in scope.nodes])
        a, b = scope.nodes[first], scope.nodes[last]
        for i, n in enumerate(line[1:-1], start=1):
            scope.nodes[n] = a + (b - a) * (i / (len(line) - 1))
        if "NSET" in k.options:
            _group(scope.node_sets, k, "NSET").entries.append((None, list(line)))


def _generated_elements(scope: Scope, k: Keyword) -> None:
    """Copies of an element in up to three directions: number in each, steps of nodes and of elements."""
    for fields in k.lines:
        master, *rest = [k.whole(f) if f else 1 for f in fields]
        kind, nodes = scope.elements[_existing(k, scope.elements, "element", master)]
        copies, node_steps, element_steps = np.reshape(rest + [1] * (9 - len(rest)), (3, 3)).T
        steps = list(np.ndindex(*copies))
        found = {master + int(element_steps @ step): [n + int(node_steps @ step) for n in nodes] for step in steps}
        if len(found) < len(steps):
            raise MeshError(f"{k.place}: *ELGEN gives the same number to several copies of the element {master}")
        _refuse_twice(k, "element", [n for n in found if n != master and n in scope.elements])
        scope.elements |= {n: (kind, connectivity) for n, connectivity in found.items()}
        if "ELSET" in k.options:
            _group(scope.element_sets, k, "ELSET").entries.append((None, list(found)))


def _existing(k: Keyword, table, what: str, number: int) -> int:
    if number not in table:
        raise MeshError(f"{k.place}: *{k.name}: there is no {what} {number} before it")
    return number


def _group(table: dict[str, Group], k: Keyword, option: str) -> Group:
    """The set named by an option, a new one if there is none; entries of the same name are added."""
    name = k.option(option)
    internal = "INTERNAL" in k.options or title(name).startswith("_")
    return table.setdefault(key(name), Group(title(name), internal))


def _element_set(scope: Scope, k: Keyword) -> None:
    _add_members(_group(scope.element_sets, k, "ELSET"), k, {"ELSET"})


def _node_set(scope: Scope, k: Keyword) -> None:
    group = _group(scope.node_sets, k, "NSET")
    if "ELSET" in k.options:
        group.entries.append((k.options.get("INSTANCE"), [NodesOf(k.options["ELSET"])]))
    _add_members(group, k, {"NSET", "ELSET"})


def _add_members(group: Group, k: Keyword, known: set[str]) -> None:
    generate = [option for option in k.options if option.startswith("GEN")]  # Abaqus accepts GENERATE shortened
    strange = k.options.keys() - known - {"INSTANCE", "INTERNAL", "UNSORTED", "INPUT", *generate}
    if strange:
        raise MeshError(f"{k.place}: *{k.name} has no option {sorted(strange)}")
    home = k.options.get("INSTANCE")
    if generate:
        for fields in k.lines:
            first, last, *step = [k.whole(f) for f in fields if f]
            group.entries.append((home, range(first, last + 1, *step[:1])))
    else:
        members = [int(f) if f.isdigit() else f for fields in k.lines for f in fields if f]
        group.entries.append((home, members))


def _surface(scope: Scope, k: Keyword) -> None:
    if k.options.get("TYPE", "ELEMENT").upper() != "ELEMENT":
        return
    name = k.option("NAME")
    if key(name) in scope.surfaces:
        raise MeshError(f'{k.place}: the surface "{title(name)}" occurs twice')
    faces = [(None, (fields + [""])[:2]) for fields in k.lines]
    scope.surfaces[key(name)] = Group(title(name), False, list(faces))


def _region(scope: Scope, k: Keyword) -> None:
    scope.regions.append(k.option("ELSET"))


READERS = {
    "NODE": _nodes, "NGEN": _generated_nodes, "NSET": _node_set,
    "ELEMENT": _elements, "ELGEN": _generated_elements, "ELSET": _element_set,
    "SURFACE": _surface, **dict.fromkeys(REGIONS, _region),
}  # fmt: skip
