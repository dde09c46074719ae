# SPDX-License-Identifier: MIT
"""The contact of a periodic RVE with its translates: equal points and facets of its boundary.

Two points are the same if they differ by a whole combination of the lattice vectors, the rows of an array (dim, dim).
A facet of the boundary either has a partner, which is its translate, or it is a free surface, with a void behind it. It
is an error if solid of a translate lies behind it and the nodes do not match.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import dolfinx.mesh
import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
from mpi4py import MPI

from .deprecation import renamed_arguments
from .errors import MeshError
from .geometry import facet_corners
from .period import CLOSE, GIVE, known_period, refuse_coarse, refuse_wrong_volume
from .translates import is_box, refuse_near_pairs, refuse_overlapping_translates, touching, where

if TYPE_CHECKING:
    from .tagged import TaggedMesh


def periodic_labels(points: npt.NDArray[np.float64], period: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Labels (n,) of points, equal for points that differ by a combination of lattice vectors.

    Args:
        points: (n, dim) coordinates.
        period: (dim, dim) lattice vectors.
    """
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    lengths = np.linalg.norm(period, axis=1)
    sides = lengths / lengths.max()
    turns = (points - points.mean(axis=0)) @ np.linalg.inv(period)
    wrapped = (turns - np.floor(turns)) * sides
    wrapped[wrapped >= sides] = 0.0  # the remainder of a tiny negative number rounds to one period
    pairs = scipy.spatial.cKDTree(wrapped, boxsize=sides).query_pairs(CLOSE, output_type="ndarray")
    graph = scipy.sparse.coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(len(points),) * 2)
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Seam:
    """The boundary of an RVE and its contact with translates.

    Args:
        period: (dim, dim) lattice vectors.
        facets: (f,) exterior facets of this rank; on one rank, `pairs` index them.
        pairs: (p, 2) facets of all ranks that are translates of each other.
        shifts: (p, dim) integer multiples of the lattice vectors from the first to the second of each pair.
        free: (f,) whether each facet of all ranks has no partner.
    """

    period: npt.NDArray[np.float64]
    facets: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int64]
    shifts: npt.NDArray[np.int64]
    free: npt.NDArray[np.bool_]


@renamed_arguments(cell="rve")
def seam(rve: TaggedMesh) -> Seam:
    """The contact of the boundary of an RVE with its translates (collective).

    Args:
        rve: the RVE.

    Raises:
        MeshError: a mesh that does not conform to its translates or overlaps them, or a period that is not given and
            not certain from the bounding box.
    """
    mesh = rve.mesh
    dim = mesh.geometry.dim
    refuse_coarse(rve)
    mesh.topology.create_connectivity(dim - 1, dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    mine = facet_corners(mesh, facets)
    period = known_period(rve)
    corners = np.concatenate(mesh.comm.allgather(mine))
    found = match(corners, period)
    refuse_wrong_volume(rve, period, closed=not found.free.any())
    if not mesh.comm.allreduce(bool(is_box(rve, period)), MPI.LAND):
        refuse_overlapping_translates(rve, period, facets, corners)
    if rve.period is None:
        apart = np.flatnonzero(~np.any(found.shifts != 0, axis=0))
        if apart.size:
            raise MeshError(
                f"the period is not certain from the bounding box: along {'xyz'[apart[0]]} nothing of the mesh has a "
                "partner on the opposite face. " + GIVE
            )
    return Seam(period, facets, found.pairs, found.shifts, found.free)


@dataclass(frozen=True, slots=True, eq=False)
class FacetPairs:
    """Facets of a boundary that are translates of each other, see `Seam`.

    Args:
        pairs: (p, 2) facets.
        shifts: (p, dim) integer multiples of the lattice vectors from the first to the second of each pair.
        free: (f,) whether each facet has no partner.
    """

    pairs: npt.NDArray[np.int64]
    shifts: npt.NDArray[np.int64]
    free: npt.NDArray[np.bool_]


def match(corners: npt.NDArray[np.float64], period: npt.NDArray[np.float64]) -> FacetPairs:
    """Pairs of facets that are translates of each other.

    Args:
        corners: (f, v, dim) vertices of all facets of the boundary.
        period: (dim, dim) lattice vectors.

    Raises:
        MeshError: facets with solid of a translate behind them whose nodes do not match.
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
    refuse_near_pairs(corners[free], period)
    blocked = touching(corners[free], period)
    if blocked.any():
        raise MeshError(
            f"the mesh is not periodic: {blocked.sum()} {'edges' if dim == 2 else 'facets'} of its boundary meet solid "
            f"of its translates that has other nodes there, {_first(corners, np.flatnonzero(free)[blocked], period)}; "
            f"the period is {period.tolist()}. Opposite sides need the same nodes: mesh one and copy it to the other "
            "(meshes.rve does), or use a boundary condition that needs no pairs; or give another period"
        )
    return FacetPairs(pairs, shifts, free)


def _first(corners, faulty, period) -> str:
    """Description of the fault of the first of the `faulty` facets, in the order of their coordinates."""
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
        return f"the first around ({where(middle)})"
    node = alone[np.lexsort(alone.T[::-1])[0]]
    shifts = np.array([shift for shift in product((-1, 0, 1), repeat=dim) if any(shift)]) @ period
    nearest = np.linalg.norm((nodes - node)[None] - shifts[:, None], axis=2).min()
    count = len(np.unique(label.reshape(partners.shape)[faulty][partners[faulty] == 1]))
    return (
        f"{count} nodes there have no partner, the first at ({where(alone)}), whose nearest is {nearest:.3g} away, "
        f"need {CLOSE * np.linalg.norm(period, axis=1).max():.3g}"
    )


@renamed_arguments(cell="rve")
def faces(rve: TaggedMesh) -> npt.NDArray[np.int32]:
    """Facets on the faces of an RVE on one rank: those of its parallelepiped, or all facets that have a partner.

    Args:
        rve: the RVE.

    Raises:
        MeshError: solid that does not reach the faces of the period, or voids on the outline of an RVE that is no
            parallelepiped, where faces and free surfaces cannot be distinguished.
    """
    mesh = rve.mesh
    dim = mesh.geometry.dim
    period = known_period(rve)
    mesh.topology.create_connectivity(dim - 1, dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    corners = facet_corners(mesh, facets)
    turns = (corners - corners.mean(axis=(0, 1))) @ np.linalg.inv(period)
    lower, upper = turns.min(axis=(0, 1)), turns.max(axis=(0, 1))
    if np.all(upper - lower <= 1 + CLOSE):
        if np.any(upper - lower < 1 - CLOSE):
            raise MeshError(
                f"the solid spans {(upper - lower).tolist()} of the period along its lattice vectors, so that it does "
                "not reach the faces of the RVE, where this boundary condition is given: use 'periodic'"
            )
        on = (np.abs(turns - lower) <= CLOSE).all(axis=1) | (np.abs(turns - upper) <= CLOSE).all(axis=1)
        return facets[on.any(axis=1)]
    boundary = seam(rve)
    count = corners.shape[1]
    label = periodic_labels(corners.reshape(-1, dim), period).reshape(-1, count)
    if np.isin(label[boundary.free], label[~boundary.free]).any():
        raise MeshError(
            "the RVE is no parallelepiped and voids cut its outline, so that its faces cannot be distinguished from "
            "free surfaces: use the boundary condition 'periodic'"
        )
    return facets[~boundary.free]
