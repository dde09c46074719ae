# SPDX-License-Identifier: MIT
"""The macroscale problem, for scripts without a residual of their own: load steps in pseudo-time, solved by SNES."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import shorten

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

import meshes
from fe2 import checkpoint, micro
from fe2.body import LocalError
from fe2.clock import Clock
from fe2.failures import NotConverged
from fe2.laws import Law
from fe2.measure import common_measure
from fe2.micro import MicroPoint
from fe2.newton import Newton, StepFailed
from fe2.progress import Bar
from fe2.quadrature import NotFinite, QuadratureLaw
from fe2.ranks import raise_on_all_ranks
from fe2.signals import SIGNALS, SignalListener, Stopped
from fe2.time_step import require_step
from fe2.xdmf import Series, at_nodes
from meshes.deprecation import renamed_arguments


@dataclass(frozen=True, slots=True)
class Step:
    """One accepted step.

    Attributes:
        time: pseudo-time.
        factor: load factor.
        residuals: ‖residual‖, a force, at each Newton iterate.
        displacement: name of a recorded boundary → mean displacement (dim,).
        force: name of a recorded boundary → resultant of the internal forces (dim,).
        cuts: times the step was halved.
        seconds: spent in the law, in assembly and in the linear solver.
        physical_time: `time` times the `duration` of `MacroProblem.solve`, in the unit of the laws; None without.
    """

    time: float
    factor: float
    residuals: list[float]
    displacement: dict[str, list[float]]
    force: dict[str, list[float]]
    cuts: int
    seconds: dict[str, float] = field(default_factory=dict)
    physical_time: float | None = None


def _vector(what: str, given: npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    """`given` as a vector (dim,); raises ValueError for another shape, or numbers that are not real and finite."""
    found = np.asarray(given)
    found = found[None] if found.shape == () and dim == 1 else found
    if found.shape != (dim,) or not np.can_cast(found.dtype, np.float64, "same_kind") or not np.isfinite(found).all():
        raise ValueError(f"{what}: {given!r}: need a vector of {dim} finite real numbers")
    return found.astype(np.float64)


def _silent(line: str) -> None:
    pass


class MacroProblem:
    """A structure whose stress at every quadrature point comes from a law.

    Args:
        domain: mesh and tags of the structure (`meshes.TaggedMesh`), spread over its communicator.
        law: the law of the whole structure, or cell tag, or name in `domain.names` → law.
        degree: of the displacement, or of the potential whose gradient the law takes.
        options_prefix: of the PETSc options of SNES, KSP and PC.

    Attributes:
        u: displacement, or a potential such as the temperature.
        sigma: the `QuadratureLaw` with stress and tangent.
        history: the accepted steps.

    Loads are multiplied by the load factor. Newton's method has converged when the residual is at most 1e-10 (option
    `snes_rtol`) of the internal or external forces, in any units; there is no absolute tolerance, except as an option
    (`snes_atol`). Without options, linear systems are solved directly: by PETSc's LU on one rank, and on several by a
    redundant factorisation, whose result does not depend on the order of messages.
    """

    def __init__(
        self,
        domain: meshes.TaggedMesh,
        law: Law | meshes.ByPhase[Law],
        *,
        degree: int = 1,
        options_prefix: str = "macro_",
    ):
        meshes.need_tagged_mesh(domain, "domain")
        self.domain, self.mesh = domain, domain.mesh
        self.comm = self.mesh.comm
        measure = common_measure(law if isinstance(law, Mapping) else {"all": law})
        self._components = measure.components(self.mesh.geometry.dim)
        self.V = fem.functionspace(self.mesh, ("Lagrange", degree, () if measure.scalar else (self._components,)))
        self.u = fem.Function(self.V, name=measure.field)
        self.sigma = QuadratureLaw(law, self.u, cell_tags=domain.cell_tags, names=domain.names)
        self.history: list[Step] = []
        self._prefix = options_prefix
        self._factor = fem.Constant(self.mesh, 0.0)
        self._bcs: list[tuple[fem.DirichletBC, fem.Constant]] = []
        self._prescribed: list[float] = []
        self._v = ufl.TestFunction(self.V)
        self._test = ufl.as_vector([self._v]) if measure.scalar else self._v
        self._ds = ufl.Measure("ds", domain=self.mesh, subdomain_data=domain.facet_tags)
        self._loads: list = []
        self._recorded: dict[str, tuple] = {}
        self._newton: Newton | None = None  # created by the first step

    # Prescribed displacements and loads.

    def _facets(self, name: str) -> npt.NDArray[np.int32]:
        if name not in self.domain.facet_names:
            known = ", ".join(sorted(self.domain.facet_names))
            raise ValueError(f"no boundary has the name {name!r}; the boundaries are {known}")
        return self.domain.facet_tags.find(self.domain.facet_names[name])

    def _nodes(self, name: str) -> npt.NDArray[np.int32]:
        return fem.locate_dofs_topological(self.V, self.mesh.topology.dim - 1, self._facets(name))

    def prescribe(self, boundary: str, values: Sequence[float | None] | float) -> None:
        """Prescribe the displacement (or potential) of a named boundary at load factor 1; None leaves a component free.

        Raises:
            ValueError: unknown boundary, or not one value per component, finite or None.
        """
        facets, dim, call = self._facets(boundary), self._components, f"prescribe({boundary!r})"
        values = [values] if isinstance(values, (int, float)) else values
        if len(values) != dim:
            raise ValueError(f"{call}: {len(values)} values for {dim} components; use None for free ones")
        _vector(call, [0.0 if value is None else value for value in values], dim)
        for i, value in enumerate(values):
            if value is not None:
                constant = fem.Constant(self.mesh, 0.0)
                V = self.V if self.sigma.measure.scalar else self.V.sub(i)
                dofs = fem.locate_dofs_topological(V, self.mesh.topology.dim - 1, facets)
                self._bcs.append((fem.dirichletbc(constant, dofs, V), constant))
                self._prescribed.append(float(value))

    def traction(self, boundary: str, vector: Sequence[float] | float) -> None:
        """Apply a traction (dim,) [MPa], or a flux into the body, on a named boundary at load factor 1.

        At finite strain it is a force per area of the undeformed boundary, and keeps its direction.

        Raises:
            ValueError: unknown boundary, or not one finite number per component.
        """
        self._facets(boundary)
        t = fem.Constant(self.mesh, _vector(f"traction({boundary!r})", vector, self._components))
        self._loads.append(self._factor * ufl.dot(t, self._test) * self._ds(self.domain.facet_names[boundary]))

    def body_force(self, vector: Sequence[float] | float) -> None:
        """Apply a force (dim,), or a source, per volume at load factor 1; raises ValueError as `traction`."""
        b = fem.Constant(self.mesh, _vector("body_force", vector, self._components))
        self._loads.append(self._factor * ufl.dot(b, self._test) * self.sigma.dx)

    def record(self, boundary: str) -> None:
        """Record the mean displacement of a named boundary and the resultant force on it at each step."""
        nodes = self._nodes(boundary)
        ds = self._ds(self.domain.facet_names[boundary])
        parts = [self.u] if self.sigma.measure.scalar else [self.u[i] for i in range(self._components)]
        mean = [fem.form(part * ds) for part in parts]
        self._recorded[boundary] = (mean, fem.form(fem.Constant(self.mesh, 1.0) * ds), nodes)

    def fix(self, boundary: str, values: Sequence[float | None]) -> None:
        """Deprecated: `prescribe`."""
        warnings.warn("MacroProblem.fix is now MacroProblem.prescribe", DeprecationWarning, stacklevel=2)
        self.prescribe(boundary, values)

    def watch(self, boundary: str) -> None:
        """Deprecated: `record`."""
        warnings.warn("MacroProblem.watch is now MacroProblem.record", DeprecationWarning, stacklevel=2)
        self.record(boundary)

    # Load stepping.

    def solve(
        self,
        *,
        steps: int = 10,
        load: Callable[[float], float] = lambda t: t,
        duration: float | None = None,
        max_cuts: int = 6,
        until: float = 1.0,
        folder: str | Path | None = None,
        restart: bool = False,
        fields: bool = False,
        log: Callable[[str], None] | None = print,
    ) -> list[Step]:
        """Solve the load steps from pseudo-time 0 to `until`; returns the history.

        A step that fails is halved; after two good steps in a row its size grows back.

        Args:
            steps: number of steps if none is cut.
            load: load factor of pseudo-time.
            duration: time that pseudo-time 0 to 1 takes, in the unit of the laws, for those that depend on time. A step
                has its share of it, also a step that was halved.
            max_cuts: how often the first step size may be halved.
            until: pseudo-time to stop at, at most 1, e.g. to continue later from the checkpoint.
            folder: of the checkpoint after each accepted step; None for no checkpoints.
            restart: continue from the checkpoint in `folder`, if there is one.
            fields: write displacement, stress and strain (cell means) after each accepted step: `folder`/fields.xdmf
                is a series that ParaView and `meshio.xdmf.TimeSeriesReader` read, also while it grows, and that a
                restart continues.
            log: called with a line per step on rank 0; None for none. A terminal also shows a bar of pseudo-time.

        With a `folder`, SIGTERM or SIGUSR1 to any rank, such as a batch system sends before its time limit, ends the
        run on all ranks before the next evaluation of the law; the checkpoint is that of the last accepted step.

        Raises:
            ValueError: another number than the arguments allow, or no duration and a law that depends on time.
            StepFailed: no convergence at the smallest step.
            CheckpointError: see `fe2.checkpoint.load`.
            Stopped: such a signal; a SystemExit, with the code 128 + its number.
            KeyboardInterrupt: Ctrl-C; the problem is then at the last accepted step.
        """
        if steps < 1:
            raise ValueError(f"steps = {steps}: need at least 1")
        if not 0 < until <= 1:
            raise ValueError(f"until = {until}: need a pseudo-time in (0, 1]")
        if restart and folder is None:
            raise ValueError("restart needs the folder with the checkpoint")
        if fields and folder is None:
            raise ValueError("fields need a folder to be written to")
        if self.sigma.rate_dependent and duration is None:
            require_step("a law of the structure", None)
        newton = self._newton or Newton(self.sigma, self.u, self._v, self._loads, self._bcs, self._prefix)
        self._newton = newton
        place = None if folder is None else Path(folder)
        series = Series(place / "fields.xdmf", self.mesh) if place and fields else None
        say = log if log is not None and self.comm.rank == 0 else _silent
        largest = 2**max_cuts
        clock = Clock(unit=steps * largest, size=largest, duration=duration)
        if place and restart and self._restore(place / "checkpoint", clock):
            say(f"continuing at time {clock.time:.4f}")
        stop = round(until * clock.unit)
        signals = () if place is None else SIGNALS
        with SignalListener(signals) as listener, Bar("load", clock.unit, wanted=say is not _silent) as bar:
            try:
                while clock.now < stop:
                    clock.size = min(clock.size, stop - clock.now)
                    factor, residuals, cuts, seconds = self._step(newton, clock, load, say, bar, listener)
                    clock.accept(largest)
                    found = self._measure(newton)
                    self.history.append(Step(clock.time, factor, residuals, *found, cuts, seconds, clock.physical_time))
                    norms = " ".join(f"{r:.1e}" for r in residuals)
                    say(f"time {clock.time:.4f}  factor {factor:.4f}  residuals {norms}  {sum(seconds.values()):.1f} s")
                    bar.update(clock.now)
                    # Fields before the checkpoint: the series then has every step of the checkpoint.
                    if series:
                        series.write(len(self.history), clock.time, *self._fields())
                    if place:
                        self._save(place / "checkpoint", clock)
                        listener.raise_if_signalled(self.comm)
            except Stopped as stopped:
                say(f"time {clock.time:.4f}: {stopped}; restart=True continues from this step")
                raise
        return self.history

    def _step(
        self, newton: Newton, clock: Clock, load, say, bar: Bar, listener: SignalListener
    ) -> tuple[float, list[float], int, dict[str, float]]:
        """One step, halved until it converges; returns load factor, residual norms, number of cuts, and seconds."""
        cuts = 0
        accepted = self.u.x.array.copy()

        def show(iteration, norm):
            bar.update(clock.now, f"step {len(self.history) + 1}  Newton {iteration}  residual {norm:.1e}")

        while True:
            start = time.perf_counter()
            factor = float(load((clock.now + clock.size) / clock.unit))
            self._factor.value = factor
            for (_, constant), value in zip(self._bcs, self._prescribed, strict=True):
                constant.value = factor * value
            try:
                residuals = newton.solve(show, listener, clock.step())
            except (NotConverged, LocalError, NotFinite, StepFailed, Stopped, KeyboardInterrupt) as error:
                self.u.x.array[:] = accepted
                self.sigma.rollback()
                if isinstance(error, (Stopped, KeyboardInterrupt)):
                    raise
                if clock.size == 1:
                    where = f"time {clock.time:.4f} + {1 / clock.unit:.2e}, the smallest step"
                    raise StepFailed(f"{where}: {error}") from error
                clock.size, clock.good, cuts = clock.size // 2, 0, cuts + 1
                size = clock.size / clock.unit
                say(f"time {clock.time:.4f}: step cut to {size:.2e}: {shorten(str(error), 200, placeholder=' ...')}")
            else:
                seconds = newton.seconds
                seconds |= {"solver": time.perf_counter() - start - sum(seconds.values())}
                self.sigma.commit()
                return factor, residuals, cuts, seconds

    def _save(self, folder: Path, clock: Clock) -> None:
        record = {"clock": asdict(clock), "history": [asdict(s) for s in self.history]}
        checkpoint.save(folder, self.comm, self.mesh, self._tables(), record)

    def _restore(self, folder: Path, clock: Clock) -> bool:
        """Restore the problem from the checkpoint, if there is one."""
        found = checkpoint.load(folder, self.comm, self.mesh, self._tables())
        if not found:
            return False
        rows, record = found
        if record["clock"]["unit"] != clock.unit:
            raise checkpoint.CheckpointError("the checkpoint was written with other `steps` or `max_cuts`")
        written = record["clock"].get("duration")
        if written != clock.duration:
            raise checkpoint.CheckpointError(
                f"the checkpoint was written with duration = {written}, this run has {clock.duration}"
            )
        sigma, dofs = self.sigma, self.V.dofmap.list[self.sigma.cells]
        self.u.x.array.reshape(-1, self.V.dofmap.index_map_bs)[dofs] = rows["displacement"].reshape(*dofs.shape, -1)
        self.u.x.scatter_forward()
        # Stress and tangent, for the results of a run that was complete already.
        for function in (sigma.stress, sigma.tangent):
            function.x.array[: rows[function.name].size] = rows[function.name].ravel()
        for region in sigma.regions:
            region.state = region.guess = rows[f"state of {region.label}"].reshape(region.state.shape)
        self.history = [Step(**s) for s in record["history"]]
        for name, value in record["clock"].items():
            setattr(clock, name, value)
        return True

    def _tables(self) -> checkpoint.Tables:
        """Contents of a checkpoint, cell by cell."""
        sigma, points = self.sigma, len(self.sigma.points)
        dofs = self.V.dofmap.list[sigma.cells]
        u = self.u.x.array.reshape(-1, self.V.dofmap.index_map_bs)[dofs]
        tables: checkpoint.Tables = {"displacement": (sigma.cells, u.reshape(len(dofs), u.shape[1] * u.shape[2]))}
        for function in (sigma.stress, sigma.tangent):
            width = points * function.function_space.dofmap.index_map_bs
            rows = function.x.array[: len(sigma.cells) * width]
            tables[function.name] = sigma.cells, rows.reshape(len(sigma.cells), width)
        for region in sigma.regions:
            shape = len(region.cells), points * region.law.state_size
            tables[f"state of {region.label}"] = region.cells, region.state.reshape(shape)
        return tables

    # Fields and micro fields.

    def _fields(self) -> tuple[dict, dict]:
        """Fields of this rank at the nodes of the mesh and in its cells, for a `Series`."""
        stress, strain = (self.sigma.means(v) for v in (self.sigma.stresses(), self.sigma.strains()))
        return {self.sigma.measure.field: at_nodes(self.u)}, self.sigma.measure.columns(stress, strain)

    @renamed_arguments(places="coordinates")
    def micro(self, coordinates: npt.ArrayLike) -> list[MicroPoint]:
        """The quadrature points nearest to `coordinates` (k, dim), at the last accepted step; the same on all ranks."""
        return micro.nearest(self.sigma, coordinates)

    @renamed_arguments(places="coordinates")
    def write_micro(self, folder: str | Path, coordinates: npt.ArrayLike) -> list[MicroPoint]:
        """Write the micro fields nearest to `coordinates` (k, dim) to `folder`/micro-1.xdmf, ... (collective).

        Each file holds displacement, stress and strain (cell means) and the cell tags of one RVE, for ParaView and
        `meshio.read`. Exact laws and laws of trained models have micro fields.

        Returns:
            The points, see `micro`.

        Raises:
            TypeError: a law there has no micro fields.
            ValueError: the law cannot evaluate its micro fields; the message names the reason.
        """
        points = self.micro(coordinates)
        with raise_on_all_ranks(self.comm):
            for number, point in enumerate(points, start=1):
                if point.here:
                    point.write(Path(folder) / f"micro-{number}.xdmf")
        return points

    def _measure(self, newton: Newton) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        displacement, force, dim = {}, {}, self._components
        if self._recorded:
            b = newton.internal_forces()
        for name, (mean, area, nodes) in self._recorded.items():
            total = self.comm.allreduce(fem.assemble_scalar(area))
            displacement[name] = [self.comm.allreduce(fem.assemble_scalar(m)) / total for m in mean]
            mine = nodes[nodes < self.V.dofmap.index_map.size_local]
            force[name] = [float(self.comm.allreduce(b.reshape(-1, dim)[mine, i].sum())) for i in range(dim)]
        return displacement, force

    def destroy(self) -> None:
        """Free the PETSc objects."""
        if self._newton is not None:
            self._newton.destroy()
            self._newton = None
