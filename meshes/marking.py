# SPDX-License-Identifier: MIT
"""Tags for the cells of an existing mesh, such as a grid that many microstructures share."""

from collections.abc import Sequence

import dolfinx.mesh
import numpy as np
import numpy.typing as npt

from .deprecation import renamed_arguments
from .errors import MeshError
from .shapes import Shape, extent, images
from .tagged import MATRIX, TaggedMesh


@renamed_arguments(cell="rve")
def mark(rve: TaggedMesh, inclusions: Sequence[Shape], *, tag: int = MATRIX) -> npt.NDArray[np.int32]:
    """Tag of each cell of the mesh: that of the last inclusion that contains its midpoint, periodic images included.

    Args:
        rve: a mesh on one rank, whose bounding box is the period.
        inclusions: shapes, e.g. of `meshes.packing`.
        tag: tag of cells outside all inclusions.

    Returns:
        (cells,), for `TaggedMesh.with_tags`.

    Raises:
        MeshError: a mesh that is distributed over ranks or does not fill its period's box, or inclusions of another
            dimension.
    """
    if rve.mesh.comm.size > 1:
        raise MeshError(f"the mesh is spread over {rve.mesh.comm.size} ranks, need one on MPI.COMM_SELF")
    dim, tdim = rve.mesh.geometry.dim, rve.mesh.topology.dim
    count = rve.mesh.topology.index_map(tdim).size_local
    midpoints = dolfinx.mesh.compute_midpoints(rve.mesh, tdim, np.arange(count, dtype=np.int32))[:, :dim]
    lower, upper = rve.box
    if rve.period is not None and not rve.fills_box:
        raise MeshError(f"the period {rve.period.tolist()} is not the bounding box: such an RVE cannot be marked")
    tags = np.full(count, tag, dtype=np.int32)
    for shape in inclusions:
        if len(shape.center) != dim:
            raise MeshError(f"{shape} has {len(shape.center)} coordinates, the mesh {dim}")
        across = np.isfinite(extent(shape))  # a fibre is its cross-section
        inverse = np.linalg.inv(shape.matrix[np.ix_(across, across)])
        for center in images(shape, lower, upper, upper - lower):
            away = (midpoints - center)[:, across] @ inverse.T
            tags[np.einsum("ij,ij->i", away, away) <= 1.0] = shape.tag
    return tags
