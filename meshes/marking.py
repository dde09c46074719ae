# SPDX-License-Identifier: MIT
"""Tags for the cells of a mesh that is there already, such as a grid that many microstructures share."""

from collections.abc import Sequence

import dolfinx.mesh
import numpy as np
import numpy.typing as npt

from .errors import MeshError
from .shapes import Shape, extent, images
from .tagged import MATRIX, TaggedMesh


def mark(cell: TaggedMesh, inclusions: Sequence[Shape], *, tag: int = MATRIX) -> npt.NDArray[np.int32]:
    """Tag of each cell of the mesh: that of the last inclusion which has its midpoint, periodic images included.

    Args:
        cell: a mesh on one rank, whose bounding box is the period.
        inclusions: e.g. of `meshes.packing`. tag: of cells in none of them.

    Returns:
        (cells,), for `TaggedMesh.with_tags`.

    Raises:
        MeshError: a mesh that is spread over ranks or does not fill its period's box, or inclusions of another
        dimension.
    """
    if cell.mesh.comm.size > 1:
        raise MeshError(f"the mesh is spread over {cell.mesh.comm.size} ranks, need one on MPI.COMM_SELF")
    dim, tdim = cell.mesh.geometry.dim, cell.mesh.topology.dim
    count = cell.mesh.topology.index_map(tdim).size_local
    midpoints = dolfinx.mesh.compute_midpoints(cell.mesh, tdim, np.arange(count, dtype=np.int32))[:, :dim]
    lower, upper = cell.box
    if cell.period is not None and not cell.fills_box:
        raise MeshError(f"the period {cell.period.tolist()} is not the bounding box: such cells cannot be marked")
    tags = np.full(count, tag, dtype=np.int32)
    for shape in inclusions:
        if len(shape.center) != dim:
            raise MeshError(f"{shape} has {len(shape.center)} coordinates, the mesh {dim}")
        across = np.isfinite(extent(shape))  # a fibre is its shadow along the axis
        inverse = np.linalg.inv(shape.matrix[np.ix_(across, across)])
        for center in images(shape, lower, upper, upper - lower):
            away = (midpoints - center)[:, across] @ inverse.T
            tags[np.einsum("ij,ij->i", away, away) <= 1.0] = shape.tag
    return tags
