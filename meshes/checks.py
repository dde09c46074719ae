# SPDX-License-Identifier: MIT
"""What a mesh must satisfy before a problem is posed on it. Each check is collective and raises on every rank."""

from __future__ import annotations

from collections.abc import Iterable

import dolfinx.mesh
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from .arrays import facet_vertices
from .errors import MeshError
from .geometry import jacobian_determinants, local_cells, reference
from .tagged import TaggedMesh

# Relative size of det J below which a cell counts as flat: far above rounding, far below any useful cell.
FLAT = 1e-10


def check_periodic(tagged_mesh: TaggedMesh, *, tolerance: float = 1e-8) -> None:
    """Every node on a face of the bounding box has its partner on the opposite face.

    Besides the nodes, the midpoints of the boundary facets are compared, so that opposite faces with the same nodes but
    different diagonals are found too.

    Args:
        tagged_mesh: the RVE.
        tolerance: largest distance of two partners, relative to the largest length of the bounding box.

    Raises:
        MeshError: nodes or facets without a partner; names the direction, the counts and the first of them.
    """
    mesh = tagged_mesh.mesh
    dim = mesh.geometry.dim
    lower, upper = tagged_mesh.box
    close = tolerance * np.max(upper - lower)

    mesh.topology.create_connectivity(dim - 1, dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    midpoints = dolfinx.mesh.compute_midpoints(mesh, dim - 1, facets)[:, :dim]
    for kind, points in (("nodes", mesh.geometry.x[:, :dim]), ("facets", midpoints)):
        on_box = np.any((np.abs(points - lower) <= close) | (np.abs(points - upper) <= close), axis=1)
        refuse_unmatched(kind, np.concatenate(mesh.comm.allgather(points[on_box])), lower, upper, close)


def refuse_unmatched(
    kind: str,
    points: npt.NDArray[np.float64],
    lower: npt.NDArray[np.float64],
    upper: npt.NDArray[np.float64],
    close: float,
) -> None:
    """Raise if a point on one face of a box has no partner on the opposite face.

    Args:
        kind: what the points are, for the message.
        points: (n, d); those inside do not matter.
        lower, upper: corners of the box, (d,).
        close: largest distance of two partners.

    Raises:
        MeshError: names the direction, the number of points without a partner and the first of them.
    """
    for axis in range(len(lower)):
        low = points[np.abs(points[:, axis] - lower[axis]) <= close]
        high = points[np.abs(points[:, axis] - upper[axis]) <= close]
        _match(low, high, axis, close, kind)


def _match(low, high, axis, close, kind):
    """Compare the points of two opposite faces with the coordinate ``axis`` left out."""
    name = "xyz"[axis]
    faces = {f"{name} = min": low, f"{name} = max": high}
    for (here, points), (there, others) in zip(faces.items(), reversed(faces.items())):
        if len(points) == 0:
            continue
        if len(others) == 0:
            alone = np.ones(len(points), dtype=bool)
        else:
            distance, _ = cKDTree(np.delete(others, axis, axis=1)).query(np.delete(points, axis, axis=1))
            alone = distance > close
        if np.any(alone):
            count = len(np.unique(np.round(points[alone] / close), axis=0))
            first = points[alone][np.lexsort(points[alone].T[::-1])[0]]
            where = ", ".join(f"{value:.9g}" for value in first)
            raise MeshError(
                f"the mesh is not periodic in {name}: {count} {kind} on the face {here} have no partner on {there} "
                f"(within {close:.3g}), the first at ({where}). Opposite faces need the same nodes: mesh one, copy it "
                "to the other (meshes.cell does), or use a boundary condition that needs no pairs."
            )


def check_cells(tagged_mesh: TaggedMesh) -> None:
    """No cell is inverted in places or flat.

    A cell that is mirrored as a whole is fine in DOLFINx; one whose Jacobian determinant changes its sign, or vanishes,
    is not.

    Args:
        tagged_mesh: the mesh.

    Raises:
        MeshError: with the number of such cells and the first of them, numbered as in the input of the mesh.
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
        The cells whose det J changes sign or vanishes at a node or in the middle, and those that lie on the same side
        of a facet as the neighbour there (of two such, the one that does so more often): a simplex turned over has a
        constant det J.
    """
    element = reference(cell, degree)
    inside = np.vstack([element.points, element.points.mean(axis=0)])
    det = jacobian_determinants(points, cells, cell, degree, inside)
    scale = np.max(np.ptp(points[cells], axis=1), axis=1, initial=0.0) ** points.shape[1]
    low, high = det.min(axis=1, initial=np.inf), det.max(axis=1, initial=-np.inf)
    bad = (low * high < 0) | (np.minimum(abs(low), abs(high)) <= FLAT * scale)
    if cell != "hexahedron":  # its faces are not plane, so that they have no sides
        bad |= _folded(points, cells, cell)
    return np.flatnonzero(bad)


def _folded(points, cells, cell):
    """(m,) true for cells that overlap more than half of their neighbours; if there are none, that overlap any."""
    local = facet_vertices(cell)
    vertices = cells[:, : local.max() + 1]
    facets = np.sort(vertices[:, local], axis=2)  # sorted, so that both neighbours see the same orientation
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
    """Raise if there are any such cells."""
    if len(indices):
        raise MeshError(
            f"{len(indices)} of {total} cells are {what}, the first of them {indices[:5].tolist()} (counted from 0); "
            "their nodes are in a wrong order or a node has moved through the opposite side"
        )


def check_materials(tagged_mesh: TaggedMesh, tags: Iterable[int]) -> None:
    """Every cell has a tag, every tag a material, and every material a cell.

    Args:
        tagged_mesh: the mesh.
        tags: tags that have a material (a dictionary tag → material will do).

    Raises:
        MeshError: with the tags without material, the materials without cells and the cells without tag, their names
            and counts.
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
