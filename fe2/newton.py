# SPDX-License-Identifier: MIT
"""Newton's method for the displacement of a structure, by PETSc SNES.

A step has converged when the residual is small relative to the forces, ‖r‖ ≤ rtol ‖R‖, in any units, and the
prescribed displacements are reached. R are the external forces or the internal ones, now or at the beginning of the
step, whichever are largest. PETSc solves with r/k and K/k, k a typical stiffness of the structure's cells, since its
test for a zero pivot is absolute; where a displacement is prescribed, r/k is its remaining part.

A law whose stresses have few digits leaves a residual that stagnates. This is convergence, too, once the residual is as
small as the rounding of a stress as large as the tangent: ‖r‖ ≤ ‖ε |C| hᵈ⁻¹ (1 + |u|/h)‖ over the cells, h their size.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import ufl
from mpi4py import MPI
from dolfinx import fem, la
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fe2.callbacks import Callbacks
from fe2.petsc_options import default_options
from fe2.quadrature import QuadratureLaw
from fe2.ranks import raise_on_all_ranks
from fe2.signals import SignalListener, Stopped
from fe2.time_step import TimeStep

_ADD = la.InsertMode.add
_REASON = PETSc.SNES.ConvergedReason
# Residual over forces at which Newton's method stops: above rounding (1e-16 times the condition number), and far below
# any error of discretisation. A step that takes more iterations than this with a consistent tangent is cut.
_RTOL, _ITERATIONS = 1e-10, 20
# The full step, at the cost of no further evaluation, unless the residual grows: Newton's method on a plastic structure
# that is unloaded may otherwise cycle. Below a thousandth of the step a smaller load step is more promising, as each
# trial costs an evaluation of the law.
_LINE_SEARCH: dict[str, str | float] = {"snes_linesearch_type": "bt", "snes_linesearch_minlambda": 1e-3}
# At finite strain the full step: a slender structure that turns in a straight line is stretched, which raises the
# residual before the next iteration relaxes it. A strip bent by a right angle takes 7 iterations a step, and with a
# search twenty in each of some fifty smaller steps.
_FULL_STEP: dict[str, str | float] = {"snes_linesearch_type": "basic"}
# Two iterations that reduce the residual by less than this have reached the rounding of the law, or make no progress.
_STAGNATION = 0.5
_NOT_FINITE = -4  # SNES_DIVERGED_FNORM_NAN, which has another name since PETSc 3.24


def _show_nothing(iteration: int, norm: float) -> None:
    pass


class StepFailed(RuntimeError):
    """A load step that failed also at the smallest size."""


class Newton:
    """Newton's method for the equilibrium of the stress of a law with loads, at prescribed displacements.

    Args:
        sigma: stress and tangent at the displacement `u`.
        u: displacement.
        v: a test function of its space.
        loads: linear forms of `v` that do not depend on the displacement.
        bcs: boundary conditions, each with the constant that it prescribes.
        prefix: of the PETSc options.

    Attributes:
        seconds: spent in the law and in assembly in the last `solve`.
    """

    def __init__(
        self,
        sigma: QuadratureLaw,
        u: fem.Function,
        v: ufl.Argument,
        loads: Sequence[ufl.Form],
        bcs: Sequence[tuple[fem.DirichletBC, fem.Constant]],
        prefix: str,
    ):
        self._sigma, self._u, self._prescribed = sigma, u, list(bcs)
        self._bcs, self._comm = [bc for bc, _ in bcs], u.function_space.mesh.comm
        V = u.function_space
        internal = ufl.inner(sigma.stress, sigma.measure.of(v)) * sigma.dx
        self._internal = fem.form(internal)
        self._external = fem.form(sum(loads)) if loads else None
        self._jacobian = fem.form(sigma.derivative(internal, ufl.TrialFunction(V)))
        self._b, self._dead = fem.Function(V).x, fem.Function(V).x
        self._owned = V.dofmap.index_map.size_local * V.dofmap.index_map_bs
        self._A = fem_petsc.create_matrix(self._jacobian)
        self._rigid = _rigid_motions(self._A, V)
        self._A.setNearNullSpace(self._rigid)
        self._x, self._f = self._A.createVecs()
        self._snes = snes = PETSc.SNES().create(self._comm)
        snes.setOptionsPrefix(prefix)
        self._calls = Callbacks(self._abandon)
        snes.setFunction(self._calls.guard(self._evaluate), self._f)
        snes.setJacobian(self._calls.guard(self._linearise), self._A)
        snes.setConvergenceTest(self._calls.guard(self._judge))
        snes.setConvergenceHistory(reset=True)
        snes.setTolerances(rtol=_RTOL, atol=0.0, stol=0.0, max_it=_ITERATIONS)
        ksp = snes.getKSP()
        ksp.setType("preonly")
        ksp.getPC().setType("lu" if self._comm.size == 1 else "redundant")
        with default_options(prefix, _FULL_STEP if sigma.measure.finite else _LINE_SEARCH):
            snes.setFromOptions()
        snes.cancelMonitor()
        snes.setMonitor(self._calls.guard(self._monitor))
        self._show: Callable[[int, float], None] = _show_nothing
        self._dim, (self._d,) = V.mesh.geometry.dim, sigma.strain.ufl_shape
        self._h = V.mesh.h(V.mesh.topology.dim, sigma.cells)
        self._listener = SignalListener()
        self.seconds = {"law": 0.0, "assembly": 0.0}

    def solve(
        self, show: Callable[[int, float], None], listener: SignalListener, step: TimeStep | None = None
    ) -> list[float]:
        """Solve from the present displacement; returns the norm of the residual at each iterate.

        Args:
            show: called with the iteration and this norm.
            listener: its signals are checked before each evaluation.
            step: in time, for laws that depend on it.

        Raises:
            StepFailed: no convergence.
            Stopped: a signal has reached any rank.
            KeyboardInterrupt: on the rank that was interrupted.
            Exception: any error of the law.
        """
        self._x.array[:] = self._u.x.array[: self._owned]

        self._show = show
        self._listener, self._first, self._step = listener, True, step
        self.seconds = {"law": 0.0, "assembly": 0.0}
        self._dead.array[:] = 0.0
        if self._external is not None:
            fem.assemble_vector(self._dead.array, self._external)
            self._dead.scatter_reverse(_ADD)
        try:
            self._run(lambda: self._snes.solve(None, self._x))
        finally:
            self._show = _show_nothing
        if (reason := self._snes.getConvergedReason()) <= 0:
            if not self._only_rounding():
                shown = ", ".join(f"{r:.2e}" for r in self._residuals())
                raise StepFailed(f"SNES stopped with reason {reason} (residuals {shown})")
            # The line search evaluated the law last at its last trial, which may be another iterate.
            self._run(lambda: self._snes.computeFunction(self._x, self._f))
        return self._residuals()

    def _residuals(self) -> list[float]:
        return (self._stiffness * self._snes.getConvergenceHistory()[0]).tolist()

    def _run(self, solve: Callable[[], None]) -> None:
        self._calls.run(solve)
        if isinstance(self._calls.error, (Stopped, KeyboardInterrupt)):  # Stopped is raised on all ranks
            raise self._calls.error
        with raise_on_all_ranks(self._comm):
            if self._calls.error is not None:
                raise self._calls.error

    def internal_forces(self) -> npt.NDArray[np.float64]:
        """The internal forces (dofs and ghosts of this rank) at the last evaluation."""
        self._b.array[:] = 0.0
        fem.assemble_vector(self._b.array, self._internal)
        self._b.scatter_reverse(_ADD)
        return self._b.array

    # Callbacks of PETSc.

    def _monitor(self, snes, iteration: int, norm: float) -> None:
        self._show(iteration, norm)

    def _evaluate(self, snes, x, f) -> None:
        """Residual at x; the remaining part of prescribed displacements enters through the tangent."""
        self._u.x.array[: self._owned] = x.array_r
        self._u.x.scatter_forward()
        start = time.perf_counter()
        self._listener.raise_if_signalled(self._comm)
        self._sigma.update(self._step)
        middle = time.perf_counter()
        self.seconds["law"] += middle - start
        forces = self.internal_forces()[: self._owned].copy()
        external = self._dead.array[: self._owned]
        if self._first:
            self._first, self._stiffness = False, self._typical_stiffness()
            self._before = max(self._norm(forces), self._norm(external))
        lifting = self._b.array
        lifting[:] = 0.0
        fem.apply_lifting(lifting, [self._jacobian], [self._bcs], [self._u.x.array], -1.0)
        self._b.scatter_reverse(_ADD)
        f.array[:] = (forces - external + lifting[: self._owned]) / self._stiffness
        gap = 0.0
        for bc, constant in self._prescribed:
            dofs = bc.dof_indices()[0]
            dofs = dofs[dofs < self._owned]
            remaining = self._u.x.array[dofs] - constant.value
            f.array[dofs] = remaining
            gap = max(gap, abs(remaining).max(initial=0.0))
        reached = np.array([gap, abs(x.array_r).max(initial=0.0)])
        self._comm.Allreduce(MPI.IN_PLACE, reached, MPI.MAX)
        self._gap, self._size = reached
        self._scale = max(self._norm(forces), self._before)
        self.seconds["assembly"] += time.perf_counter() - middle

    def _linearise(self, snes, x, A, P) -> None:
        start = time.perf_counter()
        P.zeroEntries()
        fem_petsc.assemble_matrix(P, self._jacobian, self._bcs, self._stiffness)
        P.assemble()
        P.scale(1 / self._stiffness)
        self.seconds["assembly"] += time.perf_counter() - start

    def _judge(self, snes, iteration: int, norms: tuple[float, float, float]) -> int:
        """Whether the iterate is converged, as a `PETSc.SNES.ConvergedReason`."""
        size, step, _ = norms
        residuals = self._residuals()
        residual = residuals[-1]
        rtol, atol, stol, _ = snes.getTolerances()
        if not np.isfinite(residual):
            return _NOT_FINITE
        if self._gap <= rtol * self._size and residual <= rtol * self._scale:
            return _REASON.CONVERGED_FNORM_RELATIVE
        if residual <= atol:
            return _REASON.CONVERGED_FNORM_ABS
        if iteration > 0 and step < stol * size:
            return _REASON.CONVERGED_SNORM_RELATIVE
        if iteration > 1 and residual > _STAGNATION * residuals[-3] and self._only_rounding():
            return _REASON.CONVERGED_FNORM_RELATIVE
        largest = snes.getDivergenceTolerance()
        return _REASON.DIVERGED_DTOL if largest > 0 and residual > largest * residuals[0] else _REASON.ITERATING

    def _abandon(self, snes, *arguments) -> int:
        """Results of a callback after an error, with which SNES stops."""
        if len(arguments) == 2 and isinstance(arguments[1], PETSc.Vec):
            arguments[1].array[:] = np.nan
        elif len(arguments) == 3:
            P = arguments[2]
            P.assemble()
            P.zeroEntries()
            P.shift(1.0)
        return _NOT_FINITE

    # Contributions of cells, before any cancellation.

    def _tangents(self) -> npt.NDArray[np.float64]:
        """Norm of the mean tangent |C| of each cell of this rank (cells,)."""
        points = len(self._sigma.cells) * len(self._sigma.points)
        tangents = self._sigma.tangent.x.array.reshape(-1, self._d**2)[:points]
        return np.linalg.norm(self._sigma.means(tangents), axis=1)

    def _norm(self, values: npt.NDArray[np.float64]) -> float:
        """Norm of numbers spread over the ranks (collective)."""
        return float(np.sqrt(self._comm.allreduce(float(values @ values))))

    def _typical_stiffness(self) -> float:
        """Root mean square of |C| hᵈ⁻² over all cells, a force per length (collective)."""
        count = self._comm.allreduce(self._h.size)
        return self._norm(self._tangents() * self._h ** (self._dim - 2)) / np.sqrt(count) or 1.0

    def _only_rounding(self) -> bool:
        """Whether the last residual is as small as rounding, see the head of this module (collective)."""
        terms = self._tangents() * self._h ** (self._dim - 1) * (1 + self._size / self._h)
        rounding = np.finfo(np.float64).eps * self._norm(terms)
        reached = self._gap <= self._snes.getTolerances()[0] * self._size
        return bool(reached and self._residuals()[-1] <= rounding)

    def destroy(self) -> None:
        """Free the PETSc objects."""
        for o in (self._snes, self._A, self._rigid, self._x, self._f):
            o.destroy()


def _rigid_motions(A: PETSc.Mat, V: fem.FunctionSpace) -> PETSc.NullSpace:
    """Translations and small rotations, or constants, the near-nullspace of algebraic multigrid (collective)."""
    if V.dofmap.index_map_bs == 1:
        return PETSc.NullSpace().create(constant=True, comm=A.comm)
    x = A.createVecRight()
    x.array[:] = V.tabulate_dof_coordinates()[: V.dofmap.index_map.size_local, : V.mesh.geometry.dim].ravel()
    motions = PETSc.NullSpace().createRigidBody(x)
    x.destroy()
    return motions
