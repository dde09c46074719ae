# SPDX-License-Identifier: MIT
"""Points of a DOLFINx mesh: from the reference cell and back, and in which cell they are."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int32]


class Mapped(NamedTuple):
    """Points (n, d) of the domain and Jacobians (n, d, t) of the map from the reference cell with t coordinates."""

    points: Array
    jacobian: Array


def push(mesh, cells: Cells, reference: Array) -> Mapped:
    """Point p of the reference cell (n, t), mapped as in cell p of `cells` (n,)."""
    from meshes.compat import geometry_dofmap

    d = mesh.geometry.dim
    corners = mesh.geometry.x[geometry_dofmap(mesh)[cells], :d]
    element = mesh.ufl_domain().ufl_coordinate_element().sub_elements[0]
    values, *slopes = element.tabulate(1, reference)
    return Mapped(np.einsum("na,nad->nd", values, corners), np.einsum("tna,nad->ndt", np.array(slopes), corners))


def pull(mesh, cells: Cells, points: Array) -> Array:
    """Reference coordinates (n, t) of point p (n, d) in cell p of `cells`, by Newton's method; NaN where it fails.

    Points outside of their cell are on its polynomial continuation.
    """
    x = np.full((len(points), mesh.topology.dim), 1 / (mesh.topology.dim + 1))
    if len(points) == 0:  # basix does not tabulate at no point
        return x
    for _ in range(20):
        mapped = push(mesh, cells, x)
        inverse = np.linalg.inv if mapped.jacobian.shape[1] == mapped.jacobian.shape[2] else np.linalg.pinv
        step = np.einsum("ntd,nd->nt", inverse(mapped.jacobian), points - mapped.points)
        x += step
        # Newton's method squares the error, so that this step was the last that could be seen.
        if not (lost := abs(step).max(axis=1) > 1e-9).any():
            return x
    x[lost] = np.nan
    return x


def midpoints(mesh) -> Array:
    """Midpoints (cells, d) of all cells."""
    from dolfinx.mesh import compute_midpoints

    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return compute_midpoints(mesh, mesh.topology.dim, cells)[:, : mesh.geometry.dim]


def depth(mesh, reference: Array) -> Array:
    """How deep (n,) points of the reference cell are inside, in its own unit: the least barycentric coordinate."""
    inside = reference.min(axis=1)
    simplex = mesh.topology.cell_name() in ("interval", "triangle", "tetrahedron")
    return np.minimum(inside, 1 - (reference.sum(axis=1) if simplex else reference.max(axis=1)))


def locate(mesh, points: Array, reach: float) -> Cells:
    """A cell (n,) for each point (n, d): one that has it, else the nearest.

    What decides are reference coordinates, which know no unit of length.

    Args:
        reach: how far outside of the nearest cell a point may be, in sizes of that cell.

    Raises:
        ValueError: naming a point that is farther outside.
    """
    from dolfinx import geometry

    dim = mesh.topology.dim
    padded = np.zeros((len(points), 3))
    padded[:, : points.shape[1]] = points
    tree = geometry.bb_tree(mesh, dim)
    boxes = geometry.compute_collisions_points(tree, padded)
    place, candidates = np.repeat(np.arange(len(points)), np.diff(boxes.offsets)), boxes.array
    inside = depth(mesh, pull(mesh, candidates, points[place]))
    cells, best = np.full(len(points), -1, dtype=np.int32), np.full(len(points), -np.inf)
    order = np.argsort(np.nan_to_num(inside, nan=-np.inf), kind="stable")  # the deepest comes last, and stays
    cells[place[order]], best[place[order]] = candidates[order], inside[order]
    outside = np.flatnonzero(~(best > -1e-10))
    if len(outside):
        every = np.arange(mesh.topology.index_map(dim).size_local, dtype=np.int32)
        middle = geometry.create_midpoint_tree(mesh, dim, every)
        cells[outside] = geometry.compute_closest_entity(tree, middle, mesh, padded[outside])
        best[outside] = depth(mesh, pull(mesh, cells[outside], points[outside]))
        if not (best >= -reach).all():
            p = int(np.argmin(best))  # a NaN, if there is one
            raise ValueError(
                f"point {points[p].tolist()} is outside of the mesh by {-best[p]:.3g} times the size of the nearest "
                f"cell, need {reach:g} at most"
            )
    return cells
