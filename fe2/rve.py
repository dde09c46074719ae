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

Where a component of S is prescribed in place of that of E, it is one more equation, and the component of E one more
unknown, of the same Newton iteration.

Points are solved in groups, side by side (`fe2.micro_newton`). A point that fails to converge there is solved again
by itself, in sub-steps of the strain, so that its result does not depend on its neighbours.
"""

import warnings
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem

import meshes
from fe2 import arguments
from fe2.body import Body
from fe2.boundary import CONDITIONS
from fe2.condensed import ReducedStiffness
from fe2.control import Control, point_controls
from fe2.failures import NotConverged, UnstableWarning, failure_at
from fe2.homogenised import Homogenised
from fe2.materials import Material
from fe2.micro_iterate import Point
from fe2.micro_newton import MicroNewton
from fe2.minimum import Descent
from fe2.solver_options import SolverOptions
from fe2.state import StateLayout
from fe2.time_step import TimeStep
from fe2.without_length import begin_without_length, check_mean_stress
from fe2.zero_strain import check_at_zero_strain
from meshes.deprecation import renamed_arguments

Array = npt.NDArray[np.float64]


# Largest number of points in a group, whose systems are solved together, and largest memory of their matrices.
_GROUP, _GROUP_BYTES = 32, 2**28


def _with_former(solver: SolverOptions, former: dict[str, Any]) -> SolverOptions:
    """`solver` with the values of former keyword arguments of `RVE`, which warn."""
    unknown = former.keys() - {f.name for f in fields(SolverOptions)}
    if unknown:
        raise TypeError(f"RVE has no argument {', '.join(map(repr, sorted(unknown)))}")
    if former:
        text = ", ".join(f"{name}={value!r}" for name, value in former.items())
        warnings.warn(f"RVE({text}) is now RVE(solver=fe2.SolverOptions({text}))", DeprecationWarning, stacklevel=4)
    return replace(solver, **former)


class RVE:
    """A representative volume element with its materials and boundary condition, ready to be homogenised.

    Each rank holds the whole RVE: build its mesh on MPI.COMM_SELF.

    Args:
        domain: mesh and tags of the RVE; averages refer to the volume of its period, so that voids count with zero
            stress wherever they are.
        materials: tag, or name in `domain.names` → material.
        degree: of the displacement.
        boundary: "periodic", "linear displacement" or "uniform traction".
        plane: "strain" or "stress", in two dimensions.
        element: "displacement", or "mean dilatation", which does not lock in nearly incompressible phases, see
            `fe2.mean_dilatation`.
        solver: tolerance, iterations, sub-steps and PETSc options.
        **former: fields of `solver` by their names, as in the last release; deprecated.

    Attributes:
        domain: as given.
        body: internal forces, stiffness, energy and stress of a displacement.
        group: points solved side by side; 32, or as many as have their matrices in 256 MB.
        measure: of the materials, see `fe2.measure`.
        strain_size: d, the number of components of the strain.
        period: (dim, dim) lattice vectors.
        volume: of the period.
        descent: to minima of the energy, with `SolverOptions(buckling="follow")`; else None.
        layout: of a state row: "strain", the one last solved for (d,), "fluctuation", its unknowns, and "memory",
            that of the materials at the quadrature points; and if some material depends on time, "stress" (d,) and
            "time" at the end of the step, by which `set_state` works and is checked.
        state_size: of the layout.

    Raises:
        ValueError: an unknown boundary condition, a material whose stiffness at zero strain is not positive, or an
            element that does not exist, see `fe2.mean_dilatation.need_element`.
        meshes.MeshError: a mesh that does not conform to its translates (periodic only), a tag without material, an
            unknown name, a mesh that is spread over ranks.
        TypeError: another kind of mesh or material.
    """

    @renamed_arguments(cell="domain")
    def __init__(
        self,
        domain: meshes.TaggedMesh,
        materials: meshes.ByPhase[Material],
        *,
        degree: int = 2,
        boundary: str = "periodic",
        plane: str = "strain",
        element: str = "displacement",
        solver: SolverOptions = SolverOptions(),  # noqa: B008  frozen
        **former: Any,
    ):
        meshes.need_tagged_mesh(domain, "domain")
        if boundary not in CONDITIONS:
            raise ValueError(f"boundary = {boundary!r}: need one of {', '.join(map(repr, CONDITIONS))}")
        if domain.mesh.comm.size > 1:
            raise meshes.MeshError(
                f"the RVE's mesh is spread over {domain.mesh.comm.size} ranks; every rank solves whole RVEs, so "
                "build it with MPI.COMM_SELF"
            )
        self.domain = domain
        self.boundary = boundary
        self.solver = solver = _with_former(solver, former)
        self.body = Body(domain, materials, degree=degree, plane=plane, element=element)
        self.measure = self.body.measure
        self.unknowns = CONDITIONS[boundary](self.body.V, domain, self.measure)
        self.period = self.unknowns.period
        self.volume = abs(float(np.linalg.det(self.period)))
        self.stiffness = ReducedStiffness(
            self.unknowns, self.body.stiffness(), symmetric=self.body.symmetric, prefix=solver.options_prefix
        )
        self.affine = self.body.affine()
        self._carried = self.body.affine(self.unknowns.places)
        self.strain_size = self.affine.shape[1]
        self.group = max(1, min(_GROUP, _GROUP_BYTES // (8 * max(1, self.stiffness.size))))
        self._checked = not self.body.rate_dependent  # else in the first step
        if self._checked:
            check_at_zero_strain(self.body, domain.names)
        self._newton = MicroNewton(self.body, self.unknowns, self.stiffness, self._carried, self.volume, solver)
        self.descent = Descent(self._newton) if solver.buckling == "follow" else None
        if self.descent and not (self.body.rate_dependent or np.isfinite(self.body.energy())):
            raise ValueError("buckling = 'follow' needs materials with an energy: one has a stress alone")
        timed: dict[str, Any] = {"stress": self.strain_size, "time": ()} if self.body.rate_dependent else {}
        d, unknowns, memory = self.strain_size, self.unknowns.size, self.body.memory_size
        self.layout = StateLayout(strain=d, fluctuation=unknowns, memory=memory, **timed)
        self.state_size = self.layout.size
        (self._initial,) = self.layout.rows(1, memory=self.body.memory)

    @property
    def zero_stiffness(self) -> Array:
        """Values of the stiffness of the unknowns at zero strain, in the order of `ReducedStiffness.reduce`."""
        return self._newton.metric

    @property
    def cell(self) -> meshes.TaggedMesh:
        """Deprecated: `domain`."""
        warnings.warn("RVE.cell is now RVE.domain", DeprecationWarning, stacklevel=2)
        return self.domain

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of the undeformed RVE."""
        return np.tile(self._initial, (n, 1))

    def homogenise(
        self,
        strains: npt.ArrayLike | None = None,
        state: Array | None = None,
        *,
        stress: npt.ArrayLike | None = None,
        directions: npt.ArrayLike | None = None,
        guess: Array | None = None,
        fields: bool = False,
        on_failure: str = "raise",
        step: TimeStep | None = None,
    ) -> Homogenised:
        """Solve the RVE problem for each strain, or for prescribed components of strain and stress, and average.

        The result depends on the arguments alone, not on earlier calls.

        Args:
            strains: (n, d), or one strain (d,), in the components of the measure; NaN where the stress is prescribed,
                None for NaN throughout.
            state: rows (n, state_size) from the last accepted step; None for the undeformed RVE.
            stress: (n, d) or (d,), NaN where the strain is prescribed [MPa]; None for prescribed strains alone.
            directions: (d, d) orthonormal rows nₖ, if component k is to be the strain nₖ·E and the stress nₖ·S.
            guess: rows (n, state_size) whose fluctuation starts the iteration, e.g. from the last evaluation nearby;
                None for that of `state`.
            fields: also return the fluctuation and the local stress, as `displacement` and `set_state` give them.
            on_failure: "raise" NotConverged at the first point without convergence, or "report" all of them in the
                record's `failures`.
            step: from the time of `state` to that of the strains, for materials that depend on time.

        Warns:
            UnstableWarning: see `Homogenised.unstable`.

        Raises:
            ValueError: strains of wrong shape or not finite, see also `fe2.control.controls`; or no step for materials
                that depend on time.
            NotConverged: see `on_failure`.
        """
        loads = point_controls(self, strains, stress, directions)
        n, d = len(loads), self.strain_size
        for what, rows in (("state", state), ("guess", guess)):
            if rows is not None:
                arguments.state_rows("RVE", what, rows, (n, self.state_size))
        if on_failure not in ("raise", "report"):
            raise ValueError(f"on_failure = {on_failure!r}: need 'raise' or 'report'")
        out = Homogenised(
            strain=np.full((n, d), np.nan),
            stress=np.full((n, d), np.nan),
            tangent=np.full((n, d, d), np.nan),
            energy=np.full(n, np.nan),
            state=np.full((n, self.state_size), np.nan),
            iterations=np.zeros(n, dtype=np.int64),
            work=np.zeros(n),
            residual=np.full(n, np.nan),
            unstable=np.zeros(n, dtype=bool),
            fluctuation=np.full((n if fields else 0, self.body.u.x.array.size), np.nan),
            local_stress=np.full((n if fields else 0, *self.body.weights.shape, d), np.nan),
        )
        self.stiffness.reset()
        self.body.set_step(step)
        if not self._checked:
            self._check()
        for first in range(0, n, self.group):
            members = range(first, min(first + self.group, n))
            accepted = [self._initial if state is None else state[k] for k in members]
            points = [
                self._start(row, row if guess is None else guess[k]) for k, row in zip(members, accepted, strict=True)
            ]
            for k, point in zip(members, points, strict=True):
                point.prescribe(loads[k])
            self._newton.solve(points)
            for k, row, point in zip(members, accepted, points, strict=True):
                attempts = [f"from the guess: {point.stalled}"]
                if point.stalled and loads[k].turns_inside_out(self.measure):
                    attempts = ["det F is not positive: the strain turns the RVE inside out"]
                elif point.stalled and not point.hopeless:
                    point = self._in_substeps(loads[k], row, point, attempts)
                elif point.unstable and self.descent:
                    self.descent.settle(point)
                    attempts = [f"from a saddle of the energy: {point.stalled}"]
                out.iterations[k], out.work[k] = point.iterations, point.work
                if point.stalled:
                    out.failures.append(failure_at(k, loads[k], attempts))
                    if on_failure == "raise":
                        raise NotConverged(out.failures)
                    continue
                out.strain[k], out.stress[k], out.tangent[k] = point.strain, point.stress, point.tangent
                out.energy[k] = point.energy
                solved: dict[str, npt.ArrayLike] = {"strain": point.strain, "fluctuation": point.w}
                solved |= {"memory": point.updated}
                if step is not None and self.body.rate_dependent:
                    solved |= {"stress": point.stress, "time": step.end}
                (out.state[k],) = self.layout.rows(1, **solved)
                out.residual[k], out.unstable[k] = point.relative_residual, point.unstable
                if fields:
                    out.fluctuation[k] = self.displacement(out.state[k], fluctuation=True).x.array
                    out.local_stress[k] = self._local_stress(point, out.state[k])
        if out.unstable.any():
            warnings.warn(
                "some RVE problems ended in an equilibrium that is no minimum of the energy (`Homogenised.unstable`): "
                "the RVE has buckled, the material softens, or prescribed stresses do not hold it, and the equilibrium "
                "depends on the path. fe2.critical_strain finds where; fe2.SolverOptions(buckling='follow') goes on in "
                "a minimum",
                UnstableWarning,
                stacklevel=2,
            )
        return out

    def _check(self) -> None:
        self.body.memory = self.layout.view(self._initial, "memory")
        check_at_zero_strain(self.body, self.domain.names)
        self._checked = True

    def _local_stress(self, point: Point, row: Array) -> Array:
        """Stress (cells, points, d) of a converged point; where it depends on time, that of the present step."""
        if not self.body.rate_dependent:
            return self.set_state(row).stress()
        self.body.memory = point.memory
        self.body.u.x.array[:] = self.displacement(row).x.array
        return self.body.stress()

    def _start(self, accepted: Array, guess: Array) -> Point:
        """A point with the accepted state of the materials; strain, fluctuation and local unknowns are guessed."""
        view = self.layout.view
        memory = self.body.with_local(view(accepted, "memory"), view(guess, "memory"))
        return Point(view(guess, "strain").copy(), view(guess, "fluctuation").copy(), memory)

    def _in_substeps(self, control: Control, accepted: Array, failed: Point, attempts: list[str]) -> Point:
        """Solve in ever finer sub-steps from the accepted strain to what is prescribed; failures join `attempts`.

        The point is solved by itself from its accepted state, so neither neighbours nor guess matter. For the materials
        it is still one step from that state, of the whole length in time, to which the tangent belongs.
        """
        last, reached, size = self.layout.view(accepted, "strain"), 0.0, 1.0
        moves = len(control.free) > 0 or (control.strain_from(last) != last).any()
        finest = self.solver.max_substeps if moves else min(self.solver.max_substeps, 1)
        point = self._start(accepted, accepted)
        stress = self._newton.stress(point) if len(control.free) else control.stress
        point.iterations, point.work = failed.iterations, failed.work
        finite = self.measure.finite
        if finite and finest > 1:
            self._newton.solve_alone(point)  # for dw/dE there
        point.stalled = failed.stalled
        while reached < 1 and size * finest >= 1:
            start = replace(point)
            point.prescribe(control.between(last, stress, reached + size, self.measure))
            if finite and point.slope.size:  # large rotations and stretches need the predictor
                point.w = point.w - (point.strain - start.strain) @ point.slope
            self._newton.solve_alone(point)
            if self.descent and (point.unstable or (point.stalled and size * finest < 2)):
                if point.stalled:  # the path has ended: to another equilibrium from its last one
                    point.w, point.memory = start.w, start.memory
                self.descent.settle(point)
            if point.stalled:
                attempts.append(f"in {1 / size:.0f} sub-steps, at {reached + size:.4g} of the way: {point.stalled}")
                point.strain, point.w, point.memory, point.slope = start.strain, start.w, start.memory, start.slope
                point.held = start.held
                size /= 2
            else:
                reached += size
                if finite and reached % (2 * size) == 0:
                    size *= 2
        if point.stalled and self._newton.checked and not self.descent:
            attempts.append(
                "the path of equilibrium may end or branch there, as in a snap-through: "
                "fe2.SolverOptions(buckling='follow') goes on from a minimum of the energy"
            )
        return point

    # Single points.

    def displacement(self, state: Array, fluctuation: bool = False) -> fem.Function:
        """Displacement (or only its periodic fluctuation) of one state row (state_size,) as a new `fem.Function`."""
        strain, w = self.layout.view(state, "strain"), self.layout.view(state, "fluctuation")
        u = fem.Function(self.body.V, name="fluctuation" if fluctuation else self.measure.field)
        affine = self._carried - self.affine if fluctuation else self._carried
        u.x.array[:] = self.unknowns.expand(w) + affine @ strain
        return u

    def set_state(self, state: Array) -> Body:
        """Set the body to one state row (state_size,), for its strain, stress and energy.

        For materials with state the stress is that of the elastic domain at the accepted state, and for those that
        depend on time that of a step of no length from it.

        Raises:
            ValueError: materials with another stress than that, such as a dashpot beside a spring, whose stress is lost
                when the rate is; `homogenise(..., fields=True)` has it.
        """
        if self.body.rate_dependent:
            begin_without_length(self.body, float(self.layout.view(state, "time")))
        self.body.memory = self.layout.view(state, "memory")
        self.body.u.x.array[:] = self.displacement(state).x.array
        self.body.find_local()
        if self.body.rate_dependent and not np.array_equal(state, self._initial):
            mean = np.asarray(self.affine.T @ self.body.forces() / self.volume, dtype=np.float64)
            check_mean_stress(self.body, mean, self.layout.view(state, "stress"))
        return self.body

    def place(self, state: Array) -> Body:
        """The old name of `set_state`."""
        warnings.warn("RVE.place is now RVE.set_state", DeprecationWarning, stacklevel=2)
        return self.set_state(state)

    def destroy(self) -> None:
        """Free the PETSc objects."""
        self.stiffness.destroy()
