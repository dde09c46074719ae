# SPDX-License-Identifier: MIT
"""Mesh files of gmsh and of everything that meshio reads, as blocks of cells and named sets."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import dolfinx.cpp
import dolfinx.mesh
import numpy as np
import numpy.typing as npt

from .blocks import TDIM, Block, Blocks, NamedSet, serendipity_completed
from .errors import MeshError
from .gmsh_session import ELEMENTS, nodes, session

# meshio's names → reference cell and degree; the node order is VTK's.
VTK_ORDERED = {
    "line": ("interval", 1), "line3": ("interval", 2),
    "triangle": ("triangle", 1), "triangle6": ("triangle", 2),
    "quad": ("quadrilateral", 1), "quad8": ("quadrilateral", 2), "quad9": ("quadrilateral", 2),
    "tetra": ("tetrahedron", 1), "tetra10": ("tetrahedron", 2),
    "hexahedron": ("hexahedron", 1), "hexahedron20": ("hexahedron", 2), "hexahedron27": ("hexahedron", 2),
}  # fmt: skip
IGNORED = ("vertex",)

# gmsh orders the edge nodes of its 20-node hexahedron in its own way (gmsh manual, "Node ordering"); to VTK's order:
GMSH_HEXAHEDRON20 = [*range(8), 8, 11, 13, 9, 16, 18, 19, 17, 10, 12, 14, 15]


def vtk_blocks(
    points: npt.NDArray[np.float64], raw: Sequence[tuple[str, npt.NDArray[np.integer]]]
) -> tuple[npt.NDArray[np.float64], list[Block]]:
    """Blocks of cells in VTK order, completed where they are serendipity cells, and the points with those added."""
    blocks = []
    for kind, connectivity in raw:
        rows = np.asarray(connectivity, dtype=np.int64)
        if kind in IGNORED:
            blocks.append(Block("point", 0, rows))
            continue
        if kind not in VTK_ORDERED:
            raise MeshError(
                f'cells of the type "{kind}" ({len(rows)} of them) are not supported; supported: {list(VTK_ORDERED)}'
            )
        cell, degree = VTK_ORDERED[kind]
        if kind in ("quad8", "hexahedron20"):
            points, rows = serendipity_completed(points, rows, cell)
        order = dolfinx.cpp.io.perm_vtk(dolfinx.mesh.to_type(cell), rows.shape[1])
        blocks.append(Block(cell, degree, np.ascontiguousarray(rows[:, order])))
    return points, blocks


def read_gmsh(path: Path) -> Blocks:
    """A .msh file of any version, with its physical groups."""
    with session() as gmsh:
        gmsh.merge(str(path))
        model = gmsh.model
        points, row = nodes(model)
        blocks: list[Block] = []
        where: dict[tuple[int, int], list[int]] = {}
        for dim, entity in model.getEntities():
            for kind, _, connectivity in zip(*model.mesh.getElements(dim, entity)):
                title, _, _, per_cell, _, _ = model.mesh.getElementProperties(kind)
                rows = row[connectivity.astype(np.int64)].reshape(-1, per_cell)
                if kind in (16, 17):  # serendipity
                    rows = rows if kind == 16 else rows[:, GMSH_HEXAHEDRON20]
                    points, (block,) = vtk_blocks(points, [("quad8" if kind == 16 else "hexahedron20", rows)])
                elif kind == 15:
                    block = Block("point", 0, rows)
                elif kind in ELEMENTS:
                    cell, degree = ELEMENTS[int(kind)]
                    order = dolfinx.cpp.io.perm_gmsh(dolfinx.mesh.to_type(cell), per_cell)
                    block = Block(cell, degree, np.ascontiguousarray(rows[:, order]))
                else:
                    raise MeshError(f'cells of the type "{title}" ({len(rows)} of them) are not supported')
                where.setdefault((dim, entity), []).append(len(blocks))
                blocks.append(block)
        sets = []
        for dim, group in model.getPhysicalGroups():
            inside = {b for e in model.getEntitiesForPhysicalGroup(dim, group) for b in where.get((dim, e), [])}
            members = [np.arange(len(b.nodes) if i in inside else 0) for i, b in enumerate(blocks)]
            sets.append(NamedSet(model.getPhysicalName(dim, group) or None, int(group), members))
    return Blocks(points, blocks, sets)


def read_meshio(path: Path, data: str | None) -> Blocks:
    """A file that meshio reads, with its cell sets; without sets, with the integers that it has on the cells."""
    import meshio

    said = io.StringIO()  # meshio prints its errors and ends the interpreter
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            mesh = meshio.read(path)
    except (Exception, SystemExit) as error:
        what = " ".join(said.getvalue().split()) or f"{type(error).__name__}: {error}"
        raise MeshError(f"meshio cannot read the file as {path.suffix}: {what}") from None
    points, blocks = vtk_blocks(np.asarray(mesh.points, dtype=np.float64), [(b.type, b.data) for b in mesh.cells])
    if data is None and mesh.cell_sets:
        empty = np.empty(0, dtype=np.int64)
        sets = [
            NamedSet(name, None, [empty if m is None else m for m in per_block])
            for name, per_block in mesh.cell_sets.items()
        ]
    elif data is None and getattr(mesh, "cell_tags", None):  # MED: families with one or more group names each
        sets = _families(mesh.cell_tags, mesh.cell_data["cell_tags"])
    else:
        sets = _numbers(mesh.cell_data, data, blocks)
    return Blocks(points, blocks, sets, {name: np.asarray(rows) for name, rows in mesh.point_sets.items()})


def _families(families, numbers):
    groups = {}
    for number, names in families.items():
        for name in names:
            groups.setdefault(name, []).append(number)
    return [NamedSet(name, None, [np.flatnonzero(np.isin(n, mine)) for n in numbers]) for name, mine in groups.items()]


def _numbers(cell_data, data, blocks):
    """Sets without names from numbers on the cells."""
    whole = [
        name
        for name, values in cell_data.items()
        if all(np.issubdtype(np.asarray(v).dtype, np.integer) for v in values)
    ]
    if data is None and not whole:
        return []
    if data is None and len(whole) > 1 and "gmsh:physical" not in whole:
        raise MeshError(f"the file has several integer fields on its cells, {whole}; choose the tags with data=")
    name = data or ("gmsh:physical" if "gmsh:physical" in whole else whole[0])
    if name not in cell_data:
        raise MeshError(f'the file has no cell data "{name}"; it has {sorted(cell_data)}')
    numbers = [np.asarray(v).reshape(len(b.nodes), -1) for v, b in zip(cell_data[name], blocks)]
    if any(n.shape[1] != 1 or np.any(n != np.rint(n)) or np.any(n < 0) for n in numbers if n.size):
        raise MeshError(f'cell data "{name}" cannot be tags: they must be one integer ≥ 0 per cell, 0 for no tag')
    sets = []
    for dim in sorted({TDIM[b.cell] for b in blocks}):  # cells and facets may use the same number for different things
        mine = [n[:, 0] if TDIM[b.cell] == dim else n[:0, 0] for n, b in zip(numbers, blocks)]
        for tag in np.unique(np.concatenate(mine)):
            if tag > 0:
                sets.append(NamedSet(None, int(tag), [np.flatnonzero(m == tag) for m in mine]))
    return sets
