# SPDX-License-Identifier: MIT
"""Geometry of meshes: Jacobians of the map from the reference cell, volumes, facets, lattice vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import basix
import dolfinx.mesh
import numpy as np
import numpy.typing as npt

from . import compat
from .errors import MeshError

if TYPE_CHECKING:
    from dolfinx.mesh import Mesh


def reference(cell: str, degree: int):
    """Basix element of the geometry: equispaced Lagrange, as in DOLFINx meshes."""
    return basix.create_element(basix.ElementFamily.P, basix.CellType[cell], degree, basix.LagrangeVariant.equispaced)


def jacobian_determinants(
    points: npt.NDArray[np.float64], cells: npt.NDArray[np.integer], cell: str, degree: int, at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Determinant of dx/dX.

    Args:
        points: (n, d) nodes.
        cells: (m, k) nodes of the cells, in DOLFINx order.
        cell: name of the reference cell.
        degree: degree of the geometry.
        at: (q, d) points of the reference cell.

    Returns:
        (m, q) determinants.
    """
    gradients = reference(cell, degree).tabulate(1, at)[1:, :, :, 0]  # (d, q, k)
    return np.linalg.det(np.einsum("mki,jqk->mqij", points[cells], gradients, optimize=True))


def local_cells(mesh: Mesh) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32], str, int]:
    """Nodes (n, d), owned cells (m, k), reference cell and degree of the part of a mesh on this rank."""
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    return (
        mesh.geometry.x[:, : mesh.geometry.dim],
        compat.geometry_dofmap(mesh)[:owned],
        mesh.topology.cell_name(),
        compat.coordinate_map(mesh).degree,
    )


def cell_volumes(mesh: Mesh, cells: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Areas (2D) or volumes (3D) of owned cells, exact for the degree of the geometry."""
    points, nodes, cell, degree = local_cells(mesh)
    # det J has degree d(k - 1) on simplices; per direction d k - 1 on quadrilaterals and hexahedra
    rule = basix.make_quadrature(basix.CellType[cell], points.shape[1] * degree)
    return np.abs(jacobian_determinants(points, nodes[cells], cell, degree, rule[0])) @ rule[1]


def lattice(period: npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    """Lattice vectors (dim, dim) as an array; the lengths (dim,) of a box are accepted as well.

    Raises:
        MeshError: not numbers, another shape, or vectors that are not finite or not independent.
    """
    wrong = MeshError(f"period is {period!r}: need {dim} lattice vectors, as ({dim}, {dim}) rows, or {dim} lengths")
    try:
        vectors = np.asarray(period, dtype=np.float64)
    except (TypeError, ValueError):  # words, rows of different lengths
        raise wrong from None
    if vectors.shape == (dim,):
        vectors = np.diag(vectors)
    if vectors.shape != (dim, dim) or not np.isfinite(vectors).all():
        raise wrong
    lengths = np.linalg.norm(vectors, axis=-1)
    if not np.all(lengths > 0):
        raise wrong
    if abs(np.linalg.det(vectors / lengths[:, None])) < 1e-6:
        raise MeshError(f"period is {vectors.tolist()}: the lattice vectors are not independent")
    return vectors


def facet_corners(mesh: Mesh, facets: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Vertices (f, v, dim) of the facets (f,)."""
    dim = mesh.geometry.dim
    count = {"triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 4}[mesh.topology.cell_name()]
    mesh.topology.create_connectivity(dim - 1, 0)
    nodes = np.asarray(dolfinx.mesh.entities_to_geometry(mesh, dim - 1, facets)).reshape(len(facets), -1)
    return mesh.geometry.x[nodes[:, :count] if nodes.size else np.zeros((0, count), dtype=int), :dim]


def facet_areas(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Areas (f,) of facets with the vertices (f, v, dim); lengths in 2D."""
    if corners.shape[1] == 2:
        return np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
    halves = [(0, 1, 2)] if corners.shape[1] == 3 else [(0, 1, 2), (3, 1, 2)]
    return sum(
        np.linalg.norm(np.cross(corners[:, b] - corners[:, a], corners[:, c] - corners[:, a]), axis=1) / 2
        for a, b, c in halves
    )
