# SPDX-License-Identifier: MIT
"""Data of boundary value problems for operator networks: random inputs and their solutions.

Each problem is a function of n, the cells along an edge of the unit square, and of the numbers of training samples and
of unseen ones. Random fields are the same functions for any n. Solutions are those of the finite element problem, by a
direct solver, and with Newton's method for nonlinear problems.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
import ufl
from dolfinx import fem, mesh
from domains import l_shape, perforated, rough, smooth, square, unstructured
from torch import Tensor

from spon.spaces import transfer


@dataclass(frozen=True, eq=False)
class Problem:
    """An operator between two function spaces and samples of it.

    Args:
        name: of the problem.
        input: function space on MPI.COMM_SELF.
        output: function space on MPI.COMM_SELF.
        bcs: Dirichlet conditions on the output.
        coarse: Lagrange spaces below the output, from finer to coarser.
        inputs: (dofs, samples), for training.
        outputs: (dofs, samples), for training.
        unseen_inputs: (dofs, samples), to test with.
        unseen_outputs: (dofs, samples), to test with.
        grid: (n + 1, n + 1), the number of the output's node at (i/n, j/n) of a regular grid, else None.
        velocity: the space of `outputs` if these are curls of fields in `output`, else None.
        integral: of the predictions, see `spon.Structure`.
        increment: whether all networks predict an increment of the input.
        runs: (2 m + 1, dofs, count), unseen series of states, twice as long as those of the samples.
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
    velocity: Any = None
    integral: str | None = None
    increment: bool = False
    runs: Tensor | None = None


def poisson(n: int, samples: int, unseen: int) -> Problem:
    """−Δu = f in the unit square, u = 0 on its boundary; from a smooth random f to u."""
    return _poisson("Poisson", square(n), [square(k) for k in _coarser(n)], samples, unseen, grid=n)


def poisson_l_shape(n: int, samples: int, unseen: int) -> Problem:
    """The same on an unstructured mesh of the square without its upper right quarter."""
    finest, *coarse = (l_shape(1 / k) for k in (n, *_coarser(n)))
    return _poisson("Poisson, L-shape", finest, coarse, samples, unseen)


def poisson_perforated(n: int, samples: int, unseen: int) -> Problem:
    """The same in the unit square without four discs, on an unstructured mesh; u = 0 on the edges of the discs too."""
    finest, *coarse = (perforated(1 / k) for k in (n, *_coarser(n)))
    return _poisson("Poisson, perforated", finest, coarse, samples, unseen)


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
    return _split("elasticity, inclusions", V_E, V, [bc], coarse, moduli, displacements, samples, _grid(V, n))


def stokes(n: int, samples: int, unseen: int) -> Problem:
    """−∇·(2μ ε(u)) + ∇p = f, ∇·u = 0 in the unit square, u = 0 on its boundary; from μ to u.

    f pushes up at the left and down at the right, μ = exp of a smooth random field. u is the curl of a quadratic stream
    function with (n + 1)² nodes, n even, and so are the test functions: no divergence, no flux through the walls, no
    pressure. Its tangential jumps are met by the symmetric interior penalty method, as in Cockburn, Kanschat &
    Schötzau, J. Sci. Comput. 31 (2007).
    """
    if n % 2:
        raise ValueError(f"n = {n}, need an even number: quadratic elements have nodes at the middles of edges")
    domain = square(n // 2)
    M, V, W = (fem.functionspace(domain, element) for element in (("P", 1), ("P", 2), ("RT", 2)))
    viscosities = np.exp(smooth(_points(M), samples + unseen))

    mu, bc, normal, h = fem.Function(M), _zero(V), ufl.FacetNormal(domain), 2 / n
    u, v = (ufl.as_vector([psi.dx(1), -psi.dx(0)]) for psi in (ufl.TrialFunction(V), ufl.TestFunction(V)))

    def stress(u):
        return 2 * mu * strain(u)

    def inside(u, v):
        return ufl.inner(ufl.dot(ufl.avg(stress(u)), normal("+")), v("+") - v("-")) * ufl.dS

    def at_walls(u, v):
        return ufl.inner(ufl.dot(stress(u), normal), v) * ufl.ds

    jumps = ufl.inner(u("+") - u("-"), v("+") - v("-")) * mu("+") * ufl.dS + ufl.inner(u, v) * mu * ufl.ds
    bilinear = ufl.inner(stress(u), strain(v)) * ufl.dx + 10 / h * jumps
    bilinear -= inside(u, v) + inside(v, u) + at_walls(u, v) + at_walls(v, u)
    force = ufl.sin(2 * np.pi * ufl.SpatialCoordinate(domain)[0])
    potentials = _solve_each(bilinear, force * v[1] * ufl.dx, bc, mu, viscosities)
    velocities = transfer.curl(V, W).scipy @ potentials
    coarse = _lagrange(square(k) for k in _coarser(n))
    return _split("Stokes", M, V, [bc], coarse, viscosities, velocities, samples, _grid(V, n), velocity=W)


def hyperelasticity(n: int, samples: int, unseen: int) -> Problem:
    """Large plane strain of a neo-Hookean unit square, clamped at the left; from body forces to displacements.

    The energy density is μ/2 (tr FᵀF − 2 − 2 ln J) + λ/2 (ln J)² with Young's modulus one and ν = 0.3; the components
    of the force are 0.12 times smooth random fields.
    """
    square_n = square(n)
    V = fem.functionspace(square_n, ("P", 1, (2,)))
    bc = fem.dirichletbc(np.zeros(2), fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0.0)), V)
    forces = 0.12 * smooth(_points(V), 2 * (samples + unseen)).reshape(len(_points(V)), -1, 2)
    forces = np.ascontiguousarray(forces.transpose(0, 2, 1)).reshape(-1, samples + unseen)

    mu, lame = 1 / 2.6, 0.3 / (1.3 * 0.4)
    u, f, v = fem.Function(V), fem.Function(V), ufl.TestFunction(V)
    F = ufl.Identity(2) + ufl.grad(u)
    log_J = ufl.ln(ufl.det(F))
    energy = mu / 2 * (ufl.inner(F, F) - 2 - 2 * log_J) + lame / 2 * log_J**2
    residual = ufl.derivative((energy - ufl.inner(f, u)) * ufl.dx, u, v)
    newton = _Newton(residual, u, bc)
    displacements = np.empty_like(forces)
    for k, force in enumerate(forces.T):
        u.x.array[:] = 0.0
        done, step = 0.0, 1.0
        while done < 1.0:
            start = u.x.array.copy()
            f.x.array[:] = (done + step) * force
            if newton.solve():
                done, step = done + step, min(2 * step, 1.0 - done - step)
            elif step > 1e-3:
                u.x.array[:] = start
                step /= 2
            else:
                raise RuntimeError(f"sample {k}: no solution beyond {done:.3f} times its force")
        displacements[:, k] = u.x.array
    coarse = _lagrange(square(k) for k in _coarser(n))
    return _split("hyperelasticity", V, V, [bc], coarse, forces, displacements, samples, _grid(V, n))


def navier_stokes(n: int, samples: int, unseen: int) -> Problem:
    """Decaying flow in the unit square on an unstructured mesh; from the vorticity to that a time of 0.1 later.

    Samples are the first ten steps from smooth random vorticities, each series with a circulation of its own. Walls let
    neither fluid nor vorticity through, so that the circulation ∫ω is conserved, see `vorticity_step`.
    """
    V, *coarse = _lagrange(unstructured(1 / k) for k in (n, *_coarser(n)))
    steps, parts, points = 10, n, _points(V)
    count = [-(-k // steps) for k in (samples, unseen)]
    turning = np.random.default_rng(1).standard_normal(sum(count))
    advance = vorticity_step(V, viscosity=2e-3, step=0.1 / parts)
    states = [4 * (smooth(points, sum(count)) + turning / 2)]
    for _ in range(2 * steps):
        state = states[-1]
        for _ in range(parts):
            state = advance(state)
        states.append(state)
    series = np.stack(states)

    def pairs(which, wanted):
        """States (dofs, wanted) of successive series before and after a step."""
        for k in (0, 1):
            yield series[k : steps + k, :, which].transpose(1, 2, 0).reshape(len(points), -1)[:, :wanted]

    learned = pairs(slice(count[0]), samples)
    seen = pairs(slice(count[0], None), unseen)
    inputs, outputs = (np.concatenate(both, 1) for both in zip(learned, seen))
    runs = torch.from_numpy(series[:, :, count[0] :].copy())
    told = {"integral": "input", "increment": True, "runs": runs}
    return _split("Navier–Stokes", V, V, [], coarse, inputs, outputs, samples, None, **told)


PROBLEMS: dict[str, Callable[[int, int, int], Problem]] = {
    "Poisson": poisson,
    "Poisson, L-shape": poisson_l_shape,
    "Poisson, perforated": poisson_perforated,
    "Darcy, smooth": darcy_smooth,
    "Darcy, rough": darcy_rough,
    "elasticity, inclusions": inclusions,
    "hyperelasticity": hyperelasticity,
    "Stokes": stokes,
    "Navier–Stokes": navier_stokes,
}


# Common parts of the problems.


def strain(u):
    return ufl.sym(ufl.grad(u))


def _poisson(name, finest, coarser, samples, unseen, grid=None):
    (V,) = _lagrange([finest])
    bc, u, v = _zero(V), ufl.TrialFunction(V), ufl.TestFunction(V)
    forcings = smooth(_points(V), samples + unseen)
    loads = fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_scipy() @ forcings
    loads[bc.dof_indices()[0]] = 0.0
    solutions = _factor(fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx), bc).solve(loads)
    return _split(name, V, V, [bc], _lagrange(coarser), forcings, solutions, samples, grid and _grid(V, grid))


def _darcy(name, n, samples, unseen, draw):
    """draw: coefficients (points, count) of points and a count."""
    V, *coarse = _lagrange(square(k) for k in (n, *_coarser(n)))
    bc, u, v, a = _zero(V), ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    coefficients = draw(_points(V), samples + unseen)
    solutions = _solve_each(ufl.inner(a * ufl.grad(u), ufl.grad(v)) * ufl.dx, v * ufl.dx, bc, a, coefficients)
    return _split(name, V, V, [bc], coarse, coefficients, solutions, samples, _grid(V, n))


def _split(name, V_in, V, bcs, coarse, inputs, outputs, samples, grid, **more):
    inputs, outputs = torch.from_numpy(inputs), torch.from_numpy(outputs)
    fields = inputs[:, :samples], outputs[:, :samples], inputs[:, samples:], outputs[:, samples:]
    return Problem(name, V_in, V, tuple(bcs), tuple(coarse), *fields, grid, **more)


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


class _Newton:
    """Newton's method for a residual form of a function with a zero bc."""

    def __init__(self, residual, u, bc):
        self.u, self.bc, self.fixed = u, bc, bc.dof_indices()[0]
        self.residual, self.jacobian = fem.form(residual), fem.form(ufl.derivative(residual, u))

    def solve(self, iterations=12):
        """Whether Newton's method converges to rounding from the present value of the function; it ends at NaN."""
        for _ in range(iterations):
            residual = fem.assemble_vector(self.residual).array.copy()
            reaction, residual[self.fixed] = abs(residual[self.fixed]).max(), 0.0
            size = abs(residual).max()
            if not size < np.inf:
                return False
            if size <= 1e-12 * reaction:
                return True
            self.u.x.array[:] -= _factor(self.jacobian, self.bc).solve(residual)
        return False


def vorticity_step(V, viscosity, step):
    """The map of vorticities ω (dofs, samples) in V, linear elements, over a time step of an incompressible flow.

    ∂ω/∂t + u·∇ω = ν Δω with u = curl ψ, −Δψ = ω, and on the walls ψ = 0 and no flux of vorticity. By the implicit
    midpoint rule, with which the circulation ∫ω is conserved and ∫ω² falls, by 2ν ∫|∇ω|² at the midpoint times it.
    """
    u, v, q = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.TestFunction(fem.functionspace(V.mesh, ("DG", 0)))

    def matrix(form, bcs=()):
        return fem.assemble_matrix(fem.form(form), bcs=list(bcs)).to_scipy().tocsc()

    wall = _zero(V)
    stiffness, mass = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u * v * ufl.dx
    poisson = _factor(fem.form(stiffness), wall)
    M, K = matrix(mass), matrix(stiffness)
    implicit = scipy.sparse.linalg.splu((M + step / 2 * viscosity * K).tocsc())
    # Integrals over the cells; u and ∇v are constant there.
    means, along_x, along_y = (matrix(part * q * ufl.dx) for part in (u, u.dx(0), u.dx(1)))
    area = np.asarray(means.sum(axis=1)).reshape(-1, 1)

    def carried(omega):
        """∫ ω u·∇v."""
        load = M @ omega
        load[wall.dof_indices()[0]] = 0.0
        psi = poisson.solve(load)
        density = (means @ omega) / area**2
        return along_x.T @ (density * (along_y @ psi)) - along_y.T @ (density * (along_x @ psi))

    def advance(omega):
        middle, right = omega, M @ omega
        for _ in range(100):
            # (M + τ/2 ν K) of the midpoint
            found = implicit.solve(right + step / 2 * carried(middle))
            change, middle = abs(found - middle).max(), found
            if change <= 1e-13 * abs(found).max():
                return 2 * middle - omega
        raise RuntimeError(f"the midpoint still changes by {change:.1e}: step = {step} is too long")

    return advance


def _lagrange(domains):
    return [fem.functionspace(domain, ("P", 1)) for domain in domains]


def _coarser(n):
    """Cells along an edge of coarser meshes, each with half as many, down to about four."""
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
