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
    from meshes._compat import geometry_dofmap

    d = mesh.geometry.dim
    corners = mesh.geometry.x[geometry_dofmap(mesh)[cells], :d]
    element = mesh.ufl_domain().ufl_coordinate_element().sub_elements[0]
    values, *slopes = element.tabulate(1, reference)
    return Mapped(np.einsum("na,nad->nd", values, corners), np.einsum("tna,nad->ndt", np.array(slopes), corners))


def pull(mesh, cells: Cells, points: Array) -> Array:
    """Reference coordinates (n, t) of point p (n, d) in cell p of `cells`, by Newton's method.

    Points outside of their cell are on its polynomial continuation.

    Raises:
        ValueError: naming a point that was not found.
    """
    x = np.full((len(points), mesh.topology.dim), 1 / (mesh.topology.dim + 1))
    for _ in range(20):
        mapped = push(mesh, cells, x)
        step = np.einsum("ntd,nd->nt", np.linalg.pinv(mapped.jacobian), points - mapped.points)
        x += step
        # Newton's method squares the error, so that this step was the last that could be seen.
        if (lost := abs(step).max(axis=1, initial=0.0) > 1e-9).sum() == 0:
            return x
    p = int(np.argmax(lost))
    raise ValueError(f"point {points[p].tolist()} has no coordinates in cell {cells[p]}, whose map may be degenerate")


def midpoints(mesh) -> Array:
    """Midpoints (cells, d) of all cells."""
    from dolfinx.mesh import compute_midpoints

    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return compute_midpoints(mesh, mesh.topology.dim, cells)[:, : mesh.geometry.dim]


def locate(mesh, points: Array, reach: float) -> Cells:
    """A cell (n,) for each point (n, d): one that has it, else the nearest.

    Args:
        reach: how far outside of the mesh a point may be, in diameters of the nearest cell.

    Raises:
        ValueError: naming a point that is farther outside.
    """
    from dolfinx import geometry

    dim = mesh.topology.dim
    padded = np.zeros((len(points), 3))
    padded[:, : points.shape[1]] = points
    tree = geometry.bb_tree(mesh, dim)
    hits = geometry.compute_colliding_cells(mesh, geometry.compute_collisions_points(tree, padded), padded)
    counts = np.diff(hits.offsets)
    cells = np.zeros(len(points), dtype=np.int32)
    cells[counts > 0] = hits.array[hits.offsets[:-1][counts > 0]]
    outside = np.flatnonzero(counts == 0)
    if len(outside):
        every = np.arange(mesh.topology.index_map(dim).size_local, dtype=np.int32)
        middle = geometry.create_midpoint_tree(mesh, dim, every)
        nearest = geometry.compute_closest_entity(tree, middle, mesh, padded[outside]).astype(np.int32)
        distance = np.sqrt(geometry.squared_distance(mesh, dim, nearest, padded[outside]))
        far = distance / mesh.h(dim, nearest)
        if far.max() > reach:
            p = int(np.argmax(far))
            raise ValueError(
                f"point {points[outside[p]].tolist()} is {distance[p]:.3g} outside of the mesh, "
                f"{far[p]:.3g} diameters of the nearest cell, need {reach:g} at most"
            )
        cells[outside] = nearest
    return cells
