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
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from dolfinx import fem

import meshes
from fe2.body import Body, LocalError
from fe2.boundary import CONDITIONS
from fe2.materials import Material
from fe2.reduced import ReducedStiffness

Array = npt.NDArray[np.float64]


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
    iterations: (n,) Newton iterations. work: (n,) cost in units of one linear solve. failures: points without solution
    (their rows are NaN).
    """

    stress: Array
    tangent: Array
    energy: Array
    state: Array
    iterations: npt.NDArray[np.int64]
    work: Array
    failures: list[Failure] = field(default_factory=list)


class RVE:
    """A cell with its materials and boundary condition, ready to be homogenised.

    Each rank holds the whole cell: build its mesh on MPI.COMM_SELF.

    Args:
        cell: `meshes.TaggedMesh` of the cell; its bounding box is the period and the volume that averages refer to,
            so that voids count with zero stress.
        materials: tag → material.
        degree: of the displacement.
        boundary: "periodic", "linear displacement" or "uniform traction".
        plane: "strain" or "stress", for 2D cells.
        tolerance: of the equilibrium, relative to the norm of the internal forces.
        max_iterations: Newton iterations before the strain is approached in sub-steps.
        max_substeps: the finest division of the way from the last accepted strain.
        options_prefix: of the PETSc options of the linear solver.

    Attributes:
        strain_size: d, the number of Mandel components. volume: of the box.
        state_size: length of a state row: the strain last solved for (d), the unknowns of the fluctuation, and what the
            materials remember at the quadrature points.

    Raises:
        ValueError: an unknown boundary condition. meshes.MeshError: a cell that is not periodic-conforming (periodic
        only), a tag without material, a mesh that is spread over ranks.
    """

    def __init__(
        self,
        cell: meshes.TaggedMesh,
        materials: Mapping[int, Material],
        *,
        degree: int = 2,
        boundary: str = "periodic",
        plane: str = "strain",
        tolerance: float = 1e-11,
        max_iterations: int = 25,
        max_substeps: int = 16,
        options_prefix: str = "micro_",
    ):
        if boundary not in CONDITIONS:
            raise ValueError(f"boundary = {boundary!r}: need one of {', '.join(map(repr, CONDITIONS))}")
        if cell.mesh.comm.size > 1:
            raise meshes.MeshError(
                f"the cell's mesh is spread over {cell.mesh.comm.size} ranks; every rank solves whole cells, so "
                "build it with MPI.COMM_SELF"
            )
        if boundary == "periodic":
            meshes.check_periodic(cell)
        self.cell = cell
        self.boundary = boundary
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.max_substeps = max_substeps
        self.body = Body(cell, materials, degree=degree, plane=plane)
        self.box = cell.box
        self.volume = float(np.prod(self.box[1] - self.box[0]))
        self.unknowns = CONDITIONS[boundary](self.body.V, self.box)
        self.stiffness = ReducedStiffness(
            self.unknowns, self.body.stiffness(), symmetric=self.body.symmetric, prefix=options_prefix
        )
        self.affine = self.body.affine()
        self.strain_size = self.affine.shape[1]
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
        strains = np.atleast_2d(np.asarray(strains, dtype=np.float64))
        n, d = len(strains), self.strain_size
        if strains.shape != (n, d):
            raise ValueError(f"strains have shape {strains.shape}, need (n, {d}) Mandel components")
        if not np.isfinite(strains).all():
            bad = np.flatnonzero(~np.isfinite(strains).all(axis=1))
            raise ValueError(f"strain {bad[0]} is {strains[bad[0]]}: all components must be finite")
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
        for k in range(n):
            row = self._initial if state is None else state[k]
            start = row if guess is None else guess[k]
            done = self.stiffness.work
            try:
                out.iterations[k] = self._equilibrate(k, strains[k], row, start)
            except NotConverged as error:
                out.failures.extend(error.failures)
            else:
                out.stress[k], out.tangent[k], out.energy[k] = self._average()
                out.state[k] = self._accepted(strains[k])
            out.work[k] = self.stiffness.work - done
        if out.failures and on_failure == "raise":
            raise NotConverged(out.failures)
        return out

    # The Newton iteration. `self._w` and the body's displacement are the present iterate.

    def _equilibrate(self, point: int, strain: Array, state: Array, guess: Array) -> int:
        """Find the fluctuation for `strain`, in sub-steps if need be; return the number of Newton iterations."""
        last_strain, last_w, memory = np.split(state, self._cuts)
        _, w, guessed_memory = np.split(guess, self._cuts)
        self.body.memory = self.body.with_local(memory, guessed_memory)
        attempts, total = [], 0
        substeps = 0
        while True:
            path = [strain] if substeps == 0 else [
                last_strain + (strain - last_strain) * (i + 1) / substeps for i in range(substeps)
            ]
            self._w = w.copy()
            try:
                for target in path:
                    total += self._newton(target)
                return total
            except _Stalled as stalled:
                label = "from the guess" if substeps == 0 else f"in {substeps} sub-steps"
                attempts.append(f"{label}: {stalled}")
            if substeps >= self.max_substeps:
                raise NotConverged([Failure(point, strain.copy(), tuple(attempts))])
            substeps = max(1, 2 * substeps)
            self.body.memory = memory
            w = last_w

    def _residual(self, strain: Array, w: Array) -> tuple[Array, float]:
        """Forces (size,) on the unknowns under the side condition's reactions, and the scale to judge them by."""
        self.body.u.x.array[:] = self.affine @ strain + self.unknowns.expand(w)
        forces = self.body.forces()
        r = self.unknowns.gather(forces)
        g = self.unknowns.constraint
        if g is not None:
            r -= g.T @ np.linalg.lstsq(g.T, r, rcond=None)[0]
        return r, float(np.linalg.norm(forces))

    def _newton(self, strain: Array) -> int:
        history: list[float] = []
        rounding = 0.0  # what the internal forces cannot resolve, known once there is a stiffness
        try:
            r, scale = self._residual(strain, self._w)
            for iteration in range(self.max_iterations + 1):
                size = float(np.linalg.norm(r))
                history.append(size)
                if not np.isfinite(size):
                    raise _Stalled("the material returned a stress that is not finite", history)
                if size <= max(self.tolerance * scale, rounding):
                    return iteration
                if iteration == self.max_iterations:
                    break
                full = self.body.stiffness()
                self.stiffness.update(full)
                rounding = 8 * np.finfo(float).eps * float(np.linalg.norm(full.diagonal() * self.body.u.x.array))
                # Solve as accurately as the Newton step deserves.
                forcing = np.clip((size / scale) ** 0.5 * 1e-2, 1e-5, 1e-2)
                step = self.stiffness.solve(r, forcing)
                r, scale = self._line_search(strain, step, size)
        except (LocalError, RuntimeError) as error:
            if isinstance(error, _Stalled):
                raise
            raise _Stalled(str(error), history) from error
        raise _Stalled(f"no convergence in {self.max_iterations} iterations", history)

    def _line_search(self, strain: Array, step: Array, size: float) -> tuple[Array, float]:
        """Go along −`step` until the residual is smaller than `size`; keep the last try if it never is."""
        length = 1.0
        for _ in range(6):
            r, scale = self._residual(strain, self._w - length * step)
            if np.linalg.norm(r) <= (1 - 1e-4 * length) * size:
                break
            length /= 2
        self._w = self._w - length * step
        return r, scale

    # What the converged iterate gives.

    def _average(self) -> tuple[Array, Array, float]:
        """Stress (d,), tangent (d, d) and mean energy of the present solution."""
        forces = self.body.forces()
        full = self.body.stiffness()
        self.stiffness.update(full)
        coupling = full @ self.affine
        # In the symmetric case the error of X enters the tangent squared.
        x = self.stiffness.solve(self.unknowns.gather(coupling), 1e-6 if self.body.symmetric else 1e-12)
        modes = self.affine - self.unknowns.expand(x.T).T
        if self.body.symmetric:
            tangent = modes.T @ (full @ modes)
            tangent = (tangent + tangent.T) / 2  # equal up to rounding
        else:
            tangent = self.affine.T @ (full @ modes)
        return self.affine.T @ forces / self.volume, tangent / self.volume, self.body.energy() / self.volume

    def _accepted(self, strain: Array) -> Array:
        return np.concatenate([strain, self._w, self.body.updated_memory()])

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


class _Stalled(RuntimeError):
    """A Newton iteration that does not get on."""

    def __init__(self, why: str, history: list[float]):
        super().__init__(f"{why} (residuals {', '.join(f'{h:.2e}' for h in history[-8:])})")
