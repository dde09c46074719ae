# SPDX-License-Identifier: MIT
"""Checks of a mesh. Each is collective and raises on every rank."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .arrays import facet_vertices
from .errors import MeshError
from .geometry import jacobian_determinants, local_cells, reference
from .periodic import seam
from .tagged import TaggedMesh

# Relative size of det J below which a cell counts as flat: far above rounding, far below any useful cell.
FLAT = 1e-10


def check_periodic(tagged_mesh: TaggedMesh) -> None:
    """Check that the boundary of an RVE matches its translates: same nodes, or a void on the other side.

    Args:
        tagged_mesh: the RVE.

    Raises:
        MeshError: see `meshes.seam`.
    """
    seam(tagged_mesh)


def check_cells(tagged_mesh: TaggedMesh) -> None:
    """Check that no cell is flat or partly inverted.

    DOLFINx accepts mirrored cells, but the Jacobian determinant of a cell must not vanish or change sign.

    Args:
        tagged_mesh: the mesh.

    Raises:
        MeshError: flat or inverted cells; the message has their number and the first of them.
    """
    mesh = tagged_mesh.mesh
    points, nodes, cell, degree = local_cells(mesh)
    bad = bad_cells(points, nodes, cell, degree)
    original = np.sort(np.concatenate(mesh.comm.allgather(mesh.topology.original_cell_index[bad])))
    raise_bad_cells(original, mesh.topology.index_map(mesh.topology.dim).size_global, "inverted or flat")


def bad_cells(
    points: npt.NDArray[np.float64], cells: npt.NDArray[np.integer], cell: str, degree: int
) -> npt.NDArray[np.int64]:
    """Indices of the cells that are inverted or flat.

    Args:
        points: (n, d) nodes.
        cells: (m, k) nodes of the cells, in DOLFINx order.
        cell: name of the reference cell.
        degree: degree of the geometry.

    Returns:
        The cells whose det J changes sign or vanishes at a node or the midpoint, and those that lie on the same side of
        a facet as their neighbour (of two such, the one with more of these facets), since an inverted simplex has a
        constant det J.
    """
    element = reference(cell, degree)
    inside = np.vstack([element.points, element.points.mean(axis=0)])
    det = jacobian_determinants(points, cells, cell, degree, inside)
    scale = np.max(np.ptp(points[cells], axis=1), axis=1, initial=0.0) ** points.shape[1]
    low, high = det.min(axis=1, initial=np.inf), det.max(axis=1, initial=-np.inf)
    bad = (low * high < 0) | (np.minimum(abs(low), abs(high)) <= FLAT * scale)
    if cell != "hexahedron":  # its faces are not plane and have no sides
        bad |= _folded(points, cells, cell)
    return np.flatnonzero(bad)


def _folded(points, cells, cell):
    """Whether cells (m,) overlap more than half of their neighbours or, without such cells, any neighbour."""
    local = facet_vertices(cell)
    vertices = cells[:, : local.max() + 1]
    facets = np.sort(vertices[:, local], axis=2)  # sorted, for the same orientation from both sides
    corners = points[facets]
    middle = np.broadcast_to(points[vertices].mean(axis=1)[:, None, None], corners[:, :, :1].shape)
    side = np.sign(np.linalg.det(np.concatenate([corners[:, :, 1:], middle], axis=2) - corners[:, :, :1]))
    _, which, count = np.unique(facets.reshape(-1, local.shape[1]), axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(side.shape)
    shared = (count == 2)[which]
    overlapping = shared & (abs(np.bincount(which.ravel(), side.ravel(), len(count)))[which] == 2)
    most = 2 * overlapping.sum(axis=1) > shared.sum(axis=1)
    return most if most.any() else overlapping.any(axis=1)


def raise_bad_cells(indices: npt.NDArray[np.integer], total: int, what: str) -> None:
    """Raise MeshError if there are bad cells.

    Args:
        indices: the bad cells.
        total: number of all cells.
        what: description of the bad cells.
    """
    if len(indices):
        raise MeshError(
            f"{len(indices)} of {total} cells are {what}, the first of them {indices[:5].tolist()} (counted from 0); "
            "their nodes are in a wrong order or a node has moved through the opposite side"
        )


def check_materials(tagged_mesh: TaggedMesh, tags: Iterable[int]) -> None:
    """Check that every cell has a tag, every tag a material, and every material a cell.

    Args:
        tagged_mesh: the mesh.
        tags: tags with a material, or a dictionary tag → material.

    Raises:
        MeshError: tags without a material, materials without cells or cells without a tag; the message has names and
            counts.
    """
    mesh = tagged_mesh.mesh
    known = {int(tag) for tag in tags}
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    values = tagged_mesh.cell_tags.values[tagged_mesh.cell_tags.indices < owned]
    present, counts = np.unique(np.concatenate(mesh.comm.allgather(values)), return_counts=True)
    names = {tag: name for name, tag in tagged_mesh.names.items()}

    def label(tag):
        return f'{tag} ("{names[tag]}")' if tag in names else f"{tag}"

    faults = [
        f"tag {label(tag)} has no material, but {count} cells"
        for tag, count in zip(present.tolist(), counts.tolist())
        if tag not in known
    ]
    faults += [f"a material is given for tag {label(tag)}, which no cell has" for tag in sorted(known - {*present})]
    total = mesh.topology.index_map(mesh.topology.dim).size_global
    if counts.sum() < total:
        faults.append(
            f"{total - counts.sum()} of {total} cells have no tag (put them into a set or group of the mesh file, or "
            "tag them with TaggedMesh.with_tags)"
        )
    if faults:
        raise MeshError(
            "; ".join(faults) + f". The cells have the tags {present.tolist()}, materials are given for {sorted(known)}"
        )
