# SPDX-License-Identifier: MIT
"""Newton's method for the displacement of a structure, by PETSc SNES."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem, la
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fe2 import mandel
from fe2.quadrature import QuadratureLaw
from fe2.ranks import together
from fe2.stopping import Heard, Stopped

_ADD = la.InsertMode.add


class StepFailed(RuntimeError):
    """A load step that failed also at the smallest size."""


class Newton:
    """The equilibrium of the stress of a law with loads, at prescribed displacements.

    Args:
        sigma: stress and tangent at the displacement `u`. loads: linear forms of `v`, a test function of its space.
        bcs: with the constant that each prescribes. prefix: of the PETSc options.

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
        internal = ufl.inner(sigma.stress, mandel.strain(v)) * sigma.dx
        self._internal = fem.form(internal)
        self._residual = fem.form(internal - sum(loads)) if loads else self._internal
        self._jacobian = fem.form(sigma.derivative(internal, ufl.TrialFunction(V)))
        self._b = fem.Function(V).x
        self._owned = V.dofmap.index_map.size_local * V.dofmap.index_map_bs
        self._A = fem_petsc.create_matrix(self._jacobian)
        self._rigid = _rigid_motions(self._A, V)
        self._A.setNearNullSpace(self._rigid)
        self._x, self._f = self._A.createVecs()
        self._snes = snes = PETSc.SNES().create(self._comm)
        snes.setOptionsPrefix(prefix)
        snes.setFunction(self._evaluate, self._f)
        snes.setJacobian(self._linearise, self._A)
        snes.setTolerances(rtol=1e-10, atol=1e-12, stol=0.0, max_it=20)
        defaults = PETSc.Options(prefix)
        if not defaults.hasName("snes_linesearch_type"):
            # Takes the full step, at the cost of no further evaluation, unless the residual grows: Newton's method
            # on a plastic structure that is unloaded may otherwise go in circles.
            defaults["snes_linesearch_type"] = "bt"
        ksp = snes.getKSP()
        ksp.setType("preonly")
        ksp.getPC().setType("lu" if self._comm.size == 1 else "redundant")
        snes.setFromOptions()
        self._error: BaseException | None = None
        self._heard = Heard()
        self.seconds = {"law": 0.0, "assembly": 0.0}

    def solve(self, show: Callable[[int, float], None], heard: Heard) -> list[float]:
        """Solve from the present displacement; returns the norm of the residual at each iterate.

        Args:
            show: takes the iteration and this norm. heard: what tells of signals, asked before each evaluation.

        Raises:
            StepFailed: no convergence. Stopped: a signal was heard on any rank. What the law raises.
        """
        self._x.array[:] = self._u.x.array[: self._owned]
        residuals: list[float] = []

        def monitor(snes, iteration, norm):
            residuals.append(float(norm))
            show(iteration, norm)

        self._snes.cancelMonitor()
        self._snes.setMonitor(monitor)
        self._error, self._heard = None, heard
        self.seconds = {"law": 0.0, "assembly": 0.0}
        self._snes.solve(None, self._x)
        if isinstance(self._error, Stopped):  # which is there on all ranks
            raise self._error
        with together(self._comm):
            if self._error is not None:
                raise self._error
        if self._snes.getConvergedReason() <= 0:
            shown = ", ".join(f"{r:.2e}" for r in residuals)
            raise StepFailed(f"SNES stopped with reason {self._snes.getConvergedReason()} (residuals {shown})")
        return residuals

    def internal_forces(self) -> npt.NDArray[np.float64]:
        """The internal forces (dofs and ghosts of this rank) at the last evaluation."""
        b = self._assemble(self._internal)
        self._b.scatter_reverse(_ADD)
        return b

    def _assemble(self, form: fem.Form) -> npt.NDArray[np.float64]:
        self._b.array[:] = 0.0
        fem.assemble_vector(self._b.array, form)
        return self._b.array

    def _evaluate(self, snes, x, f) -> None:
        """Residual at x; prescribed displacements not yet reached are brought in through the tangent."""
        self._u.x.array[: self._owned] = x.array_r
        self._u.x.scatter_forward()
        start = time.perf_counter()
        try:
            self._heard.obey(self._comm)
            self._sigma.update()
        except (Exception, Stopped) as error:
            # An exception must not cross PETSc, which would be left in mid-solve: SNES stops at NaN instead.
            self._error = error
            f.array[:] = np.nan
            return
        middle = time.perf_counter()
        self.seconds["law"] += middle - start
        b = self._assemble(self._residual)
        fem.apply_lifting(b, [self._jacobian], [self._bcs], [self._u.x.array], -1.0)
        self._b.scatter_reverse(_ADD)
        for bc, constant in self._prescribed:
            dofs = bc.dof_indices()[0]
            b[dofs] = self._u.x.array[dofs] - constant.value
        f.array[:] = b[: self._owned]
        self.seconds["assembly"] += time.perf_counter() - middle

    def _linearise(self, snes, x, A, P) -> None:
        start = time.perf_counter()
        P.zeroEntries()
        fem_petsc.assemble_matrix(P, self._jacobian, self._bcs)
        P.assemble()
        self.seconds["assembly"] += time.perf_counter() - start

    def destroy(self) -> None:
        """Free the PETSc objects."""
        objects: tuple[Any, ...] = (self._snes, self._A, self._rigid, self._x, self._f)
        for o in objects:
            o.destroy()


def _rigid_motions(A: PETSc.Mat, V: fem.FunctionSpace) -> PETSc.NullSpace:
    """Translations and small rotations, which algebraic multigrid has to know of (collective)."""
    places = A.createVecRight()
    places.array[:] = V.tabulate_dof_coordinates()[: V.dofmap.index_map.size_local, : V.mesh.geometry.dim].ravel()
    motions = PETSc.NullSpace().createRigidBody(places)
    places.destroy()
    return motions
