# SPDX-License-Identifier: MIT
"""Random fields and meshes of the benchmark problems of operator networks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mpi4py import MPI
from dolfinx import mesh

import meshes
from meshes.arrays import distribute
from meshes.gmsh_session import session
from meshes.occ import mesh_arrays


def gaussian(points: np.ndarray, samples: int, power: float, waves: int = 24) -> np.ndarray:
    """Gaussian random fields (points, samples) on the unit square, of mean zero and mean variance one.

    Their covariance is proportional to (−Δ + 9)^−power with zero Neumann conditions: cosines of as many `waves` in each
    direction, without the constant.
    """
    k = np.arange(waves)
    size = (np.pi**2 * (k[:, None] ** 2 + k**2) + 9) ** (-power / 2)
    size[0, 0] = 0.0
    size /= np.linalg.norm(size)
    length = np.where(k > 0, 0.5, 1.0) ** 0.5  # of cos(πkx) in L²
    along_x, along_y = np.cos(np.pi * points.T[:2, :, None] * k) / length
    shapes = np.einsum("pi,pj,ij->pij", along_x, along_y, size).reshape(len(points), -1)
    # One row of numbers for each sample, so that the first samples do not depend on their number.
    return shapes @ np.random.default_rng(0).standard_normal((samples, waves**2)).T


def smooth(points: np.ndarray, samples: int) -> np.ndarray:
    """Random fields with two square integrable derivatives."""
    return gaussian(points, samples, 3.5)


def rough(points: np.ndarray, samples: int) -> np.ndarray:
    """Random fields that are continuous and have no derivatives."""
    return gaussian(points, samples, 2.0)


def square(n: int) -> Any:
    """The unit square of n × n squares of two triangles."""
    return mesh.create_unit_square(MPI.COMM_SELF, n, n)


def l_shape(h: float) -> Any:
    """The unit square without its upper right quarter, of triangles with edges of about h."""

    def build():
        with session() as gmsh:
            whole, quarter = (gmsh.model.occ.addRectangle(a, a, 0.0, 1 - a, 1 - a) for a in (0.0, 0.5))
            ((_, surface),), _ = gmsh.model.occ.cut([(2, whole)], [(2, quarter)])
            gmsh.model.occ.synchronize()
            gmsh.option.setNumber("Mesh.MeshSizeMax", h)
            gmsh.model.mesh.generate(2)
            return mesh_arrays(gmsh.model, {1: [surface]}, 2, {})

    return distribute(MPI.COMM_SELF, build).mesh


def unstructured(h: float, holes: Sequence[meshes.Circle] = ()) -> Any:
    """The unit square, but for holes with the tag 0, of triangles with edges of about h on an unstructured mesh."""
    return meshes.rve(holes, MPI.COMM_SELF, mesh_size=h, center=(0.5, 0.5), edges_per_circle=6, cells_per_gap=1).mesh


def perforated(h: float) -> Any:
    """The same without four discs."""
    discs = ((0.25, 0.3, 0.12), (0.7, 0.2, 0.08), (0.75, 0.6, 0.15), (0.3, 0.75, 0.1))
    return unstructured(h, [meshes.Circle((x, y), radius, tag=0) for x, y, radius in discs])
