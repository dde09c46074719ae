# SPDX-License-Identifier: MIT
"""Mesh files of gmsh, and of all formats of meshio, as blocks of cells and named sets."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import dolfinx.cpp
import dolfinx.mesh
import numpy as np
import numpy.typing as npt

from .blocks import TDIM, Block, Blocks, NamedSet, serendipity_completed
from .errors import MeshError
from .gmsh_numbers import physical_numbers
from .gmsh_session import ELEMENTS, nodes, session
from .repeats import groups as equal_rows
from .tagged import LARGEST

# meshio's names → reference cell and degree; the node order is VTK's.
VTK_ORDERED = {
    "line": ("interval", 1), "line3": ("interval", 2),
    "triangle": ("triangle", 1), "triangle6": ("triangle", 2),
    "quad": ("quadrilateral", 1), "quad8": ("quadrilateral", 2), "quad9": ("quadrilateral", 2),
    "tetra": ("tetrahedron", 1), "tetra10": ("tetrahedron", 2),
    "hexahedron": ("hexahedron", 1), "hexahedron20": ("hexahedron", 2), "hexahedron27": ("hexahedron", 2),
}  # fmt: skip
IGNORED = ("vertex",)

# The cell data in which meshio keeps the physical groups of a .msh file; 0 is no group there.
PHYSICAL = "gmsh:physical"

# gmsh's serendipity cells with meshio's name and the order of VTK: gmsh orders the edge nodes of its 20-node hexahedron
# in its own way (gmsh manual, "Node ordering").
SERENDIPITY = {
    16: ("quad8", [*range(8)]),
    17: ("hexahedron20", [*range(8), 8, 11, 13, 9, 16, 18, 19, 17, 10, 12, 14, 15]),
}


def vtk_blocks(
    points: npt.NDArray[np.float64], raw: Sequence[tuple[str, npt.NDArray[np.integer]]]
) -> tuple[npt.NDArray[np.float64], list[Block]]:
    """Blocks from cells in VTK order, serendipity cells completed, and the points with the added ones."""
    arrays = [np.asarray(connectivity, dtype=np.int64) for _, connectivity in raw]
    for serendipity in ("quad8", "hexahedron20"):  # all at once: neighbours in two blocks share nodes
        which = [i for i, (kind, _) in enumerate(raw) if kind == serendipity]
        if which:
            together = np.concatenate([arrays[i] for i in which])
            points, together = serendipity_completed(points, together, VTK_ORDERED[serendipity][0])
            parts = np.split(together, np.cumsum([len(arrays[i]) for i in which])[:-1])
            for i, rows in zip(which, parts):
                arrays[i] = rows
    blocks = []
    for (kind, _), rows in zip(raw, arrays):
        if kind in IGNORED:
            blocks.append(Block("point", 0, rows))
            continue
        if kind not in VTK_ORDERED:
            raise MeshError(
                f'cells of the type "{kind}" ({len(rows)} of them) are not supported; supported: {list(VTK_ORDERED)}'
            )
        cell, degree = VTK_ORDERED[kind]
        order = dolfinx.cpp.io.perm_vtk(dolfinx.mesh.to_type(cell), rows.shape[1])
        blocks.append(Block(cell, degree, np.ascontiguousarray(rows[:, order])))
    return points, blocks


def read_gmsh(path: Path) -> Blocks:
    """A .msh file of any version, with its physical groups.

    Warns if there are none and the cells lie on several entities of the geometry, which then form one phase.
    """
    with session() as gmsh:
        gmsh.merge(str(path))
        model = gmsh.model
        numbers = physical_numbers(path, lambda kind: model.mesh.getElementProperties(kind)[3])
        points, row = nodes(model)
        blocks: list[Block] = []
        incomplete: list[
            tuple[int, tuple[str, npt.NDArray[np.int64]]]
        ] = []  # index of the block, meshio's name and rows
        groups: list[npt.NDArray[np.int64] | list[int]] = []  # of each block: one per cell, or those of the entity
        entities: list[tuple[int, int]] = []
        for dim, entity in model.getEntities():
            for kind, elements, connectivity in zip(*model.mesh.getElements(dim, entity)):
                title, _, _, per_cell, _, _ = model.mesh.getElementProperties(kind)
                rows = row[connectivity.astype(np.int64)].reshape(-1, per_cell)
                if kind in SERENDIPITY:
                    name, order = SERENDIPITY[int(kind)]
                    incomplete.append((len(blocks), (name, rows[:, order])))
                    block = Block(VTK_ORDERED[name][0], 2, rows)
                elif kind == 15:
                    block = Block("point", 0, rows)
                elif kind in ELEMENTS:
                    cell, degree = ELEMENTS[int(kind)]
                    order = dolfinx.cpp.io.perm_gmsh(dolfinx.mesh.to_type(cell), per_cell)
                    block = Block(cell, degree, np.ascontiguousarray(rows[:, order]))
                else:
                    raise MeshError(f'cells of the type "{title}" ({len(rows)} of them) are not supported')
                blocks.append(block)
                entities.append((dim, entity))
                groups.append(
                    model.getPhysicalGroupsForEntity(dim, entity).tolist()
                    if numbers.elements is None
                    else numbers.of(elements)
                )
    points, completed = vtk_blocks(points, [raw for _, raw in incomplete])
    for (i, _), block in zip(incomplete, completed):
        blocks[i] = block
    if numbers.elements is None:
        members = [{g: np.arange(len(b.nodes)) for g in mine} for b, mine in zip(blocks, groups)]
    else:  # a cell in several groups is one element for each
        once = [_each_once(b, np.asarray(mine)) for b, mine in zip(blocks, groups)]
        blocks, members = [b for b, _ in once], [m for _, m in once]
    top = max((dim for dim, _ in entities), default=0)
    parts = {entity for dim, entity in entities if dim == top}
    if len(parts) > 1 and not any(mine for b, mine in zip(blocks, members) if TDIM[b.cell] == top):
        warnings.warn(
            f"{path}: the cells lie on {len(parts)} entities of the geometry and are in no physical group: they are "
            "one phase. (gmsh writes no groups into version 2.2 with Mesh.SaveAll.)",
            stacklevel=2,
        )
    return Blocks(points, blocks, _physical_sets(blocks, members, numbers.names))


def _each_once(block: Block, groups: npt.NDArray[np.int64]):
    """The block without repeated cells, and physical group → its members."""
    which, _ = equal_rows(block.nodes)
    _, first = np.unique(which, return_index=True)
    members = {int(g): np.unique(which[groups == g]) for g in np.unique(groups[groups > 0])}
    return Block(block.cell, block.degree, block.nodes[first]), members


def _physical_sets(blocks, members, names):
    """The physical groups as named sets."""
    empty = np.empty(0, dtype=np.int64)
    found = sorted({(TDIM[b.cell], g) for b, mine in zip(blocks, members) for g in mine})
    top = max((TDIM[b.cell] for b in blocks if len(b.nodes)), default=0)
    lost = [name for (dim, _), name in names.items() if dim == top]
    if lost and not any(dim == top for dim, _ in found):
        raise MeshError(
            f"the file names the physical groups {lost}, but no cell is in a group: gmsh writes no groups into version "
            "2.2 with Mesh.SaveAll; write it without (and with every cell in a group), or as version 4.1"
        )
    return [
        NamedSet(
            names.get((dim, g)),
            g,
            [mine.get(g, empty) if TDIM[b.cell] == dim else empty for b, mine in zip(blocks, members)],
        )
        for dim, g in found
    ]


def read_meshio(path: Path, data: str | None, sets: Sequence[str] | None) -> Blocks:
    """A file of a format of meshio, with its cell sets or else its integers on the cells.

    Args:
        path: the file.
        data: name of the integers on the cells; the cell sets if None.
        sets: names of the requested sets; without cell sets, the integers on the cells are used only if None.
    """
    import meshio

    said = io.StringIO()  # meshio prints its errors and exits the interpreter
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            mesh = meshio.read(path)
    except (Exception, SystemExit) as error:
        what = " ".join(said.getvalue().split()) or f"{type(error).__name__}: {error}"
        raise MeshError(f"meshio cannot read the file as {path.suffix}: {what}") from None
    points, blocks = vtk_blocks(np.asarray(mesh.points, dtype=np.float64), [(b.type, b.data) for b in mesh.cells])
    top = max((TDIM[b.cell] for b in blocks if len(b.nodes)), default=0)
    if data is None and mesh.cell_sets:
        empty = np.empty(0, dtype=np.int64)
        named = [
            NamedSet(name, None, [empty if m is None else m for m in per_block])
            for name, per_block in mesh.cell_sets.items()
        ]
        if sets is None and not any(_has_cells(s, blocks, top) for s in named):  # of the boundary alone
            named += [s for s in _numbers(mesh.cell_data, None, blocks) if _has_cells(s, blocks, top)]
    elif data is None and getattr(mesh, "cell_tags", None):  # MED: families with one or more group names each
        named = _families(mesh.cell_tags, mesh.cell_data["cell_tags"])
    else:
        named = [] if data is None and sets is not None else _numbers(mesh.cell_data, data, blocks)
    return Blocks(points, blocks, named, {name: np.asarray(rows) for name, rows in mesh.point_sets.items()})


def _has_cells(named: NamedSet, blocks: Sequence[Block], dim: int) -> bool:
    return any(len(m) for m, b in zip(named.members, blocks) if TDIM[b.cell] == dim)


def _families(families, numbers):
    groups = {}
    for number, names in families.items():
        for name in names:
            groups.setdefault(name, []).append(number)
    return [NamedSet(name, None, [np.flatnonzero(np.isin(n, mine)) for n in numbers]) for name, mine in groups.items()]


def _numbers(cell_data, data, blocks):
    """Sets without names from numbers on the cells."""
    fields = {name: [np.asarray(v) for v in values] for name, values in cell_data.items()}
    if data is None:
        data = _labels(fields)
    if data is None:
        return []
    if data not in fields:
        raise MeshError(f'the file has no cell data "{data}"; it has {sorted(fields)}')
    numbers = []
    for values, b in zip(fields[data], blocks):
        n = values.reshape(len(b.nodes), -1)
        odd = n[~_are_labels(n)] if n.shape[1] == 1 else n
        if len(odd):
            raise MeshError(
                f'cell data "{data}" cannot be tags: they must be one integer from 0 to {LARGEST} per cell, and '
                f"{len(odd)} of {len(n)} are not, the first is {', '.join(map(str, odd[0]))}"
            )
        numbers.append(n[:, 0].astype(np.int64))
    sets = []
    for dim in sorted({TDIM[b.cell] for b in blocks}):  # cells and facets may use the same number for different things
        mine = [n if TDIM[b.cell] == dim else n[:0] for n, b in zip(numbers, blocks)]
        none = 0 if data == PHYSICAL or dim < max(TDIM[b.cell] for b in blocks) else -1
        for tag in np.unique(np.concatenate(mine)):
            if tag > none:
                sets.append(NamedSet(None, int(tag), [np.flatnonzero(m == tag) for m in mine]))
    return sets


def _labels(fields):
    """Name of the field with the tags: the only one of integers, else the only one of whole numbers, or None."""
    if PHYSICAL in fields:
        return PHYSICAL
    scalar = {name: f for name, f in fields.items() if all(v.ndim == 1 or v.shape[1:] == (1,) for v in f)}
    integer = [name for name, f in scalar.items() if all(np.issubdtype(v.dtype, np.integer) for v in f)]
    whole = integer or [name for name, f in scalar.items() if all(np.all(_are_labels(v)) for v in f)]
    if len(whole) > 1:
        raise MeshError(
            f"the file has several {'integer' if integer else 'whole'} fields on its cells, {whole}; choose the tags "
            "with data="
        )
    if scalar and not whole:
        values = {name: next((v.ravel()[0] for v in f if v.size), None) for name, f in scalar.items()}
        raise MeshError(
            f"the numbers on the cells are no whole numbers, so that they cannot be tags (in the first cell {values}); "
            "write the phases as integers, or read the mesh as one phase with sets=()"
        )
    return whole[0] if whole else None


def _are_labels(values):
    """Whether each number is a valid tag of DOLFINx."""
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= LARGEST) & (values == np.floor(values))
    return good if values.ndim == 1 else np.all(good, axis=1)
