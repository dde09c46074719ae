# SPDX-License-Identifier: MIT
"""Data of boundary value problems for operator networks: random inputs and the solutions that belong to them.

Each problem is a function of n, the cells along an edge of the unit square, and of the numbers of samples to learn from
and of unseen ones. Random fields are the same functions for any n. Solutions are those of the finite element problem,
by a direct solver.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI
from torch import Tensor

from meshes.arrays import distribute
from meshes.gmsh_session import session
from meshes.occ import mesh_arrays


@dataclass(frozen=True, eq=False)
class Problem:
    """An operator between two function spaces and samples of it.

    input, output: function spaces on MPI.COMM_SELF. bcs: Dirichlet conditions on the output. coarse: Lagrange spaces
    below the output, from finer to coarser.
    inputs, outputs: (dofs, samples), to learn from. unseen_inputs, unseen_outputs: (dofs, samples), to test with.
    grid: (n + 1, n + 1), the number of the output's node at (i/n, j/n) where there is such a grid, else None.
    """

    name: str
    input: Any
    output: Any
    bcs: tuple[Any, ...]
    coarse: tuple[Any, ...]
    inputs: Tensor
    outputs: Tensor
    unseen_inputs: Tensor
    unseen_outputs: Tensor
    grid: Tensor | None


def poisson(n: int, samples: int, unseen: int) -> Problem:
    """−Δu = f in the unit square, u = 0 on its boundary; from a smooth random f to u."""
    return _poisson("Poisson", square(n), [square(k) for k in _coarser(n)], samples, unseen, grid=n)


def poisson_l_shape(n: int, samples: int, unseen: int) -> Problem:
    """The same on an unstructured mesh of the square without its upper right quarter."""
    finest, *coarse = (l_shape(1 / k) for k in (n, *_coarser(n)))
    return _poisson("Poisson, L-shape", finest, coarse, samples, unseen)


def darcy_smooth(n: int, samples: int, unseen: int) -> Problem:
    """−∇·(a∇u) = 1 in the unit square, u = 0 on its boundary; from a to u, a = exp of a smooth random field."""
    return _darcy("Darcy, smooth", n, samples, unseen, lambda points, count: np.exp(smooth(points, count)))


def darcy_rough(n: int, samples: int, unseen: int) -> Problem:
    """The same with nodal values a = 12 where a random field is positive and a = 3 elsewhere.

    After Li et al., arXiv 2010.08895, whose random field has the covariance (−Δ + 9)⁻² and zero Neumann conditions.
    """

    def phases(points, count):
        return np.where(rough(points, count) > 0, 12.0, 3.0)

    return _darcy("Darcy, rough", n, samples, unseen, phases)


def inclusions(n: int, samples: int, unseen: int) -> Problem:
    """Plane strain in the unit square, clamped at the left and pulled to the right with the traction one; ν = 0.3.

    From Young's modulus, 10 in cells whose midpoint is in one of three random discs and 1 elsewhere, to displacements.
    """
    square_n = square(n)
    V_E, V = fem.functionspace(square_n, ("DG", 0)), fem.functionspace(square_n, ("P", 1, (2,)))
    bc = fem.dirichletbc(np.zeros(2), fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0.0)), V)
    rng, radius = np.random.default_rng(0), 0.15
    centres = rng.uniform(radius, 1 - radius, (samples + unseen, 3, 2))
    distances = np.linalg.norm(_points(V_E)[:, None, None] - centres, axis=-1).min(-1)
    moduli = np.where(distances < radius, 10.0, 1.0)

    nu, E = 0.3, fem.Function(V_E)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    stress = E / (1 + nu) * (strain(u) + nu / (1 - 2 * nu) * ufl.tr(strain(u)) * ufl.Identity(2))
    right = ufl.conditional(ufl.gt(ufl.SpatialCoordinate(square_n)[0], 1 - 1e-6), 1.0, 0.0)
    displacements = _solve_each(ufl.inner(stress, strain(v)) * ufl.dx, right * v[0] * ufl.ds, bc, E, moduli)
    coarse = _lagrange(square(k) for k in _coarser(n))
    return _split("elasticity, inclusions", V_E, V, bc, coarse, moduli, displacements, samples, _grid(V, n))


PROBLEMS: dict[str, Callable[[int, int, int], Problem]] = {
    "Poisson": poisson,
    "Poisson, L-shape": poisson_l_shape,
    "Darcy, smooth": darcy_smooth,
    "Darcy, rough": darcy_rough,
    "elasticity, inclusions": inclusions,
}


# Random fields and meshes.


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
    # One row of numbers for each sample, so that the first samples do not depend on how many there are.
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


# What the problems share.


def strain(u):
    return ufl.sym(ufl.grad(u))


def _poisson(name, finest, coarser, samples, unseen, grid=None):
    (V,) = _lagrange([finest])
    bc, u, v = _zero(V), ufl.TrialFunction(V), ufl.TestFunction(V)
    forcings = smooth(_points(V), samples + unseen)
    loads = fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_scipy() @ forcings
    loads[bc.dof_indices()[0]] = 0.0
    solutions = _factor(fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx), bc).solve(loads)
    return _split(name, V, V, bc, _lagrange(coarser), forcings, solutions, samples, grid and _grid(V, grid))


def _darcy(name, n, samples, unseen, draw):
    """draw: coefficients (points, count) of points and a count."""
    V, *coarse = _lagrange(square(k) for k in (n, *_coarser(n)))
    bc, u, v, a = _zero(V), ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    coefficients = draw(_points(V), samples + unseen)
    solutions = _solve_each(ufl.inner(a * ufl.grad(u), ufl.grad(v)) * ufl.dx, v * ufl.dx, bc, a, coefficients)
    return _split(name, V, V, bc, coarse, coefficients, solutions, samples, _grid(V, n))


def _split(name, V_in, V, bc, coarse, inputs, outputs, samples, grid):
    inputs, outputs = torch.from_numpy(inputs), torch.from_numpy(outputs)
    fields = inputs[:, :samples], outputs[:, :samples], inputs[:, samples:], outputs[:, samples:]
    return Problem(name, V_in, V, (bc,), tuple(coarse), *fields, grid)


def _factor(form, bc):
    matrix = fem.assemble_matrix(form, bcs=[bc]).to_scipy().tocsc()
    return scipy.sparse.linalg.splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})


def _solve_each(bilinear, linear, bc, coefficient, values):
    """Solutions (dofs, samples) of a bilinear form whose coefficient takes values (dofs, samples), with zero bc."""
    load = fem.assemble_vector(fem.form(linear)).array
    load[bc.dof_indices()[0]] = 0.0
    form, found = fem.form(bilinear), np.empty((len(load), values.shape[1]))
    for k, field in enumerate(values.T):
        coefficient.x.array[:] = field
        found[:, k] = _factor(form, bc).solve(load)
    return found


def _lagrange(domains):
    return [fem.functionspace(domain, ("P", 1)) for domain in domains]


def _coarser(n):
    """Cells along an edge of coarser meshes, each of half as many, down to some four."""
    return [n // k for k in (2, 4, 8, 16) if n // k >= 4]


def _zero(V):
    """u = 0 on the whole boundary."""
    V.mesh.topology.create_connectivity(1, 2)
    return fem.dirichletbc(0.0, fem.locate_dofs_topological(V, 1, mesh.exterior_facet_indices(V.mesh.topology)), V)


def _points(V):
    return V.tabulate_dof_coordinates()[:, :2]


def _grid(V, n):
    i, j = np.rint(n * _points(V)).astype(np.int64).T
    grid = np.empty((n + 1, n + 1), dtype=np.int64)
    grid[i, j] = np.arange(len(i))
    return torch.from_numpy(grid)
