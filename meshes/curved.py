# SPDX-License-Identifier: MIT
"""Curved cells that their own curvature has turned inside out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .arrays import Arrays
from .checks import bad_cells, raise_bad_cells
from .geometry import reference


def untangled(arrays: Arrays, *, fixed: npt.NDArray[np.bool_]) -> Arrays:
    """Straighten the tangled cells of a curved mesh, as far as needed and no other.

    Args:
        arrays: the mesh.
        fixed: (n,) nodes that must stay.

    Returns:
        The mesh, with the nodes of tangled cells moved in steps to the places that they have in straight-sided cells.

    Raises:
        MeshError: cells stay inverted or flat.
    """
    points, cells = arrays.points, arrays.cells
    linear, element = reference(arrays.cell, 1), reference(arrays.cell, arrays.degree)
    straight = points.copy()
    straight[cells] = np.einsum(
        "qv,mvi->mqi", linear.tabulate(0, element.points)[0, :, :, 0], points[cells[:, : linear.dim]]
    )
    for curvature in (
        0.5,
        0.25,
        0.0,
        0.0,
        0.0,
    ):  # again at 0, as a cell may become the next bad one when its neighbour moves
        bad = bad_cells(points, cells, arrays.cell, arrays.degree)
        if len(bad) == 0:
            return replace(arrays, points=points)
        moving = np.unique(cells[bad])
        moving = moving[~fixed[moving]]
        points = points.copy()
        points[moving] = straight[moving] + curvature * (arrays.points[moving] - straight[moving])
    raise_bad_cells(bad_cells(points, cells, arrays.cell, arrays.degree), len(cells), "inverted or flat")
    return replace(arrays, points=points)
