# SPDX-License-Identifier: MIT
"""The representative volume element: one boundary value problem per strain, homogenised.

The displacement is u = E·x + w. With the affine fields as columns of A, the fluctuation's unknowns as columns of T,
R the internal forces and K = dR/du on the *full* displacement space, everything follows from R and K alone:

    equilibrium           Tᵀ R(u) = 0
    stress                S = Aᵀ R / V
    tangent               C = (A − T X)ᵀ K (A − T X) / V,   Tᵀ K T X = Tᵀ K A
    Hill–Mandel           S·dE = R·du / V for every admissible du, exactly when equilibrium holds

The tangent formula is the minimum over X of a quadratic function, so an error in X enters squared; symmetry and a
value from above come with it. (For the condensation see Miehe & Koch, Arch. Appl. Mech. 72, 2002, 300–317.)

Points are solved in groups, side by side: each Newton iteration visits the points of a group one after the other, and
then solves for all their steps at once, which is what `ReducedStiffness` is fast at. A point that does not get on is
solved again by itself, in sub-steps.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from dolfinx import fem

import meshes
from fe2 import arguments
from fe2.body import Body, LocalError
from fe2.boundary import CONDITIONS
from fe2.materials import Material
from fe2.reduced import ReducedStiffness

Array = npt.NDArray[np.float64]


def _nothing() -> Array:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class Failure:
    """A strain for which no equilibrium was found: its index, the strain (d,) and what happened at each attempt."""

    point: int
    strain: Array
    attempts: tuple[str, ...]

    def __str__(self):
        strain = np.array2string(self.strain, precision=6)
        return f"point {self.point}, Mandel strain {strain}: " + "; ".join(self.attempts)


class NotConverged(RuntimeError):
    """Some RVE problems have no solution within tolerance; `failures` lists them."""

    def __init__(self, failures: list[Failure]):
        self.failures = failures
        shown = "\n  ".join(str(f) for f in failures[:5])
        more = f"\n  and {len(failures) - 5} more" if len(failures) > 5 else ""
        super().__init__(f"{len(failures)} RVE problem(s) did not converge:\n  {shown}{more}")

    def __reduce__(self):
        return NotConverged, (self.failures,)  # so that it reaches other ranks whole


@dataclass(frozen=True, slots=True)
class Homogenised:
    """Effective response at n strains.

    stress: (n, d) [MPa]. tangent: (n, d, d) dS/dE [MPa]. energy: (n,) mean energy density [MPa].
    state: (n, state_size) what the RVE problems hand on, see `RVE`; also the start for nearby strains.
    iterations: (n,) Newton iterations. work: (n,) cost in units of one application of the factor. failures: points
    without solution (their rows are NaN).
    """

    stress: Array
    tangent: Array
    energy: Array
    state: Array
    iterations: npt.NDArray[np.int64]
    work: Array
    failures: list[Failure] = field(default_factory=list)


# Work at one iterate (forces and stiffness) in units of one application of the factor beside others.
_VISIT = 4

# Memory for the matrices of a group of points.
_GROUP_BYTES = 2**28


class RVE:
    """A cell with its materials and boundary condition, ready to be homogenised.

    Each rank holds the whole cell: build its mesh on MPI.COMM_SELF.

    Args:
        cell: `meshes.TaggedMesh` of the cell; averages refer to the volume of its period, so that voids count with zero
            stress wherever they are.
        materials: tag, or name in `cell.names` → material.
        degree: of the displacement.
        boundary: "periodic", "linear displacement" or "uniform traction".
        plane: "strain" or "stress", for 2D cells.
        tolerance: of the equilibrium, relative to the norm of the internal forces.
        max_iterations: Newton iterations before the strain is approached in sub-steps.
        max_substeps: the finest division of the way from the last accepted strain.
        options_prefix: of the PETSc options of the linear solver.

    Attributes:
        group: points solved side by side; 32, or as many as have their matrices in 256 MB.
        strain_size: d, the number of Mandel components. period: (dim, dim) lattice vectors. volume: of the period.
        state_size: length of a state row: the strain last solved for (d), the unknowns of the fluctuation, and what the
            materials remember at the quadrature points.

    Raises:
        ValueError: an unknown boundary condition. meshes.MeshError: a cell that is not periodic-conforming (periodic
        only), a tag without material, an unknown name, a mesh that is spread over ranks. TypeError: another kind of
        mesh or material.
    """

    def __init__(
        self,
        cell: meshes.TaggedMesh,
        materials: meshes.ByPhase[Material],
        *,
        degree: int = 2,
        boundary: str = "periodic",
        plane: str = "strain",
        tolerance: float = 1e-11,
        max_iterations: int = 25,
        max_substeps: int = 16,
        options_prefix: str = "micro_",
    ):
        meshes.need_tagged_mesh(cell, "cell")
        if boundary not in CONDITIONS:
            raise ValueError(f"boundary = {boundary!r}: need one of {', '.join(map(repr, CONDITIONS))}")
        if cell.mesh.comm.size > 1:
            raise meshes.MeshError(
                f"the cell's mesh is spread over {cell.mesh.comm.size} ranks; every rank solves whole cells, so "
                "build it with MPI.COMM_SELF"
            )
        self.cell = cell
        self.boundary = boundary
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.max_substeps = max_substeps
        self.body = Body(cell, materials, degree=degree, plane=plane)
        self.period = meshes.known_period(cell)
        self.volume = abs(float(np.linalg.det(self.period)))
        self.unknowns = CONDITIONS[boundary](self.body.V, cell)
        self.stiffness = ReducedStiffness(
            self.unknowns, self.body.stiffness(), symmetric=self.body.symmetric, prefix=options_prefix
        )
        self.affine = self.body.affine()
        self.strain_size = self.affine.shape[1]
        self.group = max(1, min(32, _GROUP_BYTES // (8 * self.stiffness.size)))
        self._cuts = np.cumsum([self.strain_size, self.unknowns.size])
        self.state_size = self.strain_size + self.unknowns.size + self.body.memory_size
        self._initial = np.concatenate([np.zeros(self._cuts[-1]), self.body.memory])

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of the undeformed RVE."""
        return np.tile(self._initial, (n, 1))

    def homogenise(
        self,
        strains: npt.ArrayLike,
        state: Array | None = None,
        *,
        guess: Array | None = None,
        on_failure: str = "raise",
    ) -> Homogenised:
        """Solve the RVE problem for each strain and average.

        The result depends on the arguments alone, not on earlier calls.

        Args:
            strains: Mandel strains (n, d), or one strain (d,).
            state: rows (n, state_size) from the last accepted step; None for the undeformed RVE.
            guess: rows (n, state_size) whose fluctuation starts the iteration, e.g. from the last evaluation nearby;
                None for that of `state`.
            on_failure: "raise" NotConverged, or "report" in the record's `failures`.

        Raises:
            ValueError: strains of wrong shape or not finite. NotConverged: see `on_failure`.
        """
        strains = arguments.strains(np.atleast_2d(strains), self.strain_size)
        n, d = strains.shape
        for what, rows in (("state", state), ("guess", guess)):
            if rows is not None:
                arguments.state_rows("RVE", what, rows, (n, self.state_size))
        if on_failure not in ("raise", "report"):
            raise ValueError(f"on_failure = {on_failure!r}: need 'raise' or 'report'")
        out = Homogenised(
            stress=np.full((n, d), np.nan),
            tangent=np.full((n, d, d), np.nan),
            energy=np.full(n, np.nan),
            state=np.full((n, self.state_size), np.nan),
            iterations=np.zeros(n, dtype=np.int64),
            work=np.zeros(n),
        )
        self.stiffness.reset()
        for first in range(0, n, self.group):
            members = range(first, min(first + self.group, n))
            accepted = [self._initial if state is None else state[k] for k in members]
            points = [
                self._start(strains[k], row, row if guess is None else guess[k])
                for k, row in zip(members, accepted, strict=True)
            ]
            self._newton(points)
            for k, row, point in zip(members, accepted, points, strict=True):
                attempts = [f"from the guess: {point.stalled}"]
                if point.stalled:
                    point = self._in_substeps(strains[k], row, point, attempts)
                out.iterations[k], out.work[k] = point.iterations, point.work
                if point.stalled:
                    out.failures.append(Failure(k, strains[k].copy(), tuple(attempts)))
                    continue
                out.stress[k], out.tangent[k], out.energy[k] = point.stress, point.tangent, point.energy
                out.state[k] = np.concatenate([strains[k], point.w, point.updated])
        if out.failures and on_failure == "raise":
            raise NotConverged(out.failures)
        return out

    def _start(self, strain: Array, accepted: Array, guess: Array) -> "_Point":
        """A point with the accepted state of the materials; fluctuation and local unknowns are guessed."""
        w, guessed = np.split(guess[self._cuts[0] :], [self.unknowns.size])
        return _Point(strain, w.copy(), self.body.with_local(accepted[self._cuts[1] :], guessed))

    def _in_substeps(self, strain: Array, accepted: Array, point: "_Point", attempts: list[str]) -> "_Point":
        """Lead the fluctuation from the accepted strain to `strain` in ever finer steps; add what fails to `attempts`.

        The materials see one step from their accepted state all the same, to which the tangent belongs.
        """
        last, substeps = accepted[: self._cuts[0]], 1
        while point.stalled and substeps <= self.max_substeps:
            done = point.iterations, point.work
            point = self._start(last, accepted, accepted)
            point.iterations, point.work = done
            for i in range(substeps):
                point.strain = last + (strain - last) * (i + 1) / substeps
                self._newton([point])
                if point.stalled:
                    attempts.append(f"in {substeps} sub-steps: {point.stalled}")
                    break
            substeps *= 2
        return point

    # The Newton iteration.

    def _newton(self, points: list["_Point"]) -> None:
        """Bring all points to equilibrium side by side, each at its own strain."""
        for point in points:
            point.history, point.stalled, point.converged = [], "", False
            self._visit(point, np.zeros_like(point.w))
        for _ in range(self.max_iterations):
            going = [p for p in points if not (p.converged or p.stalled)]
            if not going:
                break
            # Solve as accurately as the Newton step deserves.
            forcing = [np.clip((p.history[-1] / p.scale) ** 0.5 * 1e-2, 1e-5, 1e-2) for p in going]
            steps = self._solve(going, np.stack([p.residual for p in going])[:, None], forcing)
            for point, step in zip(going, steps[:, 0], strict=True):
                if not point.stalled:
                    point.iterations += 1
                    self._visit(point, step)
        for point in points:
            if not (point.converged or point.stalled):
                point.stall(f"no convergence in {self.max_iterations} iterations")
        self._tangents([p for p in points if p.converged])

    def _solve(self, points: list["_Point"], rhs: Array, rtol: npt.ArrayLike) -> Array:
        """Solutions (m, k, unknowns) with the stiffness of each of m points; those without one are stalled."""
        try:
            x, used, solved = self.stiffness.solve([p.values for p in points], rhs, rtol)
        except RuntimeError as error:
            for p in points:
                p.stall(str(error))
            return rhs
        for p, n, good in zip(points, used, solved, strict=True):
            p.work += n
            if not good:
                p.stall("the stiffness is singular or not positive definite, so that no step could be solved for")
        return x

    def _visit(self, point: "_Point", step: Array) -> None:
        """Go along −`step` until the residual falls, and linearise there."""
        point.work += _VISIT
        try:
            self.body.memory = point.memory
            forces, size = self._line_search(point, step)
            point.history.append(size)
            if not np.isfinite(size):
                return point.stall("the material returned a stress that is not finite")
            point.scale = float(np.linalg.norm(forces))
            point.converged = size <= max(self.tolerance * point.scale, point.rounding)
            full = self.body.stiffness()
            point.values = self.stiffness.reduce(full)
            # What the internal forces cannot resolve.
            point.rounding = 8 * np.finfo(float).eps * float(np.linalg.norm(full.diagonal() * self.body.u.x.array))
            point.memory = self.body.memory
            if point.converged:
                self._average(point, forces, full)
        except LocalError as error:
            point.stall(str(error))

    def _line_search(self, point: "_Point", step: Array) -> tuple[Array, float]:
        """Internal forces (dofs,) at the accepted iterate, and the norm of the residual; the last try if none is."""
        length, size = 1.0, point.history[-1] if point.history else np.inf
        for _ in range(6):
            w = point.w - length * step
            self.body.u.x.array[:] = self.affine @ point.strain + self.unknowns.expand(w)
            forces = self.body.forces()
            r = self.unknowns.gather(forces)
            g = self.unknowns.constraint
            if g is not None:  # the side condition's reactions are no residual
                r -= g.T @ np.linalg.lstsq(g.T, r, rcond=None)[0]
            norm = float(np.linalg.norm(r))
            if norm <= (1 - 1e-4 * length) * size:
                break
            length /= 2
        point.w, point.residual = w, r
        return forces, norm

    # What the converged iterate gives.

    def _average(self, point: "_Point", forces: Array, full) -> None:
        """Stress, energy and updated memory of the present solution, and what the tangent needs."""
        point.stress = self.affine.T @ forces / self.volume
        point.energy = self.body.energy() / self.volume
        point.updated = self.body.updated_memory()
        column = full @ self.affine
        point.affine = self.affine.T @ column
        point.coupling = self.unknowns.gather(column).T
        point.coupled = point.coupling if self.body.symmetric else self.unknowns.gather(full.T @ self.affine).T

    def _tangents(self, points: list["_Point"]) -> None:
        """Tangents of converged points: C V = AᵀKA − (TᵀKᵀA)ᵀ X − Xᵀ (TᵀKA − TᵀKT X), which is that of the module."""
        if not points:
            return
        coupling = np.stack([p.coupling for p in points])
        # In the symmetric case the error of X enters squared.
        x = self._solve(points, coupling, 1e-6 if self.body.symmetric else 1e-12)
        for point, columns in zip(points, x, strict=True):
            rest = -self.stiffness.multiply(point.values, columns)
            rest += point.coupling
            tangent = point.affine - point.coupled @ columns.T - columns @ rest.T
            if self.body.symmetric:
                tangent = (tangent + tangent.T) / 2  # equal up to rounding
            point.tangent = tangent / self.volume

    # Looking at one point.

    def displacement(self, state: Array, fluctuation: bool = False) -> fem.Function:
        """Displacement (or only its periodic fluctuation) of one state row (state_size,) as a new `fem.Function`."""
        strain, w, _ = np.split(state, self._cuts)
        u = fem.Function(self.body.V, name="fluctuation" if fluctuation else "displacement")
        u.x.array[:] = self.unknowns.expand(w) + (0.0 if fluctuation else self.affine @ strain)
        return u

    def place(self, state: Array) -> Body:
        """Put the body at one state row (state_size,), so that its strain, stress and energy can be asked for.

        For materials with state the stress is that of the elastic domain at the accepted state.
        """
        _, _, memory = np.split(state, self._cuts)
        self.body.memory = memory
        self.body.u.x.array[:] = self.displacement(state).x.array
        self.body.find_local()
        return self.body

    def destroy(self) -> None:
        """Free the PETSc objects."""
        self.stiffness.destroy()


@dataclass(slots=True)
class _Point:
    """One strain on its way to equilibrium, and what the solution gives."""

    strain: Array  # (d,)
    w: Array  # (unknowns,) of the fluctuation
    memory: Array  # (memory_size,) of the materials: accepted state, present local unknowns
    iterations: int = 0
    work: float = 0.0
    history: list[float] = field(default_factory=list)  # norms of the residual
    stalled: str = ""  # why it does not get on
    converged: bool = False
    scale: float = 1.0  # norm of the internal forces
    rounding: float = 0.0  # norm of their rounding error, known once there is a stiffness
    residual: Array = field(default_factory=_nothing)  # (unknowns,)
    values: Array = field(default_factory=_nothing)  # of the reduced stiffness
    coupling: Array = field(default_factory=_nothing)  # (d, unknowns), (TᵀKA)ᵀ
    coupled: Array = field(default_factory=_nothing)  # (d, unknowns), (TᵀKᵀA)ᵀ
    affine: Array = field(default_factory=_nothing)  # (d, d), AᵀKA
    updated: Array = field(default_factory=_nothing)  # (memory_size,) at the end of the step
    stress: Array = field(default_factory=_nothing)
    tangent: Array = field(default_factory=_nothing)
    energy: float = np.nan

    def stall(self, why: str) -> None:
        self.stalled = f"{why} (residuals {', '.join(f'{h:.2e}' for h in self.history[-8:])})"
