# SPDX-License-Identifier: MIT
"""Newton's method for the fluctuations of many points of an RVE, side by side.

Each iteration linearises the points one after the other and then solves for all their steps at once, where
`ReducedStiffness` is fastest. A point without convergence is stalled, with the reason, and solved by itself: its own
stiffness is then factorised in each step, also if it is indefinite, as in softening materials. Newton's step
reduces the residual in this case, too, but the equilibrium need not be stable.

The residual r is small enough when ‖r‖ ≤ tolerance · ‖R‖, R the internal forces. An energy that is a difference of
large numbers, such as tr e − ln det(I + 2e)/2 at small strains, has forces with fewer digits than that. The residual
then stops falling at the rounding of a stress as large as the stiffness,

    ‖r‖ ≤ ε ‖ Σⱼ |Kᵢⱼ| (dᵢⱼ + |uⱼ|) ‖,

ε the rounding unit, dᵢⱼ the distance of the nodes: terms of the forces at strain one, and of those at the
displacement u. A residual that has stagnated below this is taken as equilibrium and is part of the result. (Rounding
has random signs, so sums of it are smaller than the bound: laws with logarithms, exponentials and determinants, at
contrasts from 1e-4 to 1e4, leave a thousandth to a twentieth of it.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from fe2.body import Body, LocalError
from fe2.boundary import Unknowns
from fe2.condensed import FACTORISATION, ReducedStiffness
from fe2.factor import NoFactor
from fe2.materials import why_not_finite
from fe2.minimum import weakest

Array = npt.NDArray[np.float64]

# Work at one iterate (forces and stiffness) in units of one application of the factor beside others.
_VISIT = 4

# The residual must be halved within _SLOW iterations; one not halved within two is compared with rounding.
_STAGNATION, _SLOW = 0.5, 8

# Tolerance of a linear solve: √(‖r‖/‖R‖) times the first number, within these two. Newton's method then converges
# superlinearly (Eisenstat & Walker, SIAM J. Sci. Comput. 17, 1996, 16–32) at the least cost of the linear solver.
_FORCING, _FINEST_FORCING = 1e-2, 1e-5

# Tolerance of X in the tangent: its error enters squared with symmetry, and linearly without.
_TANGENT_RTOL = {True: 1e-6, False: 1e-12}

# Sufficient decrease (Armijo's condition, Nocedal & Wright, Numerical Optimization, 2006, ch. 3), and the step lengths
# 1, 1/2, ... tried for it; where shorter ones would be needed, sub-steps of the strain converge sooner.
_DECREASE, _STEP_LENGTHS = 1e-4, 6


@dataclass(frozen=True)
class SolverOptions:
    """How RVE problems are solved.

    Args:
        tolerance: of the equilibrium, relative to the norm of the internal forces.
        max_iterations: Newton iterations before the strain is approached in sub-steps.
        max_substeps: the most sub-steps from the last accepted strain.
        options_prefix: of the PETSc options of the linear solver; for points by themselves `direct_` comes after it.
        buckling: at finite strain, where equilibria need not be stable: "report" those that are no minimum of the
            energy (`Homogenised.unstable`), by a factorisation for each point, with which its tangent is solved;
            "follow" the energy down to a minimum from there; or "unchecked", where, as at small strain, only points
            that were solved by themselves are reported.

    Raises:
        ValueError: another value of `buckling`.
    """

    tolerance: float = 1e-11
    max_iterations: int = 25
    max_substeps: int = 16
    options_prefix: str = "micro_"
    buckling: str = "report"

    def __post_init__(self):
        if self.buckling not in ("report", "follow", "unchecked"):
            raise ValueError(f"buckling = {self.buckling!r}: need 'report', 'follow' or 'unchecked'")


def _nothing() -> Array:
    return np.empty(0)


@dataclass(slots=True)
class Point:
    """The iterate of one point, and its results once converged."""

    strain: Array  # (d,)
    w: Array  # (unknowns,) of the fluctuation
    memory: Array  # (memory_size,) of the materials: accepted state, present local unknowns
    iterations: int = 0
    work: float = 0.0
    history: list[float] = field(default_factory=list)  # norms of the residual
    stalled: str = ""  # why it fails to converge
    converged: bool = False
    unstable: bool = False  # an equilibrium that is no minimum of the energy
    scale: float = 1.0  # norm of the internal forces
    residual: Array = field(default_factory=_nothing)  # (unknowns,)
    values: Array = field(default_factory=_nothing)  # of the reduced stiffness
    coupling: Array = field(default_factory=_nothing)  # (d, unknowns), (TᵀKA)ᵀ
    coupled: Array = field(default_factory=_nothing)  # (d, unknowns), (TᵀKᵀA)ᵀ
    affine: Array = field(default_factory=_nothing)  # (d, d), AᵀKA
    slope: Array = field(default_factory=_nothing)  # (d, unknowns), X = −dw/dE, of points solved by themselves
    updated: Array = field(default_factory=_nothing)  # (memory_size,) at the end of the step
    stress: Array = field(default_factory=_nothing)
    tangent: Array = field(default_factory=_nothing)
    energy: float = np.nan

    def stall(self, why: str) -> None:
        self.stalled = f"{why} (residuals {', '.join(f'{h:.2e}' for h in self.history[-8:])})"

    @property
    def relative_residual(self) -> float:
        """The norm of the residual relative to that of the internal forces."""
        return self.history[-1] / self.scale if self.scale else 0.0


class MicroNewton:
    """Newton's method for points of one RVE.

    Args:
        body: of the RVE.
        unknowns: of its boundary condition.
        stiffness: solves with the stiffness of the unknowns.
        affine: (dofs, d) displacements of the unit Mandel strains.
        volume: of the RVE's period [length^dim].
        options: tolerance and number of iterations.
    """

    def __init__(
        self,
        body: Body,
        unknowns: Unknowns,
        stiffness: ReducedStiffness,
        affine: Array,
        volume: float,
        options: SolverOptions,
    ):
        self.body, self.unknowns, self.stiffness = body, unknowns, stiffness
        self.affine, self.volume = affine, volume
        self.tolerance, self.iterations = options.tolerance, options.max_iterations
        self.checked = options.buckling != "unchecked" and body.measure.finite and body.symmetric
        self._undeformed = body.memory

    def solve(self, points: list[Point]) -> None:
        """Solve for all points side by side, each at its own strain; those without convergence are `stalled`."""
        for point in points:
            self.begin(point)
        for _ in range(self.iterations):
            going = [p for p in points if not (p.converged or p.stalled)]
            if not going:
                break
            forcing = [max(_FORCING * min(p.relative_residual, 1.0) ** 0.5, _FINEST_FORCING) for p in going]
            steps = self._solve(going, np.stack([p.residual for p in going])[:, None], forcing)
            for k, point in enumerate(going):
                if not point.stalled:
                    point.iterations += 1
                    self._visit(point, steps[k, 0])
        for point in points:
            self._end(point)
        equal = [p for p in points if p.converged]
        if self.checked:
            for point in equal:
                self._check(point)
        elif equal:
            x = self._solve(equal, np.stack([p.coupling for p in equal]), _TANGENT_RTOL[self.body.symmetric])
            for k, point in enumerate(equal):
                self._tangent(point, x[k])

    def solve_alone(self, point: Point) -> None:
        """Solve for one point, with factors of its own stiffness; without convergence it is `stalled`."""
        self.begin(point)
        for _ in range(self.iterations):
            if point.converged or point.stalled:
                break
            step = self._solve_alone(point, point.residual[None])[0]
            if not point.stalled:
                point.iterations += 1
                self._visit(point, step)
        self._end(point)
        if point.converged:
            point.slope = self._solve_alone(point, point.coupling)
            self._tangent(point, point.slope)
            point.unstable = not point.stalled and self._is_saddle(point)

    def _check(self, point: Point) -> None:
        """Tangent of a converged point with the factor of its own matrix, which shows whether it is a minimum.

        Newton's method tells nothing of that: the residual of a symmetric RVE has no part in the mode that breaks the
        symmetry.
        """
        point.work += FACTORISATION + len(point.coupling)
        if self.stiffness.definite(point.values):
            self._tangent(point, self.stiffness.apply_definite(point.coupling))
        else:
            self._tangent(point, self._solve_alone(point, point.coupling))
            point.unstable = not point.stalled and self._is_saddle(point)

    def _is_saddle(self, point: Point) -> bool:
        """Whether a point just solved by itself is no minimum of the energy; False without symmetry."""
        if not self.body.symmetric:
            return False
        count = self.stiffness.negative_eigenvalues()
        if count is not None:
            return count > 0
        definite = self.stiffness.definite(point.values)
        if definite is not None:
            return not definite
        return weakest(self.stiffness, point.values, self.metric).stiffness < 0

    @cached_property
    def metric(self) -> Array:
        """Values of the reduced stiffness at zero strain."""
        body = self.body
        u, memory = body.u.x.array.copy(), body.memory
        body.u.x.array[:], body.memory = 0.0, self._undeformed
        body.forces()  # with the local unknowns
        values = self.stiffness.reduce(body.stiffness())
        body.u.x.array[:], body.memory = u, memory
        return values

    def begin(self, point: Point) -> None:
        """Linearise the point at its fluctuation."""
        point.history, point.stalled, point.converged, point.unstable = [], "", False, False
        self._visit(point, np.zeros_like(point.w))

    def _end(self, point: Point) -> None:
        if not (point.converged or point.stalled):
            point.stall(f"no convergence in {self.iterations} iterations")

    def _solve(self, points: list[Point], rhs: Array, rtol: npt.ArrayLike) -> Array:
        """Solutions (m, k, unknowns) with the stiffness of each of m points; those without one are stalled."""
        try:
            found = self.stiffness.solve([p.values for p in points], rhs, rtol)
        except NoFactor as error:
            for p in points:
                p.stall(f"{error}, of this point or of a neighbour")
            return rhs
        for p, n, good in zip(points, found.applications, found.solved, strict=True):
            p.work += n
            if not good:
                p.stall("the stiffness is singular or not positive definite, or far from that of the neighbours")
        return found.x

    def _solve_alone(self, point: Point, rhs: Array) -> Array:
        """Solutions (k, unknowns) with the stiffness of one point; if there are none, it is stalled."""
        point.work += FACTORISATION + len(rhs)
        try:
            return self.stiffness.solve_alone(point.values, rhs)
        except NoFactor as error:
            point.stall(f"{error}: a part of the mesh is unsupported, or a material has lost its stiffness")
            return rhs

    def _visit(self, point: Point, step: Array) -> None:
        """Line search along −`step`, then linearise."""
        point.work += _VISIT
        try:
            self.body.memory = point.memory
            forces = self._line_search(point, step)
            if not np.isfinite(point.history[-1]):
                return point.stall("the material returned a stress that is not finite" + self._cause())
            point.scale = float(np.linalg.norm(forces))
            full = self.body.stiffness()
            point.values = self.stiffness.reduce(full)
            if not np.isfinite(point.values).all():
                return point.stall("the material returned a tangent that is not finite" + self._cause())
            point.memory = self.body.memory
            point.converged = point.history[-1] <= self.tolerance * point.scale or self._only_rounding(point, full)
            if point.converged:
                self._average(point, forces, full)
            elif len(point.history) > _SLOW and point.history[-1] > _STAGNATION * point.history[-1 - _SLOW]:
                point.stall(f"the residual has not been halved in {_SLOW} iterations")
        except LocalError as error:
            point.stall(str(error))

    def _line_search(self, point: Point, step: Array) -> Array:
        """Take the first of ever shorter steps with sufficient decrease, or the last; return the forces (dofs,)."""
        length, size = 1.0, point.history[-1] if point.history else np.inf
        for _ in range(_STEP_LENGTHS):
            w = point.w - length * step
            self.body.u.x.array[:] = self.affine @ point.strain + self.unknowns.expand(w)
            forces = self.body.forces()
            r = self.unknowns.gather(forces)
            g = self.unknowns.constraint
            if g is not None:  # the side condition's reactions are no residual
                r -= g.T @ np.linalg.lstsq(g.T, r, rcond=None)[0]
            norm = np.inf if self.body.inverted else float(np.linalg.norm(r))
            if norm <= (1 - _DECREASE * length) * size:
                break
            length /= 2
        point.w, point.residual = w, r
        point.history.append(norm)
        return forces

    def _only_rounding(self, point: Point, full: scipy.sparse.bsr_matrix) -> bool:
        """Whether the residual stagnates at the size of rounding, see the head of this module."""
        if len(point.history) < 3 or point.history[-1] <= _STAGNATION * point.history[-3]:
            return False
        rounding = np.finfo(np.float64).eps * float(np.linalg.norm(self._terms(full)))
        return bool(point.history[-1] <= rounding)

    def _terms(self, full: scipy.sparse.bsr_matrix) -> Array:
        """Σⱼ |Kᵢⱼ| (dᵢⱼ + |uⱼ|) for each degree of freedom (dofs,), see the head of this module."""
        x: Array = self.body.V.tabulate_dof_coordinates()
        size = np.linalg.norm(self.body.u.x.array.reshape(len(x), -1), axis=1)
        rows = np.repeat(np.arange(len(x)), np.diff(full.indptr))
        reach = np.linalg.norm(x[rows] - x[full.indices], axis=1) + size[full.indices]
        blocks = abs(full.data).sum(axis=2) * reach[:, None]
        sums = [np.bincount(rows, column, minlength=len(x)).astype(np.float64, copy=False) for column in blocks.T]
        return np.stack(sums, axis=1).ravel()

    def _cause(self) -> str:
        """The likely cause of a stress or tangent that is not finite."""
        return why_not_finite(self.body.strain().reshape(-1, self.affine.shape[1]), self.body.measure)

    # Results of a converged iterate.

    def _average(self, point: Point, forces: Array, full: scipy.sparse.bsr_matrix) -> None:
        """Stress, energy and updated memory of the present solution, and the terms of the tangent."""
        point.stress = self.affine.T @ forces
        point.stress /= self.volume
        point.energy = self.body.energy() / self.volume
        point.updated = self.body.updated_memory()
        column = full @ self.affine
        point.affine = self.affine.T @ column
        point.coupling = self.unknowns.gather(column).T
        point.coupled = point.coupling if self.body.symmetric else self.unknowns.gather(full.T @ self.affine).T

    def _tangent(self, point: Point, columns: Array) -> None:
        """Tangent of a converged point: C V = AᵀKA − (TᵀKᵀA)ᵀ X − Xᵀ (TᵀKA − TᵀKT X), see `fe2.rve`.

        Args:
            columns: (d, unknowns), those of X.
        """
        residual = point.coupling - self.stiffness.multiply(point.values, columns)
        tangent: Array = point.affine - point.coupled @ columns.T - columns @ residual.T
        if self.body.symmetric:
            tangent += tangent.T.copy()  # equal up to rounding
            tangent /= 2
        tangent /= self.volume
        point.tangent = tangent
