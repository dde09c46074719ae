# SPDX-License-Identifier: MIT
"""Newton's method for the fluctuations of many points of an RVE, side by side.

Each iteration linearises the points one after the other and then solves for all their steps at once, where
`ReducedStiffness` is fastest. A point without convergence is stalled, with the reason, and solved by itself: its own
stiffness is then factorised in each step, also if it is indefinite, as in softening materials. Newton's step
reduces the residual in this case, too, but the equilibrium need not be stable.

The residual r is small enough when ‖r‖ ≤ tolerance · ‖R‖, R the internal forces. One that has stagnated below the
rounding of the forces (`fe2.rounding`) is taken as equilibrium, too, and is part of the result.

Where stresses are prescribed, the free strains e are unknowns of the same iteration (`fe2.control`, `fe2.rve`): with
L = TᵀKA, L' = AᵀKT and the gap V (F S − s) of the stress, Newton's step is that of

    [ K     L Fᵀ        ] [dw]     [ r           ]
    [ F L'  F AᵀKA Fᵀ   ] [de] = − [ V (F S − s) ]

by its Schur complement, F C Fᵀ of the tangent C. Errors in K⁻¹ L Fᵀ enter this squared, as they do in C. Then
‖F S − s‖ ≤ tolerance · max(‖S‖, ‖s‖) must hold, too; ‖R‖ and ‖S‖ are those where the step begins if they are larger,
since after unloading there are none. A step that goes too far is shortened, see `fe2.step_length`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from fe2.body import Body, LocalError
from fe2.boundary import Unknowns
from fe2.condensed import FACTORISATION, ReducedStiffness
from fe2.control import NoStiffness, check_stiffness, solve_free
from fe2.factor import NoFactor
from fe2.held_pressures import HeldPressures
from fe2.materials import why_not_finite
from fe2.micro_iterate import Point
from fe2.minimum import weakest
from fe2.rounding import norm as _norm
from fe2.rounding import terms_of_forces
from fe2.solver_options import SolverOptions
from fe2.step_length import take_step

Array = npt.NDArray[np.float64]

# Work at one iterate (forces and stiffness) in units of one application of the factor beside others.
_VISIT = 4

# The residual must be halved within _SLOW iterations; one not halved within two is compared with rounding.
_STAGNATION, _SLOW = 0.5, 8

# Tolerance of a linear solve: √(‖r‖/‖R‖) times the first number, within these two. Newton's method then converges
# superlinearly (Eisenstat & Walker, SIAM J. Sci. Comput. 17, 1996, 16–32) at the least cost of the linear solver.
_FORCING, _FINEST_FORCING = 1e-2, 1e-5

# Where strains are free, the solutions for them must be better, as a composite of high contrast is far softer than its
# AᵀKA: by the first factor with symmetry, where errors enter squared, else by the second.
_FREE_FORCING = {True: 0.1, False: 1e-4}

# Tolerance of X in the tangent: its error enters squared with symmetry, and linearly without.
_TANGENT_RTOL = {True: 1e-6, False: 1e-12}

# Sufficient decrease (Armijo's condition, Nocedal & Wright, Numerical Optimization, 2006, ch. 3), and the step lengths
# 1, 1/2, ... tried for it; where shorter ones would be needed, sub-steps of the strain converge sooner.
_DECREASE, _STEP_LENGTHS = 1e-4, 6


class MicroNewton:
    """Newton's method for points of one RVE.

    Args:
        body: of the RVE.
        unknowns: of its boundary condition.
        stiffness: solves with the stiffness of the unknowns.
        affine: (dofs, d) displacements of the unit strains.
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
        # Of a gap of the stress beside the residual in the line search: a force whose stress is not larger.
        self._weight = volume / _norm(affine)
        self._held = HeldPressures.of(body, unknowns, affine)
        # A residual of volumes is far above that of shapes, which must be solved for, too.
        self._forcing = _FORCING if self._held is None else _FINEST_FORCING

    def solve(self, points: list[Point]) -> None:
        """Solve for all points side by side, each at its own strain; those without convergence are `stalled`."""
        for point in points:
            self.begin(point)
        for _ in range(self.iterations):
            going = [p for p in points if not (p.converged or p.stalled)]
            if not going:
                break
            forcing = [
                max(self._forcing * min(p.relative_residual, 1.0) ** 0.5, _FINEST_FORCING)
                * (_FREE_FORCING[self.body.symmetric] if len(p.free) else 1.0)
                for p in going
            ]
            rhs = np.zeros((len(going), 1 + max(len(p.free) for p in going), self.unknowns.size))
            for k, point in enumerate(going):
                rhs[k, : 1 + len(point.free)] = self._right(point)
            found = self._solve(going, rhs, forcing)
            for k, point in enumerate(going):
                self._advance(point, found[k, : 1 + len(point.free)])
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
            self._advance(point, self._solve_alone(point, self._right(point)))
        self._end(point)
        if point.converged:
            point.slope = self._solve_alone(point, point.coupling)
            self._tangent(point, point.slope)
            point.unstable |= not point.stalled and self._is_saddle(point)

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
            point.unstable |= not point.stalled and self._is_saddle(point)

    def _is_saddle(self, point: Point) -> bool:
        """Whether a point just solved by itself is no minimum of the energy at its strain; False without symmetry."""
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
        """Linearise the point as it is."""
        point.history, point.stalled, point.converged, point.unstable = [], "", False, False
        if len(point.free):
            forces = self._forces(point, point.before)
            sizes = _norm(forces), _norm(self._stress(forces))
            point.least = sizes if np.isfinite(sizes).all() else (0.0, 0.0)
        self._visit(point, np.zeros_like(point.w), np.zeros_like(point.strain))

    def stress(self, point: Point) -> Array:
        """The stress (d,) of a point as it is, NaN where the materials have none."""
        return self._stress(self._forces(point, point.strain))

    def _forces(self, point: Point, strain: Array) -> Array:
        """Forces (dofs,) at another strain, NaN where the materials have none."""
        self.body.memory = point.memory
        self.body.u.x.array[:] = self.affine @ strain + self.unknowns.expand(point.w)
        try:
            return self.body.forces()
        except LocalError:
            return np.full(len(self.affine), np.nan)

    def _stress(self, forces: Array) -> Array:
        return np.asarray(self.affine.T @ forces / self.volume)

    def _right(self, point: Point) -> Array:
        """Right-hand sides (1 + f, unknowns) of Newton's step: the residual, and L Fᵀ for free strains."""
        r = point.residual[None]
        return np.concatenate([r, point.free @ point.coupling]) if len(point.free) else r

    def _advance(self, point: Point, found: Array) -> None:
        """Newton's step with the solutions (1 + f, unknowns) for `_right`, see the head of this module."""
        if point.stalled:
            return
        step, strain_step = found[0], np.zeros_like(point.strain)
        if len(point.free):
            free, x = point.free, found[1:]
            rest = self._right(point) - self.stiffness.multiply(point.values, found)
            change = (free @ point.coupled) @ found.T + x @ rest.T  # (f, 1 + f)
            try:
                block, gap = free @ point.affine @ free.T - change[:, 1:], self.volume * point.gap - change[:, 0]
                e = solve_free(block, gap, point.affine)
            except NoStiffness as error:
                return point.stall(str(error), hopeless=not point.iterations)
            step, strain_step = found[0] - e @ x, e @ free
        point.iterations += 1
        self._visit(point, step, strain_step)

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

    def _visit(self, point: Point, step: Array, strain_step: Array) -> None:
        """Line search along −`step`, and −`strain_step` of the strain, then linearise."""
        point.work += _VISIT
        try:
            self.body.memory = point.memory
            forces = self._line_search(point, step, strain_step)
            if not np.isfinite(point.history[-1]):
                return point.stall("the material returned a stress that is not finite" + self._cause())
            self._set_scales(point, forces)
            full = self.body.stiffness(point.held)
            point.values = self.stiffness.reduce(full)
            if not np.isfinite(point.values).all():
                return point.stall("the material returned a tangent that is not finite" + self._cause())
            point.memory = self.body.memory
            if len(point.free):
                self._couple(point, full)
            point.converged = self._is_solved(point, full)
            if point.converged and self._held is not None:
                full = self._held.release(point)
                point.values = self.stiffness.reduce(full)
            if point.converged:
                self._average(point, forces, full)
            elif len(point.history) > _SLOW and point.history[-1] > _STAGNATION * point.history[-1 - _SLOW]:
                point.stall(f"the residual has not been halved in {_SLOW} iterations")
        except LocalError as error:
            point.stall(str(error))

    def _line_search(self, point: Point, step: Array, strain_step: Array) -> Array:
        """Take the first of ever shorter steps with sufficient decrease, or the last; return the forces (dofs,)."""
        length, size = 1.0, point.history[-1] if point.history else np.inf
        w, strain, norm = point.w, point.strain, np.inf
        forces: Array = np.empty(0)
        failed: list[LocalError] = []
        hold = None if self._held is None else self._held.along(point, step, strain_step)

        def slope() -> float:
            if not len(point.free):
                return 0.0
            return float(step @ point.residual + self.volume * (strain_step @ (point.gap @ point.free)))

        def trial(length: float) -> tuple[float, float]:
            nonlocal forces, norm
            failed.clear()
            point.w, point.strain = w - length * step, strain - length * strain_step
            self.body.u.x.array[:] = self.affine @ point.strain + self.unknowns.expand(point.w)
            reduced = None
            try:
                if hold is not None:
                    point.held = hold(length)
                    reduced = self._measure(point, self.body.forces(point.held)), slope()
                forces = self.body.forces()
            except LocalError as error:
                if not step.any():
                    raise
                failed.append(error)  # a shorter step may succeed
                self.body.memory, norm = point.memory, np.inf
                return norm, 0.0
            norm = self._measure(point, forces)
            if self.body.inverted:
                norm = np.inf
            return (norm, slope()) if reduced is None or not np.isfinite(norm) else reduced

        if len(point.free) and point.history:
            take_step(trial, size, slope())
        else:
            for _ in range(_STEP_LENGTHS):
                if trial(length)[0] <= (1 - _DECREASE * length) * size:
                    break
                length /= 2
        if failed:
            raise failed[0]
        point.history.append(norm)
        return forces

    def _measure(self, point: Point, forces: Array) -> float:
        """Set the residual, and the gap of the stress, for the forces (dofs,); return the norm of both."""
        r = self.unknowns.gather(forces)
        g = self.unknowns.constraint
        if g is not None:  # the side condition's reactions are no residual
            r -= g.T @ np.linalg.lstsq(g.T, r, rcond=None)[0]
        point.residual = r
        if not len(point.free):
            return _norm(r)
        point.gap = point.free @ self._stress(forces) - point.target
        return float(np.hypot(_norm(r), self._weight * _norm(point.gap)))

    def _set_scales(self, point: Point, forces: Array) -> None:
        """Set what residual and gap are compared with: forces (dofs,) and their stress."""
        point.scale = _norm(forces)
        if len(point.free):
            point.scale = max(point.scale, point.least[0])
            point.stress_scale = max(_norm(self._stress(forces)), point.least[1], _norm(point.target))

    def _is_solved(self, point: Point, full: scipy.sparse.bsr_matrix) -> bool:
        """Whether residual and gap are small, or stagnate at the size of rounding, see the head of this module."""
        residual, gap = _norm(point.residual), _norm(point.gap)
        enough, enough_gap = self.tolerance * point.scale, self.tolerance * point.stress_scale
        if residual <= enough and gap <= enough_gap:
            return True
        if len(point.history) < 3 or point.history[-1] <= _STAGNATION * point.history[-3]:
            return False
        terms = terms_of_forces(self.body, full, self.affine @ point.strain)
        epsilon = np.finfo(np.float64).eps
        if gap > enough_gap and gap > epsilon * _norm(abs(self.affine).T @ terms) / self.volume:
            return False
        return residual <= enough or bool(residual <= epsilon * _norm(terms))

    def _cause(self) -> str:
        """The likely cause of a stress or tangent that is not finite."""
        return why_not_finite(self.body.strain().reshape(-1, self.affine.shape[1]), self.body.measure)

    def _average(self, point: Point, forces: Array, full: scipy.sparse.bsr_matrix) -> None:
        """Stress, energy and updated memory of the present solution, and the terms of the tangent."""
        point.stress = self._stress(forces)
        point.energy = self.body.finite_energy() / self.volume
        point.updated = self.body.updated_memory()
        if not len(point.free) or self._held is not None:
            self._couple(point, full)

    def _couple(self, point: Point, full: scipy.sparse.bsr_matrix) -> None:
        """The terms of the tangent, and of free strains: TᵀKA, TᵀKᵀA and AᵀKA."""
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
        if len(point.free):
            block = point.free @ tangent @ point.free.T
            try:
                check_stiffness(block, tangent)
            except NoStiffness as error:
                return point.stall(str(error))
            point.unstable |= self.body.symmetric and bool(np.linalg.eigvalsh(block)[0] < 0)
