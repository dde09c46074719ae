# SPDX-License-Identifier: MIT
"""The macroscale problem, for those who have no residual of their own: loads over pseudo-time, solved by PETSc SNES."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem, la
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

import meshes
from fe2 import checkpoint, mandel
from fe2.body import LocalError
from fe2.laws import Law
from fe2.quadrature import QuadratureLaw
from fe2.ranks import together
from fe2.rve import NotConverged

_ADD = la.InsertMode.add


@dataclass(frozen=True, slots=True)
class Step:
    """One accepted step.

    time: pseudo-time. factor: load factor. residuals: ‖residual‖ at each Newton iterate. displacement, force: watched
    boundary name → mean displacement, and resultant of the internal forces (dim,). cuts: times the step was halved.
    seconds: spent in the law, in assembly and in the linear solver.
    """

    time: float
    factor: float
    residuals: list[float]
    displacement: dict[str, list[float]]
    force: dict[str, list[float]]
    cuts: int
    seconds: dict[str, float] = field(default_factory=dict)


class StepFailed(RuntimeError):
    """A load step that failed also at the smallest size."""


class MacroProblem:
    """A structure whose stress at every quadrature point comes from a law.

    Args:
        domain: mesh and facet tags of the structure (`meshes.TaggedMesh`), spread over its communicator.
        law: the law of the whole structure.
        degree: of the displacement.
        options_prefix: of the PETSc options of SNES, KSP and PC.

    Attributes:
        u: displacement. sigma: the `QuadratureLaw` with stress and tangent. history: the accepted steps.

    Loads are multiplied by the load factor. Without options, linear systems are solved directly: MUMPS on one rank, and
    on several a redundant factorisation, whose result does not depend on the order in which messages arrive.
    """

    def __init__(self, domain: meshes.TaggedMesh, law: Law, *, degree: int = 1, options_prefix: str = "macro_"):
        self.domain, self.law, self.mesh = domain, law, domain.mesh
        self.comm = self.mesh.comm
        self.V = fem.functionspace(self.mesh, ("Lagrange", degree, (self.mesh.geometry.dim,)))
        self.u = fem.Function(self.V, name="displacement")
        self.sigma = QuadratureLaw(law, self.u)
        self.history: list[Step] = []
        self._prefix = options_prefix
        self._factor = fem.Constant(self.mesh, 0.0)
        self._bcs: list[fem.DirichletBC] = []
        self._prescribed: list[tuple[fem.Constant, float]] = []
        self._v = ufl.TestFunction(self.V)
        self._ds = ufl.Measure("ds", domain=self.mesh, subdomain_data=domain.facet_tags)
        self._loads: list = []
        self._watched: dict[str, tuple] = {}
        self._snes: Any = None  # a PETSc SNES once the problem is set up
        self._error: Exception | None = None

    # What is prescribed.

    def _facets(self, name: str) -> npt.NDArray[np.int32]:
        if name not in self.domain.facet_names:
            raise ValueError(f"no boundary is called {name!r}; there are {', '.join(sorted(self.domain.facet_names))}")
        return self.domain.facet_tags.find(self.domain.facet_names[name])

    def _nodes(self, name: str) -> npt.NDArray[np.int32]:
        return fem.locate_dofs_topological(self.V, self.mesh.topology.dim - 1, self._facets(name))

    def fix(self, boundary: str, values: Sequence[float | None]) -> None:
        """Prescribe the displacement of a named boundary at load factor 1; None leaves a component free.

        Raises:
            ValueError: unknown boundary, or not one value per component.
        """
        facets, dim = self._facets(boundary), self.mesh.geometry.dim
        if len(values) != dim:
            raise ValueError(f"fix({boundary!r}): {len(values)} values for {dim} components; use None for free ones")
        for i, value in enumerate(values):
            if value is not None:
                constant = fem.Constant(self.mesh, 0.0)
                dofs = fem.locate_dofs_topological(self.V.sub(i), self.mesh.topology.dim - 1, facets)
                self._bcs.append(fem.dirichletbc(constant, dofs, self.V.sub(i)))
                self._prescribed.append((constant, float(value)))

    def traction(self, boundary: str, vector: Sequence[float]) -> None:
        """Apply a traction (dim,) [MPa] on a named boundary at load factor 1."""
        self._facets(boundary)
        t = fem.Constant(self.mesh, np.asarray(vector, dtype=np.float64))
        self._loads.append(self._factor * ufl.dot(t, self._v) * self._ds(self.domain.facet_names[boundary]))

    def body_force(self, vector: Sequence[float]) -> None:
        """Apply a force (dim,) per volume at load factor 1."""
        b = fem.Constant(self.mesh, np.asarray(vector, dtype=np.float64))
        self._loads.append(self._factor * ufl.dot(b, self._v) * self.sigma.dx)

    def watch(self, boundary: str) -> None:
        """Record the mean displacement of a named boundary and the resultant force on it at each step."""
        nodes = self._nodes(boundary)
        ds = self._ds(self.domain.facet_names[boundary])
        mean = [fem.form(self.u[i] * ds) for i in range(self.mesh.geometry.dim)]
        self._watched[boundary] = (mean, fem.form(fem.Constant(self.mesh, 1.0) * ds), nodes)

    # The nonlinear problem.

    def _set_up(self) -> None:
        du = ufl.TrialFunction(self.V)
        internal = ufl.inner(self.sigma.stress, mandel.strain(self._v)) * self.sigma.dx
        self._internal = fem.form(internal)
        self._residual = fem.form(internal - sum(self._loads) if self._loads else internal)
        self._jacobian = fem.form(self.sigma.derivative(internal, du))
        self._b = fem.Function(self.V).x
        self._owned = self.V.dofmap.index_map.size_local * self.V.dofmap.index_map_bs
        self._A = fem_petsc.create_matrix(self._jacobian)
        self._x, self._f = self._A.createVecs()
        self._snes = snes = PETSc.SNES().create(self.comm)
        snes.setOptionsPrefix(self._prefix)
        snes.setFunction(self._evaluate, self._f)
        snes.setJacobian(self._linearise, self._A)
        snes.setTolerances(rtol=1e-10, atol=1e-12, stol=0.0, max_it=20)
        defaults = PETSc.Options(self._prefix)
        if not defaults.hasName("snes_linesearch_type"):
            defaults["snes_linesearch_type"] = "basic"  # others cost more evaluations of the law than they save
        ksp = snes.getKSP()
        ksp.setType("preonly")
        ksp.getPC().setType("lu" if self.comm.size == 1 else "redundant")
        snes.setFromOptions()

    def _assemble(self, form: fem.Form) -> npt.NDArray[np.float64]:
        self._b.array[:] = 0.0
        fem.assemble_vector(self._b.array, form)
        return self._b.array

    def _evaluate(self, snes, x, f) -> None:
        """Residual at x; prescribed displacements not yet reached are brought in through the tangent."""
        self.u.x.array[: self._owned] = x.array_r
        self.u.x.scatter_forward()
        start = time.perf_counter()
        try:
            self.sigma.update()
        except Exception as error:
            # An exception must not cross PETSc, which would be left in mid-solve: SNES stops at NaN instead.
            self._error = error
            f.array[:] = np.nan
            return
        middle = time.perf_counter()
        self._seconds["law"] += middle - start
        b = self._assemble(self._residual)
        fem.apply_lifting(b, [self._jacobian], [self._bcs], [self.u.x.array], -1.0)
        self._b.scatter_reverse(_ADD)
        for bc, (constant, _) in zip(self._bcs, self._prescribed, strict=True):
            dofs = bc.dof_indices()[0]
            b[dofs] = self.u.x.array[dofs] - constant.value
        f.array[:] = b[: self._owned]
        self._seconds["assembly"] += time.perf_counter() - middle

    def _linearise(self, snes, x, A, P) -> None:
        start = time.perf_counter()
        P.zeroEntries()
        fem_petsc.assemble_matrix(P, self._jacobian, self._bcs)
        P.assemble()
        self._seconds["assembly"] += time.perf_counter() - start

    def _newton(self, factor: float) -> list[float]:
        """Solve at a load factor from the present displacement; returns the residual norms."""
        self._factor.value = factor
        for constant, value in self._prescribed:
            constant.value = factor * value
        self._x.array[:] = self.u.x.array[: self._owned]
        residuals: list[float] = []
        self._snes.cancelMonitor()
        self._snes.setMonitor(lambda snes, iteration, norm: residuals.append(float(norm)))
        self._error = None
        self._snes.solve(None, self._x)
        with together(self.comm):
            if self._error is not None:
                raise self._error
        if self._snes.getConvergedReason() <= 0:
            shown = ", ".join(f"{r:.2e}" for r in residuals)
            raise StepFailed(f"SNES stopped with reason {self._snes.getConvergedReason()} (residuals {shown})")
        return residuals

    # Load stepping.

    def solve(
        self,
        *,
        steps: int = 10,
        load: Callable[[float], float] = lambda t: t,
        max_cuts: int = 6,
        folder: str | Path | None = None,
        restart: bool = False,
        log: Callable[[str], None] | None = print,
    ) -> list[Step]:
        """Go through pseudo-time from 0 to 1; returns the history.

        A step that fails is halved; after two good steps in a row its size grows back.

        Args:
            steps: number of steps if none is cut. load: load factor of pseudo-time.
            max_cuts: how often the first step size may be halved.
            folder: where a checkpoint is kept after each accepted step; None for no checkpoints.
            restart: continue from the checkpoint in `folder`, if there is one.
            log: takes a line per step on rank 0; None for silence.

        Raises:
            StepFailed: no convergence at the smallest step. CheckpointError: see `fe2.checkpoint.load`.
        """
        if steps < 1:
            raise ValueError(f"steps = {steps}: need at least 1")
        if restart and folder is None:
            raise ValueError("restart needs the folder with the checkpoint")
        if self._snes is None:
            self._set_up()
        log = log if log is not None and self.comm.rank == 0 else (lambda line: None)
        # Pseudo-time in whole units of the smallest step, so that sums of steps are exact.
        unit = steps * 2**max_cuts
        now, size, good = 0, 2**max_cuts, 0
        if restart and (found := checkpoint.load(Path(folder) / "checkpoint", self.comm, self.mesh)):
            arrays, record = found
            if record["unit"] != unit:
                raise checkpoint.CheckpointError("the checkpoint was written with other `steps` or `max_cuts`")
            self.u.x.array[:] = arrays["u"]
            self.sigma.state = self.sigma.guess = arrays["state"]
            # The first residual of a step brings prescribed displacements in through the last tangent.
            self.sigma.stress.x.array[:], self.sigma.tangent.x.array[:] = arrays["stress"], arrays["tangent"]
            self.history = [Step(**s) for s in record["history"]]
            now, size, good = record["now"], record["size"], record["good"]
            log(f"continuing at time {now / unit:.4f}")
        while now < unit:
            cuts = 0
            accepted = self.u.x.array.copy()
            size = min(size, unit - now)
            while True:
                self._seconds = {"law": 0.0, "assembly": 0.0, "solver": 0.0}
                start = time.perf_counter()
                factor = float(load((now + size) / unit))
                try:
                    residuals = self._newton(factor)
                    break
                except (NotConverged, LocalError, StepFailed) as error:
                    self.u.x.array[:] = accepted
                    self.sigma.rollback()
                    if size == 1:
                        where = f"time {now / unit:.4f} + {size / unit:.2e}, the smallest step"
                        raise StepFailed(f"{where}: {error}") from error
                    size, good, cuts = size // 2, 0, cuts + 1
                    log(f"time {now / unit:.4f}: step cut to {size / unit:.2e}: {str(error).splitlines()[0]}")
            self._seconds["solver"] = time.perf_counter() - start - sum(self._seconds.values())
            self.sigma.commit()
            now, good = now + size, good + 1
            self.history.append(Step(now / unit, factor, residuals, *self._watch(), cuts, self._seconds))
            log(
                f"time {now / unit:.4f}  factor {factor:.4f}  residuals {' '.join(f'{r:.1e}' for r in residuals)}  "
                f"{sum(self._seconds.values()):.1f} s"
            )
            if good >= 2 and size < 2**max_cuts:
                size, good = min(2 * size, 2**max_cuts), 0
            if folder is not None:
                arrays = {
                    "u": self.u.x.array,
                    "state": self.sigma.state,
                    "stress": self.sigma.stress.x.array,
                    "tangent": self.sigma.tangent.x.array,
                }
                record = {"unit": unit, "now": now, "size": size, "good": good}
                record["history"] = [asdict(s) for s in self.history]
                checkpoint.save(Path(folder) / "checkpoint", self.comm, self.mesh, arrays, record)
        return self.history

    def _watch(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        displacement, force = {}, {}
        dim = self.mesh.geometry.dim
        if self._watched:
            b = self._assemble(self._internal)
            self._b.scatter_reverse(_ADD)
        for name, (mean, area, nodes) in self._watched.items():
            total = self.comm.allreduce(fem.assemble_scalar(area))
            displacement[name] = [self.comm.allreduce(fem.assemble_scalar(m)) / total for m in mean]
            mine = nodes[nodes < self.V.dofmap.index_map.size_local]
            force[name] = [float(self.comm.allreduce(b.reshape(-1, dim)[mine, i].sum())) for i in range(dim)]
        return displacement, force

    def destroy(self) -> None:
        """Free the PETSc objects."""
        if self._snes is not None:
            for o in (self._snes, self._A, self._x, self._f):
                o.destroy()
            self._snes = None
