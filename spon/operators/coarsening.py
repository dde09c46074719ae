# SPDX-License-Identifier: MIT
"""Default coarse spaces: bilinear or trilinear fields on regular grids over the mesh.

Where a mesh is so graded that no regular grid resolves it, they are linear fields on simplices between fewer and fewer
of its nodes, which keep its grading.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from spon.spaces.space import Space

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

_ON_FACE = 1e-9  # distance from a face of a grid cell, in sizes of the cell, at which a node counts as on the face
# Distance from the grid up to which a node may lie outside, in sizes of a grid cell; prolongations extrapolate the
# polynomial of the nearest cell up to half a size.
_REACH = 0.45
_INSIDE = 1e-3  # distance from a corner of a cell to a point that is inside it for sure, relative to that to its middle
_FLAT = 1e-9  # volume of a simplex, relative to that of a box with its longest edge, below which it is rounding


@dataclass(frozen=True, slots=True)
class CoarseGrids:
    """Lagrange spaces of degree one on regular grids, each with half as many cells along an edge as the one before.

    A grid covers the bounding box of the mesh, without the cells that lie outside the mesh, in any dimension and for
    any kind of cell. The first has cells of twice the mean distance of the output's nodes. A grid that would tear
    the mesh into pieces, as where the mesh is strongly graded, is left out. If all are left out, in two or three
    dimensions without a periodic axis, the spaces are on Delaunay meshes instead, each between nodes of the one before
    of which no two are neighbours.

    Args:
        cells: least number along the longest edge of the coarsest grid; a Delaunay mesh has at least as many nodes as
            a grid with so many along each edge.
        count: of grids, at most; None for all.
    """

    cells: int
    count: int | None = None

    def spaces(self, mesh: Any, space: Space, periodic: Sequence[int] = ()) -> list[Any]:
        """Function spaces of DOLFINx, from finer to coarser.

        Args:
            mesh: of DOLFINx, on one rank.
            space: on the mesh; the grids cover its nodes.
            periodic: axes along which grids have partner nodes on opposite faces.

        Returns:
            All such spaces; none for a small mesh, or one that fills no part of its box, such as a surface in space.
        """
        made: list[Any] = []
        points = space.points.numpy()
        lower, size = points.min(axis=0), np.ptp(points, axis=0)
        if mesh.topology.dim < mesh.geometry.dim or not size.all():
            return made
        axes = [axis in periodic for axis in range(points.shape[1])]
        nodes = space.tying.shape[1] // space.block_size
        spacing = _spacing(size, axes, nodes * float(np.prod(size)) / space.volume)
        pieces = _pieces(space.cell_dofs.numpy())
        cells, factor, torn = np.rint(size / spacing).astype(int), 1, False
        while cells.max() > 1 and (self.count is None or len(made) < self.count):
            factor *= 2
            cells = np.maximum(np.rint(size / (factor * spacing)), 1).astype(int)
            if cells.max() < self.cells:
                break
            grid = _covering(space, (points - lower) / size * cells, cells, axes)
            if grid is not None and grid.independent < nodes and grid.pieces <= pieces:
                nodes = grid.independent
                made.append(_function_space(mesh.comm, grid.corners, lower + grid.vertices * size / cells))
            else:
                torn = True
        if torn and not made and not any(axes) and len(size) > 1:
            least = (self.cells + 1) ** len(size)
            for simplices in islice(_thinned(points, space.cell_dofs.numpy(), least), self.count):
                made.append(_function_space(mesh.comm, simplices.corners, simplices.vertices))
        return made


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """corners: (cells, 2^d) numbers of vertices. vertices: (n, d), in cells of the grid. independent: number of
    vertices without a periodic master. pieces: number of parts that no face connects."""

    corners: Numbers
    vertices: Numbers
    independent: int
    pieces: int


def _spacing(size: Array, periodic: Sequence[bool], nodes: float) -> float:
    """Edge of the cells of a regular grid in a box with so many independent nodes."""
    even = float(np.prod(size) / nodes) ** (1 / len(size))
    if all(periodic):
        return even
    ends = np.where(periodic, 0.0, 1.0)
    largest = 1e6 * float(size.max())  # a grid of such cells has no nodes but those at its ends
    return float(scipy.optimize.brentq(lambda h: float(np.prod(size / h + ends)) - nodes, even, largest, rtol=1e-12))


def _pieces(groups: Numbers) -> int:
    """Number of connected parts of a mesh, whose cells are connected by equal numbers in `groups` (cells, n)."""
    cells = np.arange(len(groups)).repeat(groups.shape[1])
    _, numbers = np.unique(groups, return_inverse=True)
    incidence = scipy.sparse.csr_array((np.ones(groups.size), (cells, numbers.ravel())))
    both = scipy.sparse.block_array([[None, incidence], [incidence.T, None]])
    return int(scipy.sparse.csgraph.connected_components(both, directed=False)[0])


def _covering(space: Space, places: Array, cells: Numbers, periodic: Sequence[bool]) -> _Grid | None:
    """The grid of so many cells along each axis, without cells with a corner on which no node's value depends.

    Args:
        space: the grid covers its nodes.
        places: (nodes, d) of them, from 0 to the number of cells along each axis.
        cells: (d,) numbers of cells.
        periodic: (d,) whether the grid needs partner vertices on opposite faces.

    Returns:
        None if some node or cell of the mesh is too far outside the remaining cells.
    """
    d = len(cells)
    ends = np.array(list(product((0, 1), repeat=d)))[:, ::-1]  # corners of a cell, the first axis fastest
    used = np.zeros((int(np.prod(cells)), 2**d), dtype=bool)
    for end in ends:  # a node on a face is in the cells on both sides
        here = np.clip(np.floor(places + np.where(end, _ON_FACE, -_ON_FACE)).astype(int), 0, cells - 1)
        along = places - here
        moves = np.stack([along < 1 - _ON_FACE, along > _ON_FACE], -1)  # weight on the lower and on the upper corner
        corner = np.all([moves[:, axis][:, ends[:, axis]] for axis in range(d)], axis=0)
        np.logical_or.at(used, np.ravel_multi_index(tuple(here.T), tuple(cells)), corner)
    kept = np.column_stack(np.unravel_index(np.flatnonzero(used.all(axis=1)), tuple(cells)))
    kept = _with_partners(kept, cells, periodic)
    if not len(kept):
        return None
    middles = places[space.cell_dofs.numpy()].mean(axis=1)
    away, _ = scipy.spatial.cKDTree(kept + 0.5).query(np.concatenate([places, middles]), p=np.inf)
    if away.max() > 0.5 + _REACH:
        return None
    corners = kept[:, None] + ends
    numbers, inverse = np.unique(
        np.ravel_multi_index(tuple(corners.reshape(-1, d).T), tuple(cells + 1)), return_inverse=True
    )
    vertices = np.column_stack(np.unravel_index(numbers, tuple(cells + 1)))
    masters = np.where(periodic, vertices % cells, vertices)
    faces = [
        np.ravel_multi_index((axis, *(kept + side * np.eye(d, dtype=int)[axis]).T), (d, *(cells + 1)))
        for axis in range(d)
        for side in (0, 1)
    ]
    return _Grid(
        inverse.reshape(len(kept), -1),
        vertices.astype(float),
        len(np.unique(masters, axis=0)),
        _pieces(np.column_stack(faces)),
    )


def _with_partners(kept: Numbers, cells: Numbers, periodic: Sequence[bool]) -> Numbers:
    """The cells (n, d) without those with a vertex on a periodic face whose partner belongs to no cell."""
    ends = np.array(list(product((0, 1), repeat=len(cells))))
    while True:
        corners = kept[:, None] + ends
        present = np.zeros(cells + 1, dtype=bool)
        present[tuple(corners.reshape(-1, len(cells)).T)] = True
        paired = np.ones(len(kept), dtype=bool)
        for axis in np.flatnonzero(periodic):
            for face, other in ((0, cells[axis]), (cells[axis], 0)):
                partner = corners.copy()
                partner[..., axis] = np.where(corners[..., axis] == face, other, corners[..., axis])
                paired &= present[tuple(np.moveaxis(partner, -1, 0))].all(axis=1)
        if paired.all():
            return kept
        kept = kept[paired]


@dataclass(frozen=True, slots=True, eq=False)
class _Simplices:
    """corners: (cells, d + 1) numbers of vertices. vertices: (n, d)."""

    corners: Numbers
    vertices: Array


def _thinned(points: Array, cells: Numbers, least: int) -> Iterator[_Simplices]:
    """Delaunay meshes of a domain, each between a part of the nodes of the one before, with at least `least` nodes.

    Args:
        points: (nodes, d) of the finest mesh.
        cells: (cells, n), the nodes of each of its cells.
        least: number of nodes.
    """
    while True:
        known = points[_independent_nodes(points, cells)]
        if len(known) < least:
            return
        # Points inside the cells of the mesh before: simplices without any of them are outside of the domain.
        corners, middles = points[cells], points[cells].mean(axis=1, keepdims=True)
        inside = np.concatenate([corners + _INSIDE * (middles - corners), middles], axis=1)
        corners = _triangulated(known, inside.reshape(-1, points.shape[1]))
        used, numbers = np.unique(corners, return_inverse=True)
        points, cells = known[used], numbers.reshape(corners.shape)
        yield _Simplices(cells, points)


def _triangulated(points: Array, inside: Array) -> Numbers:
    """The Delaunay simplices (cells, d + 1) between points that contain one of the points (n, d) inside the domain."""
    mesh = scipy.spatial.Delaunay(points)
    found = np.unique(mesh.find_simplex(inside))
    corners = mesh.simplices[found[found >= 0]].astype(np.int64)
    edges = points[corners[:, 1:]] - points[corners[:, :1]]
    longest = np.linalg.norm(edges, axis=2).max(axis=1)
    return corners[abs(np.linalg.det(edges)) > _FLAT * longest ** points.shape[1]]


def _independent_nodes(points: Array, cells: Numbers) -> Numbers:
    """Nodes of which no two share a cell while every other node shares one with them, those at corners first."""
    rows = np.arange(len(cells)).repeat(cells.shape[1])
    incidence = scipy.sparse.csr_array((np.ones(cells.size), (cells.ravel(), rows)), shape=(len(points), len(cells)))
    neighbours = scipy.sparse.csr_array(incidence @ incidence.T)
    order = np.asarray(incidence.sum(axis=1)).ravel()  # few cells meet at a node of the boundary
    order[scipy.spatial.ConvexHull(points).vertices] = 0
    chosen, near = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
    for node in np.argsort(order, kind="stable"):
        if not near[node]:
            chosen[node] = True
            near[neighbours.indices[neighbours.indptr[node] : neighbours.indptr[node + 1]]] = True
    return np.flatnonzero(chosen)


def _function_space(comm: Any, corners: Numbers, vertices: Array) -> Any:
    """Scalar fields of degree one on cells with such corners (cells, 2^d or d + 1) and vertices (n, d)."""
    import basix.ufl
    from dolfinx import fem

    from meshes.compat import create_mesh

    d = vertices.shape[1]
    simplices = corners.shape[1] == d + 1
    kind = {
        1: "interval",
        2: "triangle" if simplices else "quadrilateral",
        3: "tetrahedron" if simplices else "hexahedron",
    }[d]
    element = basix.ufl.element("P", kind, 1, shape=(d,))
    mesh = create_mesh(comm, corners.astype(np.int64), vertices, element)
    return fem.functionspace(mesh, ("P", 1))
