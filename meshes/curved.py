# SPDX-License-Identifier: MIT
"""Curved cells of a periodic mesh that their own curvature has turned inside out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from .arrays import Arrays
from .checks import bad_cells, raise_bad_cells
from .geometry import reference


def periodic_labels(
    points: npt.NDArray[np.float64], lower: npt.NDArray[np.float64], upper: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Labels (n,) that points (n, d) share with their images on the other faces of the box with these corners."""
    close = 1e-8 * np.max(upper - lower)
    wrapped = np.where(abs(points - upper) <= close, lower, points)
    pairs = cKDTree(wrapped).query_pairs(2 * close, output_type="ndarray")
    labels = np.arange(len(points))
    np.minimum.at(labels, pairs.max(axis=1, initial=0), pairs.min(axis=1, initial=len(points)))
    return labels


def untangled(arrays: Arrays, *, images: npt.NDArray[np.int64]) -> Arrays:
    """Straighten the tangled cells of a curved mesh, as far as needed and no other.

    Args:
        arrays: the mesh.
        images: (n,) labels; nodes with the same label move together.

    Returns:
        The mesh, with the nodes of tangled cells moved in steps to the places that they have in straight-sided cells.

    Raises:
        MeshError: cells stay inverted or flat.
    """
    cells = arrays.cells
    linear, element = reference(arrays.cell, 1), reference(arrays.cell, arrays.degree)
    straight = arrays.points.copy()
    corners = arrays.points[cells[:, : linear.dim]]
    straight[cells] = np.einsum("qv,mvi->mqi", linear.tabulate(0, element.points)[0, :, :, 0], corners)
    curvature = np.ones((len(straight), 1))
    for _ in range(20):  # a cell may become the next bad one when its neighbour has been straightened
        points = straight + curvature * (arrays.points - straight)
        bad = bad_cells(points, cells, arrays.cell, arrays.degree)
        moving = np.isin(images, images[np.unique(cells[bad])])
        if not np.any(curvature[moving]):
            break
        curvature[moving] = np.where(curvature[moving] > 0.2, curvature[moving] / 2, 0.0)
    raise_bad_cells(bad, len(cells), "inverted or flat")
    return replace(arrays, points=points)
