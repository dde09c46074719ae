# SPDX-License-Identifier: MIT
"""What occurs twice in a mesh from a file: nodes at one place, cells on the same nodes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from .arrays import facet_vertices
from .errors import MeshError

# Two nodes are at one place within this part of the mesh's size, and of the shortest edge where that is short.
PLACE, EDGE = 1e-6, 1e-2
POLICIES = ("error", "merge", "keep")


def coincident_pairs(points: npt.NDArray[np.float64], shortest: float) -> tuple[npt.NDArray[np.int64], float]:
    """Pairs (k, 2) of points (n, d) at one place, ordered, and the distance that counts as none.

    Args:
        points: the nodes that cells use. shortest: length of the shortest edge of a cell.
    """
    close = min(PLACE * np.max(np.ptp(points, axis=0)), EDGE * shortest)
    pairs = cKDTree(points).query_pairs(close, output_type="ndarray").astype(np.int64)
    return pairs[np.lexsort(pairs.T[::-1])], float(close)


def shortest_edge(points: npt.NDArray[np.float64], vertices: npt.NDArray[np.integer]) -> float:
    """Smallest distance that is not zero of two vertices of one cell (cells, vertices per cell); ∞ without cells."""
    shortest = np.inf
    for i in range(vertices.shape[1]):
        for j in range(i):
            lengths = np.linalg.norm(points[vertices[:, i]] - points[vertices[:, j]], axis=1)
            shortest = min(shortest, np.min(lengths, where=lengths > 0, initial=np.inf))
    return float(shortest)


def refuse_coincident(points: npt.NDArray[np.float64], pairs: npt.NDArray[np.int64], close: float) -> None:
    """Raise MeshError if there are pairs of points at one place; names their number and the first place."""
    if len(pairs):
        where = ", ".join(f"{x:.9g}" for x in points[pairs[0, 0]])
        raise MeshError(
            f"{len(np.unique(pairs[:, 1]))} nodes are where another node is already (within {close:.3g}), the first at "
            f"({where}): the cells that meet there are not connected, as if cracked. "
            'coincident="merge" makes one node of those at one place, coincident="keep" leaves the cracks open'
        )


def merged(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of ``count`` nodes the first of those that pairs (k, 2) connect it with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    _, first = np.unique(part, return_index=True)
    return first[part]


def refuse_repeated(cells: npt.NDArray[np.integer], cell: str) -> None:
    """Raise MeshError if two cells have the same vertices, or more than two cells a facet: DOLFINx would end there."""
    local = facet_vertices(cell)
    which, counts = groups(cells[:, : local.max() + 1])
    again = np.flatnonzero(counts[which] > 1)
    if len(again):
        twins = np.flatnonzero(which == which[again[0]])
        raise MeshError(
            f"{np.sum(counts[counts > 1] - 1)} of {len(cells)} cells have the same nodes as another one, the first of "
            f"them {twins[:2].tolist()} (counted from 0); a cell may be in the file once only"
        )
    which, counts = groups(cells[:, local].reshape(-1, local.shape[1]))
    crowded = np.flatnonzero(counts[which] > 2)
    if len(crowded):
        around = np.unique(np.flatnonzero(which == which[crowded[0]]) // len(local))
        raise MeshError(
            f"{np.sum(counts > 2)} facets belong to more than two cells, the first of them to {around.tolist()} "
            "(counted from 0); these cells overlap"
        )


def groups(rows: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each row (n, k) the number of its group, and the sizes of the groups; equal in any order are one group."""
    rows = np.sort(rows, axis=1)
    order = np.lexsort(rows.T)
    new = np.ones(len(rows), dtype=np.int64)
    new[1:] = np.any(np.diff(rows[order], axis=0), axis=1)
    which = np.empty(len(rows), dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    return which, np.bincount(which)
