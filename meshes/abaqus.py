# SPDX-License-Identifier: MIT
"""Abaqus input files: nodes, elements, sets and surfaces of one part (meshio lacks the plane 4- and 8-node elements,
surfaces, and sets that name sets)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .blocks import Blocks, NamedSet
from .errors import MeshError
from .formats import vtk_blocks

# Family and number of nodes → meshio's name; the letters after the number (R, H, I, M, T, ...) do not change the
# geometry.
ELEMENT = re.compile(r"(CPE|CPS|CPEG|CGPE|CAX|DC2D|M3D|S|STRI|R3D|SFM3D|C3D|DC3D|T2D|T3D|B2|B3)(\d+)")
PLANE = {3: "triangle", 4: "quad", 6: "triangle6", 8: "quad8", 9: "quad9"}
SOLID = {4: "tetra", 8: "hexahedron", 10: "tetra10", 20: "hexahedron20", 27: "hexahedron27"}
LINE = {2: "line", 3: "line3"}

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


def read_abaqus(path: Path) -> Blocks:
    """Nodes, elements, element sets (as cell sets), surfaces of element faces (as facet sets) and node sets."""
    nodes: dict[int, list[float]] = {}
    elements: dict[int, tuple[str, list[int]]] = {}
    element_sets: dict[str, list] = {}
    node_sets: dict[str, list] = {}
    surfaces: dict[str, list[tuple[str, str]]] = {}
    for keyword, options, lines in _keywords(path):
        if keyword == "NODE":
            if nodes and lines:
                _refuse_second(nodes, lines)
            for fields in lines:
                nodes[int(fields[0])] = [float(f) if f else 0.0 for f in fields[1:4]]
            if "NSET" in options:
                node_sets.setdefault(options["NSET"], []).extend(int(f[0]) for f in lines)
        elif keyword == "ELEMENT":
            kind, width = _kind(options.get("TYPE", ""))
            numbers = [int(f) for fields in lines for f in fields if f]
            if len(numbers) % (width + 1):
                raise MeshError(
                    f"*ELEMENT, TYPE={options['TYPE']}: {len(numbers)} numbers are not a multiple of {width + 1}, "
                    f"an element number and its {width} nodes; the file may be cut off"
                )
            new = {numbers[i]: (kind, numbers[i + 1 : i + 1 + width]) for i in range(0, len(numbers), width + 1)}
            elements |= new
            if "ELSET" in options:
                element_sets.setdefault(options["ELSET"], []).extend(new)
        elif keyword == "ELSET":
            element_sets.setdefault(options["ELSET"], []).extend(_members(options, lines))
        elif keyword == "NSET":
            node_sets.setdefault(options["NSET"], []).extend(_members(options, lines))
        elif keyword == "SURFACE" and options.get("TYPE", "ELEMENT").upper() == "ELEMENT":
            surfaces[options["NAME"]] = [(f[0], f[1] if len(f) > 1 else "") for f in lines]
    if not nodes or not elements:
        raise MeshError(f"the file has {len(nodes)} nodes and {len(elements)} elements; it needs *NODE and *ELEMENT")
    return _blocks(nodes, elements, element_sets, node_sets, surfaces)


def _keywords(path: Path) -> Iterator[tuple[str, dict[str, str], list[list[str]]]]:
    """Keyword, options and data lines, split at commas; included files in their place."""
    keyword = ""
    options: dict[str, str] = {}
    lines: list[list[str]] = []
    for line in path.read_text(errors="replace").splitlines():
        line = line.strip()
        if not line or line.startswith("**"):
            continue
        if not line.startswith("*"):
            lines.append([f.strip() for f in line.rstrip(",").split(",")])
            continue
        if keyword:
            yield keyword, options, lines
        head, *rest = [part.strip() for part in line[1:].split(",")]
        pairs = [part.partition("=") for part in rest if part]
        keyword, lines = head.upper(), []
        options = {key.strip().upper(): value.strip().strip('"') for key, _, value in pairs}
        if keyword == "INCLUDE":
            yield from _keywords(path.parent / options["INPUT"])
    if keyword:
        yield keyword, options, lines


def _refuse_second(nodes, lines):
    again = [int(fields[0]) for fields in lines if int(fields[0]) in nodes]
    if again:
        raise MeshError(
            f"{len(again)} node numbers occur twice, the first is {again[0]}; write the file with one part only"
        )


def _kind(name: str) -> tuple[str, int]:
    match = ELEMENT.match(name.upper())
    if match:
        family, count = match[1], int(match[2])
        if name.upper().startswith("STRI65"):
            count = 6
        if family in ("B2", "B3"):  # B21, B31: 2 nodes; B22, B32: 3
            count += 1
        table = SOLID if family in ("C3D", "DC3D") else LINE if family[0] in "TB" else PLANE
        if count in table:
            return table[count], count
    raise MeshError(f"elements of the type {name} are not supported")


def _members(options: dict[str, str], lines: list[list[str]]) -> list:
    """Numbers, or names of other sets."""
    if "GENERATE" in options:
        return [n for f in lines for n in range(int(f[0]), int(f[1]) + 1, int(f[2]) if len(f) > 2 and f[2] else 1)]
    return [int(f) if f.isdigit() else f for fields in lines for f in fields if f]


def _numbers(name, sets, seen=()) -> set[int]:
    """Members of a set, with those of the sets that it names."""
    by_name = {key.upper(): members for key, members in sets.items()}  # Abaqus does not tell upper from lower case
    if name.upper() not in by_name or name.upper() in seen:
        raise MeshError(
            f'there is no set "{name}"' if name.upper() not in by_name else f'the set "{name}" contains itself'
        )
    found: set[int] = set()
    for member in by_name[name.upper()]:
        found |= {member} if isinstance(member, int) else _numbers(member, sets, (*seen, name.upper()))
    return found


def _blocks(nodes, elements, element_sets, node_sets, surfaces) -> Blocks:
    row = {number: i for i, number in enumerate(nodes)}
    points = np.array([x + [0.0] * (3 - len(x)) for x in nodes.values()])
    strangers = {n for _, connectivity in elements.values() for n in connectivity if n not in row}
    if strangers:
        raise MeshError(f"{len(strangers)} nodes of elements are not in *NODE, among them {sorted(strangers)[:5]}")

    kinds = sorted({kind for kind, _ in elements.values()})
    numbers = {kind: [n for n, (k, _) in elements.items() if k == kind] for kind in kinds}
    raw = [(kind, np.array([[row[n] for n in elements[e][1]] for e in numbers[kind]])) for kind in kinds]
    sets = []
    for name in element_sets:
        mine = _numbers(name, element_sets)
        sets.append((name, [np.flatnonzero([n in mine for n in numbers[kind]]) for kind in kinds]))

    for name, faces in surfaces.items():
        corners = np.array(_corners(name, faces, elements, element_sets, row))
        raw.append((LINE[2] if corners.shape[1] == 2 else PLANE[corners.shape[1]], corners))
        sets.append((name, [np.empty(0, int)] * (len(raw) - 1) + [np.arange(len(corners))]))
    points, blocks = vtk_blocks(points, raw)
    empty = np.empty(0, dtype=np.int64)
    named = [NamedSet(name, None, members + [empty] * (len(blocks) - len(members))) for name, members in sets]
    rows = {name: np.array([row[n] for n in sorted(_numbers(name, node_sets))]) for name in node_sets}
    return Blocks(points, blocks, named, rows)


def _corners(name, faces, elements, element_sets, row) -> list[list[int]]:
    """Vertices of the element faces of a surface."""
    corners = []
    for where, face in faces:
        if not re.fullmatch(r"S[1-6]", face.upper()):
            raise MeshError(f'surface "{name}": the face "{face}" is not supported, only S1 to S6')
        for e in sorted({int(where)} if where.isdigit() else _numbers(where, element_sets)):
            if e not in elements:
                raise MeshError(f'surface "{name}": there is no element {e}')
            kind, connectivity = elements[e]
            corners.append([row[connectivity[i]] for i in SIDES[kind][int(face[1]) - 1]])
    return corners
