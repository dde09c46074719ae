# SPDX-License-Identifier: MIT
"""Contact of an RVE with its translates without matching nodes: near pairs of facets, contact and overlap."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import dolfinx.mesh
import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from .errors import MeshError
from .period import CLOSE
from .windings import oriented, simplices, windings

if TYPE_CHECKING:
    from .tagged import TaggedMesh

# A facet touches another if it is nearer than this fraction of its size: more than two polygons along one curve
# differ, less than any gap that a mesh resolves.
TOUCHING = 0.02
# Most points of one translate that are located in the RVE.
MOST_POINTS = 2000
# Two facets are meant to be translates of each other if they differ by less than this fraction of their size.
NEARLY = 0.1


def refuse_near_pairs(corners: npt.NDArray[np.float64], period: npt.NDArray[np.float64]) -> None:
    """Raise MeshError if free facets (f, v, dim) almost match a translate: the period is not accurate."""
    if not len(corners):
        return
    middle = corners.mean(axis=1)
    radius = np.linalg.norm(corners - middle[:, None], axis=2).max(axis=1)
    tree = scipy.spatial.cKDTree(middle)
    for shift, moving in _translates(middle, period, radius.max()):
        distance, other = tree.query(middle[moving] + shift, distance_upper_bound=NEARLY * radius.max())
        # Facets at the same place belong to a mesh that covers itself.
        near = np.isfinite(distance) & (distance > CLOSE * np.linalg.norm(period, axis=1).max())
        here, there = moving[near], other[near]
        apart = np.linalg.norm((corners[here] + shift)[:, :, None] - corners[there][:, None], axis=3).min(axis=2)
        near = apart.max(axis=1) <= NEARLY * radius[here]
        if near.any():
            first = int(np.flatnonzero(near)[0])
            off = middle[there[first]] - middle[here[first]] - shift
            raise MeshError(
                f"the period {period.tolist()} is off: {near.sum()} sides of the boundary have their partner "
                f"{off.tolist()} beside where it is expected, the first around ({where(middle[here[[first]]])}); give "
                "the period, or the nodes of the mesh, with more digits"
            )


def touching(corners: npt.NDArray[np.float64], period: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether the free facets (f, v, dim) lie on a free facet of a translate, (f,)."""
    found = np.zeros(len(corners), dtype=bool)
    if not len(corners):
        return found
    middle = corners.mean(axis=1)
    radius = np.linalg.norm(corners - middle[:, None], axis=2).max(axis=1)
    tree = scipy.spatial.cKDTree(middle)
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


def refuse_overlapping_translates(rve, period, facets, corners) -> None:
    """Raise MeshError if the midpoint of a cell at the boundary lies in a translate of the mesh (collective).

    A point is inside if the facets of the boundary, turned outwards, fill its whole solid angle.

    Args:
        rve: the RVE.
        period: lattice vectors (dim, dim).
        facets: exterior facets (f,) of this rank.
        corners: vertices (f, v, dim) of the exterior facets of all ranks.
    """
    mesh = rve.mesh
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
                f"the mesh overlaps its translate by {shift.tolist()}, around ({where(moved[turns > 0.5])}): the "
                f"period {period.tolist()} is not that of this RVE"
            )


def is_box(rve: TaggedMesh, period: npt.NDArray[np.float64]) -> bool:
    """Whether an RVE lies in one box of its period, so that translates cannot overlap."""
    lower, upper = rve.box
    off = period - np.diag(np.diag(period))
    return not off.any() and bool(np.all(upper - lower <= np.abs(np.diag(period)) * (1 + CLOSE)))


def _translates(points, period, reach):
    """Nonzero lattice vectors, each with the points (n, dim) that it moves into their box, widened by ``reach``."""
    lower, upper = points.min(axis=0) - reach, points.max(axis=0) + reach
    turns = points @ np.linalg.inv(period)
    most = np.floor(np.ptp(turns, axis=0) + 2 * reach / np.linalg.norm(period, axis=1).min() + CLOSE).astype(int)
    for turn in product(*(range(-m, m + 1) for m in most)):
        shift = np.array(turn) @ period
        near = np.flatnonzero(((points + shift >= lower) & (points + shift <= upper)).all(axis=1))
        if any(turn) and len(near):
            yield shift, near


def where(points) -> str:
    """Coordinates of the first of the points (n, dim), in lexicographic order, for messages."""
    return ", ".join(f"{value:.9g}" for value in points[np.lexsort(points.T[::-1])[0]])
