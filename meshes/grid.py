# SPDX-License-Identifier: MIT
"""Structured meshes: a lattice of boxes, each a quadrilateral or hexahedron, or divided into simplices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from .arrays import Arrays, exterior_facets
from .geometry import reference

Side = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.bool_]]


def grid(
    axes: Sequence[npt.NDArray[np.floating]],
    tags: npt.NDArray[np.integer],
    *,
    order: int,
    quads: bool,
    sides: Mapping[str, Side] | None = None,
    names: Mapping[str, int] | None = None,
    mapping: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
    center: Sequence[float] | None = None,
) -> Arrays:
    """Structured mesh of a box, or of the image of one.

    Args:
        axes: per direction the increasing vertex coordinates, (n_i + 1,).
        tags: (n_1, ..., n_d) tag of each box; 0 leaves the box out.
        order: degree of the geometry, at least 1.
        quads: quadrilaterals and hexahedra; simplices otherwise (each box cut along the same diagonal, so that opposite
            sides match).
        sides: name → function of points (n, d) of the box, true on that part of the boundary; tags count from 1.
        names: name of a phase → tag.
        mapping: from points (n, d) of the box to points of the mesh; the identity if None.
        center: translation of the mesh; none if None.

    Returns:
        The mesh as arrays; the period is that of the box, voids included, and None with a mapping.
    """
    dim = len(axes)
    cell = {(2, True): "quadrilateral", (2, False): "triangle", (3, True): "hexahedron", (3, False): "tetrahedron"}
    shape = np.array([len(a) - 1 for a in axes])
    # The lattice of nodes: `order` equal steps inside each box.
    lattice = [np.interp(np.arange(n * order + 1) / order, np.arange(n + 1), a) for n, a in zip(shape, axes)]
    points = np.stack(np.meshgrid(*lattice, indexing="ij"), axis=-1).reshape(-1, dim)

    boxes = np.argwhere(np.asarray(tags) != 0)
    nodes = reference(cell[dim, quads], order).points
    steps = np.rint(order * np.stack(_images(nodes, dim, quads))).astype(np.int64)
    index = (order * boxes[:, None, None, :] + steps).reshape(-1, len(nodes), dim)
    cells = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), tuple(shape * order + 1)).astype(np.int64)
    values = np.repeat(np.asarray(tags)[tuple(boxes.T)], len(steps)).astype(np.int32)

    facets, facet_values = _tagged_facets(points, cells, cell[dim, quads], sides or {})
    points = points if mapping is None else mapping(points)
    return Arrays(
        points if center is None else points + np.asarray(center, dtype=np.float64),
        cells,
        cell[dim, quads],
        order,
        values,
        facets,
        facet_values,
        dict(names or {}),
        {name: i for i, name in enumerate(sides or {}, start=1)},
        np.diag([a[-1] - a[0] for a in axes]) if mapping is None else None,
    )


def _images(nodes, dim, quads):
    """Reference nodes placed in the unit box: once for a quadrilateral, once for each simplex of Kuhn's cut."""
    if quads:
        return [nodes]
    # Each order of the directions is one simplex: its vertices are the corners on the path along these edges.
    return [nodes @ np.cumsum(np.eye(dim)[list(order)], axis=0) for order in permutations(range(dim))]


def _tagged_facets(points, cells, cell, sides):
    if not sides:
        return None, None
    facets, values = [], []
    boundary = exterior_facets(cells, cell)
    for tag, on_side in enumerate(sides.values(), start=1):
        mine = boundary[np.all(on_side(points[boundary].reshape(-1, points.shape[1])).reshape(boundary.shape), axis=1)]
        facets.append(mine)
        values.append(np.full(len(mine), tag, dtype=np.int32))
    return np.concatenate(facets), np.concatenate(values)
