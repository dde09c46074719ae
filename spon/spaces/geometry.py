# SPDX-License-Identifier: MIT
"""Points of a DOLFINx mesh: maps from the reference cell and back, and the cells of points."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int32]

_NEWTON_STEPS = 20
# Newton's method squares the error of reference coordinates: after a step of this size it is below rounding.
_LAST_STEP = 1e-9
# A point up to this reference distance outside a cell is on its boundary, by rounding.
_ON_BOUNDARY = 1e-10


class Mapped(NamedTuple):
    """Points (n, d) of the domain and Jacobians (n, d, t) of the map from the reference cell with t coordinates."""

    points: Array
    jacobian: Array


def push(mesh, cells: Cells, reference: Array) -> Mapped:
    """Points of reference cells, mapped to the domain.

    Args:
        mesh: a `dolfinx.mesh.Mesh`.
        cells: (n,), the cell of each point.
        reference: (n, t), reference coordinates.
    """
    from meshes.compat import geometry_dofmap

    d = mesh.geometry.dim
    nodes = mesh.geometry.x[geometry_dofmap(mesh)[cells], :d]
    element = mesh.ufl_domain().ufl_coordinate_element().sub_elements[0]
    values, *gradients = element.tabulate(1, reference)
    return Mapped(np.einsum("na,nad->nd", values, nodes), np.einsum("tna,nad->ndt", np.array(gradients), nodes))


def pull(mesh, cells: Cells, points: Array) -> Array:
    """Reference coordinates (n, t) of points, by Newton's method; NaN where it fails to converge.

    Args:
        mesh: a `dolfinx.mesh.Mesh`.
        cells: (n,), the cell of each point. Outside the cell, its polynomial map is continued.
        points: (n, d) [length].
    """
    x = np.full((len(points), mesh.topology.dim), 1 / (mesh.topology.dim + 1))
    if len(points) == 0:  # basix does not tabulate at no point
        return x
    for _ in range(_NEWTON_STEPS):
        mapped = push(mesh, cells, x)
        inverse = np.linalg.inv if mapped.jacobian.shape[1] == mapped.jacobian.shape[2] else np.linalg.pinv
        step = np.einsum("ntd,nd->nt", inverse(mapped.jacobian), points - mapped.points)
        x += step
        if not (lost := abs(step).max(axis=1) > _LAST_STEP).any():
            return x
    x[lost] = np.nan
    return x


def midpoints(mesh) -> Array:
    """Midpoints (cells, d) of all cells."""
    from dolfinx.mesh import compute_midpoints

    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return compute_midpoints(mesh, mesh.topology.dim, cells)[:, : mesh.geometry.dim]


def depth(mesh, reference: Array) -> Array:
    """Least barycentric coordinate (n,) of points (n, t) in the reference cell; negative outside."""
    inside = reference.min(axis=1)
    simplex = mesh.topology.cell_name() in ("interval", "triangle", "tetrahedron")
    return np.minimum(inside, 1 - (reference.sum(axis=1) if simplex else reference.max(axis=1)))


def locate(mesh, points: Array, reach: float) -> Cells:
    """The cell (n,) of each point: one that contains it, else the nearest.

    The comparison uses reference coordinates, which have no unit of length.

    Args:
        mesh: a `dolfinx.mesh.Mesh`.
        points: (n, d) [length].
        reach: largest distance of a point outside the nearest cell, in sizes of that cell.

    Raises:
        ValueError: a point that is farther outside; names it.
    """
    from dolfinx import geometry

    dim = mesh.topology.dim
    padded = np.zeros((len(points), 3))
    padded[:, : points.shape[1]] = points
    tree = geometry.bb_tree(mesh, dim)
    boxes = geometry.compute_collisions_points(tree, padded)
    point, candidates = np.repeat(np.arange(len(points)), np.diff(boxes.offsets)), boxes.array
    inside = depth(mesh, pull(mesh, candidates, points[point]))
    cells, best = np.full(len(points), -1, dtype=np.int32), np.full(len(points), -np.inf)
    order = np.argsort(
        np.nan_to_num(inside, nan=-np.inf), kind="stable"
    )  # the deepest is last and overwrites the others
    cells[point[order]], best[point[order]] = candidates[order], inside[order]
    outside = np.flatnonzero(~(best > -_ON_BOUNDARY))
    if len(outside):
        every = np.arange(mesh.topology.index_map(dim).size_local, dtype=np.int32)
        middle = geometry.create_midpoint_tree(mesh, dim, every)
        cells[outside] = geometry.compute_closest_entity(tree, middle, mesh, padded[outside])
        best[outside] = depth(mesh, pull(mesh, cells[outside], points[outside]))
        if not (best >= -reach).all():
            p = int(np.argmin(best))  # the first NaN, if any
            raise ValueError(
                f"point {points[p].tolist()} is outside the mesh by {-best[p]:.3g} times the size of the nearest "
                f"cell, need at most {reach:g}"
            )
    return cells
