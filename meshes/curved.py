# SPDX-License-Identifier: MIT
"""Curved cells of a periodic mesh that are inverted by their curvature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .arrays import Arrays
from .checks import bad_cells, raise_bad_cells
from .geometry import reference


def untangled(arrays: Arrays, *, images: npt.NDArray[np.int64]) -> Arrays:
    """Straighten the inverted cells of a curved mesh as far as needed.

    Args:
        arrays: the mesh.
        images: (n,) labels; nodes with the same label move together.

    Returns:
        The mesh, with the nodes of inverted cells moved in steps towards their positions in straight-sided cells.

    Raises:
        MeshError: cells remain inverted or flat.
    """
    cells = arrays.cells
    linear, element = reference(arrays.cell, 1), reference(arrays.cell, arrays.degree)
    straight = arrays.points.copy()
    corners = arrays.points[cells[:, : linear.dim]]
    straight[cells] = np.einsum("qv,mvi->mqi", linear.tabulate(0, element.points)[0, :, :, 0], corners)
    curvature = np.ones((len(straight), 1))
    for _ in range(20):  # straightening a cell may invert its neighbour
        points = straight + curvature * (arrays.points - straight)
        bad = bad_cells(points, cells, arrays.cell, arrays.degree)
        moving = np.isin(images, images[np.unique(cells[bad])])
        if not np.any(curvature[moving]):
            break
        curvature[moving] = np.where(curvature[moving] > 0.2, curvature[moving] / 2, 0.0)
    raise_bad_cells(bad, len(cells), "inverted or flat")
    return replace(arrays, points=points)
