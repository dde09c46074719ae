# SPDX-License-Identifier: MIT
"""Repetitions in a mesh from a file: coincident nodes, cells with the same nodes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from .arrays import facet_vertices
from .errors import MeshError

# Two nodes coincide within this fraction of the mesh's size, and of the shortest edge if that is less.
PLACE, EDGE = 1e-6, 1e-2
POLICIES = ("error", "merge", "keep")


def coincident_pairs(points: npt.NDArray[np.float64], shortest: float) -> tuple[npt.NDArray[np.int64], float]:
    """Sorted pairs (k, 2) of coincident points, and the distance within which points coincide.

    Args:
        points: (n, d) nodes of cells.
        shortest: length of the shortest edge of a cell.
    """
    close = min(PLACE * np.max(np.ptp(points, axis=0)), EDGE * shortest)
    pairs = scipy.spatial.cKDTree(points).query_pairs(close, output_type="ndarray").astype(np.int64)
    return pairs[np.lexsort(pairs.T[::-1])], float(close)


def shortest_edge(points: npt.NDArray[np.float64], vertices: npt.NDArray[np.integer]) -> float:
    """Smallest nonzero distance of two vertices of one cell; ∞ without cells.

    Args:
        points: (n, d) nodes.
        vertices: (cells, vertices per cell) vertices of the cells.
    """
    shortest = np.inf
    for i in range(vertices.shape[1]):
        for j in range(i):
            lengths = np.linalg.norm(points[vertices[:, i]] - points[vertices[:, j]], axis=1)
            shortest = min(shortest, np.min(lengths, where=lengths > 0, initial=np.inf))
    return float(shortest)


def refuse_coincident(points: npt.NDArray[np.float64], pairs: npt.NDArray[np.int64], close: float) -> None:
    """Raise MeshError if there are pairs of coincident points; the message has their number and the first place."""
    if len(pairs):
        where = ", ".join(f"{x:.9g}" for x in points[pairs[0, 0]])
        raise MeshError(
            f"{len(np.unique(pairs[:, 1]))} nodes coincide with another node (within {close:.3g}), the first at "
            f"({where}): the cells that meet there are not connected, as if cracked. "
            'coincident="merge" makes one node of those at one place, coincident="keep" leaves the cracks open'
        )


def merged(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of ``count`` nodes the first of the nodes to which pairs (k, 2) connect it."""
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    _, first = np.unique(part, return_index=True)
    return first[part]


def refuse_repeated(cells: npt.NDArray[np.integer], cell: str) -> None:
    """Raise MeshError if two cells have the same vertices, or more than two cells one facet: DOLFINx would abort."""
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
    """Group index of each row (n, k), and the sizes of the groups; rows with the same entries form one group."""
    rows = np.sort(rows, axis=1)
    order = np.lexsort(rows.T)
    new = np.ones(len(rows), dtype=np.int64)
    new[1:] = np.any(np.diff(rows[order], axis=0), axis=1)
    which = np.empty(len(rows), dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    return which, np.bincount(which)
