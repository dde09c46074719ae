# SPDX-License-Identifier: MIT
"""How a periodic cell meets its translates: its period, and which parts of its boundary are the same point or facet.

The period is given by lattice vectors, the rows of an array (dim, dim). Two points are the same if they differ by a
whole combination of them. A facet of the boundary either has a partner, which is its translate, or it is a free
surface, with a void behind it. It is a fault if solid of a translate lies behind it and the nodes do not match.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import dolfinx.mesh
import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .errors import MeshError
from .geometry import cell_volumes
from .windings import oriented, simplices, windings

if TYPE_CHECKING:
    from .tagged import TaggedMesh

# Largest distance of two images of one point, relative to the longest period.
CLOSE = 1e-8
# Coordinates that are rounded to more than this, relative to the shortest period, are refused.
COARSEST = 1e-9
# A facet counts as touching another if it is nearer than this fraction of its size: more than two polygons differ that
# follow one curve, less than any gap that a mesh resolves.
TOUCHING = 0.02
# Points of a translate that are looked for in the cell.
MOST_POINTS = 2000
# Two facets that are translates of each other but for this fraction of their size were meant to be.
NEARLY = 0.1


class PeriodWarning(UserWarning):
    """A period that had to be guessed, or that leaves the solid without contact to its translates."""


def periodic_labels(points: npt.NDArray[np.float64], period: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Labels (n,) that points (n, dim) share with those from which they differ by lattice vectors (dim, dim)."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    lengths = np.linalg.norm(period, axis=1)
    sides = lengths / lengths.max()
    turns = (points - points.mean(axis=0)) @ np.linalg.inv(period)
    wrapped = (turns - np.floor(turns)) * sides
    wrapped[wrapped >= sides] = 0.0  # the remainder of a tiny negative number rounds to one period
    pairs = cKDTree(wrapped, boxsize=sides).query_pairs(CLOSE, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(len(points),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Seam:
    """The boundary of a cell and how it meets its translates.

    period: (dim, dim) lattice vectors. facets: (f,) exterior facets of this rank; if the mesh is on one rank, `pairs`
    number them. pairs: (p, 2) facets of all ranks that are translates of each other. shifts: (p, dim) whole multiples
    of the lattice vectors that lead from the first to the second. free: (f,) which facets of all ranks have no partner.
    """

    period: npt.NDArray[np.float64]
    facets: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int64]
    shifts: npt.NDArray[np.int64]
    free: npt.NDArray[np.bool_]


def seam(cell: TaggedMesh) -> Seam:
    """How the boundary of a cell meets its translates (collective).

    Raises:
        MeshError: a mesh that does not conform to its translates or overlaps them, or a period that is not known and
        cannot be told from the bounding box.
    """
    mesh = cell.mesh
    dim = mesh.geometry.dim
    refuse_coarse(cell)
    mesh.topology.create_connectivity(dim - 1, dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    mine = facet_corners(mesh, facets)
    period = known_period(cell)
    corners = np.concatenate(mesh.comm.allgather(mine))
    pairs, shifts, free = match(corners, period)
    refuse_overlap(cell, period, closed=not free.any())
    if not mesh.comm.allreduce(bool(_is_box(cell, period)), MPI.LAND):
        _refuse_overlapping_translates(cell, period, facets, corners)
    if cell.period is None:
        apart = np.flatnonzero(~np.any(shifts != 0, axis=0))
        if apart.size:
            raise MeshError(
                f"the period cannot be told from the bounding box: along {'xyz'[apart[0]]} nothing of the mesh has a "
                "partner on the opposite face. " + GIVE
            )
    return Seam(period, facets, pairs, shifts, free)


GIVE = "Give the lattice vectors, one a row: period=[[...], ...] of meshes.read or meshes.TaggedMesh"


def refuse_coarse(cell: TaggedMesh) -> None:
    """Raise MeshError if a cell is so far from the origin that its coordinates are not accurate (collective)."""
    lower, upper = cell.box
    size = float(np.min(upper - lower))
    farthest = float(np.max(np.abs([lower, upper])))
    if not farthest * np.finfo(np.float64).eps <= COARSEST * size:
        raise MeshError(
            f"the cell has the size {size:.3g} and lies {farthest:.3g} from the origin, where coordinates are rounded "
            f"to {farthest * np.finfo(np.float64).eps:.1e}: move it to the origin before it is written or meshed"
        )


def match(corners: npt.NDArray[np.float64], period: npt.NDArray[np.float64]):
    """Pairs of facets that are translates of each other.

    Args:
        corners: (f, v, dim) vertices of all facets of the boundary. period: (dim, dim).

    Returns:
        pairs (p, 2), shifts (p, dim) and free (f,), see `Seam`.

    Raises:
        MeshError: names the number of facets with solid of a translate behind them that has other nodes.
    """
    dim = len(period)
    middle = corners.mean(axis=1)
    label = periodic_labels(middle, period)
    order = np.argsort(label, kind="stable")
    first = np.flatnonzero(np.diff(label[order], prepend=-1))
    count = np.diff(first, append=len(order))
    pairs = np.stack([order[first[count == 2]], order[first[count == 2] + 1]], axis=1)
    shifts = np.rint((middle[pairs[:, 1]] - middle[pairs[:, 0]]) @ np.linalg.inv(period)).astype(np.int64)
    # Two facets at one place are the sides of a crack.
    apart = np.any(shifts != 0, axis=1)
    pairs, shifts = pairs[apart], shifts[apart]
    moved = corners[pairs[:, 0]] + (shifts @ period)[:, None]
    distance = np.linalg.norm(moved[:, :, None] - corners[pairs[:, 1]][:, None], axis=3)
    same = (distance.min(axis=2) <= CLOSE * np.linalg.norm(period, axis=1).max()).all(axis=1)
    pairs, shifts = pairs[same], shifts[same]
    free = np.ones(len(corners), dtype=bool)
    free[pairs] = False
    _refuse_near_pairs(corners[free], period)
    blocked = _touching(corners[free], period)
    if blocked.any():
        raise MeshError(
            f"the mesh is not periodic: {blocked.sum()} {'edges' if dim == 2 else 'facets'} of its boundary meet solid "
            f"of its translates that has other nodes there, {_first(corners, np.flatnonzero(free)[blocked], period)}; "
            f"the period is {period.tolist()}. Opposite sides need the same nodes: mesh one and copy it to the other "
            "(meshes.rve does), or use a boundary condition that needs no pairs; or give another period"
        )
    return pairs, shifts, free


def _first(corners, faulty, period) -> str:
    """What is wrong with the first of the `faulty` facets, by place."""
    dim = len(period)
    nodes = corners.reshape(-1, dim)
    label = periodic_labels(nodes, period)
    turns = nodes @ np.linalg.inv(period)
    places = np.unique(
        np.column_stack([label, np.rint(turns - turns[np.unique(label, return_index=True)[1]][label])]), axis=0
    )
    partners = np.bincount(places[:, 0].astype(int))[label].reshape(corners.shape[:2])
    alone = corners[faulty][partners[faulty] == 1]
    if not len(alone):
        middle = corners[faulty].mean(axis=1)
        return f"the first around ({_place(middle)})"
    node = alone[np.lexsort(alone.T[::-1])[0]]
    shifts = np.array([shift for shift in product((-1, 0, 1), repeat=dim) if any(shift)]) @ period
    nearest = np.linalg.norm((nodes - node)[None] - shifts[:, None], axis=2).min()
    count = len(np.unique(label.reshape(partners.shape)[faulty][partners[faulty] == 1]))
    return (
        f"{count} nodes there have no partner, the first at ({_place(alone)}), whose nearest is {nearest:.3g} away, "
        f"need {CLOSE * np.linalg.norm(period, axis=1).max():.3g}"
    )


def _refuse_near_pairs(corners, period) -> None:
    """Raise MeshError if free facets (f, v, dim) are almost translates of each other: the period is not accurate."""
    if not len(corners):
        return
    middle = corners.mean(axis=1)
    radius = np.linalg.norm(corners - middle[:, None], axis=2).max(axis=1)
    tree = cKDTree(middle)
    for shift, moving in _translates(middle, period, radius.max()):
        distance, other = tree.query(middle[moving] + shift, distance_upper_bound=NEARLY * radius.max())
        # At the very same place are the facets of a mesh that covers itself.
        near = np.isfinite(distance) & (distance > CLOSE * np.linalg.norm(period, axis=1).max())
        here, there = moving[near], other[near]
        apart = np.linalg.norm((corners[here] + shift)[:, :, None] - corners[there][:, None], axis=3).min(axis=2)
        near = apart.max(axis=1) <= NEARLY * radius[here]
        if near.any():
            first = int(np.flatnonzero(near)[0])
            off = middle[there[first]] - middle[here[first]] - shift
            raise MeshError(
                f"the period {period.tolist()} is off: {near.sum()} sides of the boundary have their partner "
                f"{off.tolist()} beside where it is expected, the first around ({_place(middle[here[[first]]])}); give "
                "the period, or the nodes of the mesh, with more digits"
            )


def _translates(points, period, reach):
    """Lattice vectors, but zero, and the points (n, dim) that they move as near as ``reach`` to the box of all."""
    lower, upper = points.min(axis=0) - reach, points.max(axis=0) + reach
    turns = points @ np.linalg.inv(period)
    most = np.floor(np.ptp(turns, axis=0) + 2 * reach / np.linalg.norm(period, axis=1).min() + CLOSE).astype(int)
    for turn in product(*(range(-m, m + 1) for m in most)):
        shift = np.array(turn) @ period
        near = np.flatnonzero(((points + shift >= lower) & (points + shift <= upper)).all(axis=1))
        if any(turn) and len(near):
            yield shift, near


def _place(points) -> str:
    return ", ".join(f"{value:.9g}" for value in points[np.lexsort(points.T[::-1])[0]])


def _touching(corners, period):
    """(f,) which free facets (f, v, dim) lie on a free facet of a translate."""
    found = np.zeros(len(corners), dtype=bool)
    if not len(corners):
        return found
    middle = corners.mean(axis=1)
    radius = np.linalg.norm(corners - middle[:, None], axis=2).max(axis=1)
    tree = cKDTree(middle)
    parts = simplices(corners)
    for shift, moving in _translates(middle, period, radius.max()):
        near = tree.query_ball_point(middle[moving] + shift, radius.max(), return_sorted=False)
        here = np.repeat(moving, [len(n) for n in near])
        there = np.concatenate([np.asarray(n, dtype=np.int64) for n in near])
        for simplex in parts:
            base, *ends = np.moveaxis(corners[there][:, simplex], 1, 0)
            edges = np.stack([end - base for end in ends], axis=2)  # (k, dim, dim - 1)
            away = middle[here] + shift - base
            weights = np.einsum("kij,kj->ki", np.linalg.pinv(edges), away)
            off = np.linalg.norm(away - np.einsum("kij,kj->ki", edges, weights), axis=1)
            inside = (weights >= 0).all(axis=1) & (weights.sum(axis=1) <= 1)
            found[here[inside & (off <= TOUCHING * radius[here])]] = True
    return found


def refuse_overlap(cell: TaggedMesh, period: npt.NDArray[np.float64], *, closed: bool) -> None:
    """Raise MeshError if a mesh is larger than its period, or smaller though it has no free surface (collective)."""
    mesh = cell.mesh
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    solid = mesh.comm.allreduce(float(cell_volumes(mesh, cells).sum()))
    volume = abs(float(np.linalg.det(period)))
    if solid > volume * (1 + 1e-8) or (closed and solid < volume * (1 - 1e-8)):
        raise MeshError(
            f"the mesh has the volume {solid:.9g}, the period {period.tolist()} has {volume:.9g}: "
            + ("the mesh overlaps its translates" if solid > volume else "the period is a multiple of the mesh's")
        )


def _is_box(cell: TaggedMesh, period: npt.NDArray[np.float64]) -> bool:
    """Whether a cell lies in one box of its period, so that translates cannot overlap."""
    lower, upper = cell.box
    off = period - np.diag(np.diag(period))
    return not off.any() and bool(np.all(upper - lower <= np.abs(np.diag(period)) * (1 + CLOSE)))


def _refuse_overlapping_translates(cell, period, facets, corners) -> None:
    """Raise MeshError if the middle of a cell at the boundary lies in a translate (collective).

    Inside is where the boundary's solid angle is full: its facets (f, v, dim), seen from the point, turned outwards.
    """
    mesh = cell.mesh
    dim = mesh.topology.dim
    cells = mesh.topology.connectivity(dim - 1, dim)
    inner = np.array([cells.links(f)[0] for f in facets], dtype=np.int32)
    middles = dolfinx.mesh.compute_midpoints(mesh, dim, inner)[:, :dim]
    middles = np.concatenate(mesh.comm.allgather(middles))
    outward = oriented(corners, middles)
    for shift, moving in _translates(middles, period, 0.0):
        moved = middles[moving] + shift
        moved = moved[:: 1 + len(moved) // MOST_POINTS]
        turns = windings(moved, outward)
        if (turns > 0.5).any():
            raise MeshError(
                f"the mesh overlaps its translate by {shift.tolist()}, around ({_place(moved[turns > 0.5])}): the "
                f"period {period.tolist()} is not that of this cell"
            )


def facet_corners(mesh, facets) -> npt.NDArray[np.float64]:
    """Vertices (f, v, dim) of facets."""
    dim = mesh.geometry.dim
    count = {"triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 4}[mesh.topology.cell_name()]
    mesh.topology.create_connectivity(dim - 1, 0)
    nodes = np.asarray(dolfinx.mesh.entities_to_geometry(mesh, dim - 1, facets)).reshape(len(facets), -1)
    return mesh.geometry.x[nodes[:, :count] if nodes.size else np.zeros((0, count), dtype=int), :dim]


def faces(cell: TaggedMesh) -> npt.NDArray[np.int32]:
    """Facets of the faces of a cell on one rank: of its parallelepiped, or of any outline that has a partner.

    Raises:
        MeshError: solid that does not reach the faces of the period, or a cell that is no parallelepiped with voids on
        its outline, so that what is a face and what a free surface cannot be told.
    """
    mesh = cell.mesh
    dim = mesh.geometry.dim
    period = known_period(cell)
    mesh.topology.create_connectivity(dim - 1, dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    corners = facet_corners(mesh, facets)
    turns = (corners - corners.mean(axis=(0, 1))) @ np.linalg.inv(period)
    lower, upper = turns.min(axis=(0, 1)), turns.max(axis=(0, 1))
    if np.all(upper - lower <= 1 + CLOSE):
        if np.any(upper - lower < 1 - CLOSE):
            raise MeshError(
                f"the solid spans {(upper - lower).tolist()} of the period along its lattice vectors, so that it does "
                "not reach the faces of the cell, where this boundary condition is given: use 'periodic'"
            )
        on = (np.abs(turns - lower) <= CLOSE).all(axis=1) | (np.abs(turns - upper) <= CLOSE).all(axis=1)
        return facets[on.any(axis=1)]
    boundary = seam(cell)
    count = corners.shape[1]
    label = periodic_labels(corners.reshape(-1, dim), period).reshape(-1, count)
    if np.isin(label[boundary.free], label[~boundary.free]).any():
        raise MeshError(
            "the cell is no parallelepiped and voids open on its outline, so that its faces cannot be told from free "
            "surfaces: use the boundary condition 'periodic'"
        )
    return facets[~boundary.free]


def with_period(cell: TaggedMesh, period: npt.ArrayLike | None) -> TaggedMesh:
    """The cell with a period that somebody gave, see `TaggedMesh`; itself if None (collective).

    Warns with `PeriodWarning` on rank 0 if the solid does not reach from one face of the period to the other.

    Raises:
        MeshError: vectors that are no period, or a mesh that is larger.
    """
    if period is None:
        return cell
    cell = replace(cell, period=period)
    vectors = known_period(cell)
    refuse_overlap(cell, vectors, closed=False)
    x = cell.mesh.geometry.x[:, : len(vectors)] @ np.linalg.inv(vectors)
    lower, upper = x.min(axis=0, initial=np.inf), x.max(axis=0, initial=-np.inf)
    cell.mesh.comm.Allreduce(MPI.IN_PLACE, lower, op=MPI.MIN)
    cell.mesh.comm.Allreduce(MPI.IN_PLACE, upper, op=MPI.MAX)
    spans = upper - lower
    if np.any(spans < 1 - CLOSE) and cell.mesh.comm.rank == 0:
        axis = int(spans.argmin())
        warnings.warn(
            f"the solid spans {spans[axis]:.6g} of the period along lattice vector {axis}, {vectors[axis].tolist()}: "
            "it does not touch its translates there, and carries nothing in that direction",
            PeriodWarning,
            stacklevel=3,
        )
    return cell


def known_period(cell: TaggedMesh) -> npt.NDArray[np.float64]:
    """Lattice vectors (dim, dim) of a cell: as given, else those of the bounding box if it is certain (collective).

    Warns with `PeriodWarning` on rank 0 if voids open on a face of the box, so that the true period may be longer.

    Raises:
        MeshError: no period was given and a face of the bounding box has no facet on it.
    """
    if cell.period is not None:
        return cell.period
    mesh = cell.mesh
    lower, upper = cell.box
    size = upper - lower
    mesh.topology.create_connectivity(mesh.geometry.dim - 1, mesh.geometry.dim)
    corners = facet_corners(mesh, dolfinx.mesh.exterior_facet_indices(mesh.topology))
    areas = _areas(corners)
    covered = np.empty((2, len(size)))
    for row, wall in zip(covered, (lower, upper)):
        on = (np.abs(corners - wall) <= CLOSE * size.max()).all(axis=1)  # (f, dim)
        row[:] = areas @ on
    mesh.comm.Allreduce(MPI.IN_PLACE, covered, op=MPI.SUM)
    covered /= np.prod(size) / size
    for axis, share in enumerate(covered.min(axis=0)):
        if share == 0:
            raise MeshError(
                "the period cannot be told from the bounding box: no facet lies on one of its faces across "
                f"{'xyz'[axis]}. {GIVE}"
            )
    if covered.min() < 1 - 1e-6 and mesh.comm.rank == 0:
        axis = int(covered.min(axis=0).argmin())
        warnings.warn(
            f"the faces of the bounding box across {'xyz'[axis]} are solid to {covered[:, axis].min():.0%}; the period "
            f"is taken to be the box, {size.tolist()}. {GIVE}",
            PeriodWarning,
            stacklevel=2,
        )
    return np.diag(size)


def _areas(corners) -> npt.NDArray[np.float64]:
    """Areas (f,) of facets with the vertices (f, v, dim), lengths in 2D."""
    if corners.shape[1] == 2:
        return np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
    halves = [(0, 1, 2)] if corners.shape[1] == 3 else [(0, 1, 2), (3, 1, 2)]
    return sum(
        np.linalg.norm(np.cross(corners[:, b] - corners[:, a], corners[:, c] - corners[:, a]), axis=1) / 2
        for a, b, c in halves
    )
