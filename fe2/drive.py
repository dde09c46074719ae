# SPDX-License-Identifier: MIT
"""A path of prescribed strains and stresses at one point of a law, as in a material test.

The free strains of a step are found from the stresses prescribed in their place. A law with `evaluate_mixed`, such as
that of an RVE, does so in its own iteration; for others Newton's method uses their tangent. It has converged when the
prescribed stresses s are reached, ‖F S − s‖ ≤ tolerance · max(‖S‖, ‖s‖), where S is the stress now, or before the step
if it was larger (after unloading there is none); or once they stagnate at the rounding of a stress as large as the
tangent.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2.body import LocalError
from fe2.control import Control, NoStiffness, check_stiffness, controls, solve_free
from fe2.failures import NotConverged
from fe2.laws import Law
from fe2.measure import measure_of
from fe2.newton import StepFailed
from fe2.phases import need_law
from fe2.quadrature import NotFinite
from fe2.ranks import raise_on_all_ranks
from fe2.step_length import take_step
from fe2.time_step import TimeStep, require_step, respond

Array = npt.NDArray[np.float64]

# A residual not halved within _SLOW iterations stagnates, one not halved within two is compared with rounding.
_STAGNATION, _SLOW = 0.5, 8

_FAILURES = (NotConverged, LocalError, NotFinite, StepFailed, NoStiffness)


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """The response of a law along a path, in the components of its strain and stress.

    Attributes:
        strain: (steps, d).
        stress: (steps, d) [MPa].
        tangent: (steps, d, d), consistent dS/dE [MPa].
        state: (steps, state_size) at the end of each step.
        energy: (steps,) energy density [MPa], NaN where the law does not say it.
        iterations: (steps,) Newton iterations, of the RVE if the law has `evaluate_mixed`, else for the free strains;
            in a step that was cut those of all its parts that converged.
        cuts: (steps,) how often the step was halved.
        time: (steps,) as given, or None.
    """

    strain: Array
    stress: Array
    tangent: Array
    state: Array
    energy: Array
    iterations: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.int64]
    time: Array | None


def drive(
    law: Law,
    *,
    strain: npt.ArrayLike | None = None,
    stress: npt.ArrayLike | None = None,
    time: npt.ArrayLike | None = None,
    directions: npt.ArrayLike | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 25,
    max_cuts: int = 6,
    comm: MPI.Intracomm = MPI.COMM_SELF,
) -> Path:
    """Follow prescribed strains and stresses from the undeformed state, at one point.

    At each step each component has either its strain or its stress prescribed, and NaN in the other's place. A step
    that fails is halved: prescribed values then move on lines from those that strain and stress have before the step.

    Args:
        law: any law.
        strain: (steps, d), NaN where the stress is prescribed; None for NaN throughout.
        stress: (steps, d), NaN where the strain is prescribed [MPa]; None for NaN throughout.
        time: (steps,), increasing, of the ends of the steps, for a law that depends on time; the first step begins at
            time 0.
        directions: (d, d) orthonormal rows nₖ, if component k is to be the strain nₖ·E and the stress nₖ·S.
        tolerance: of prescribed stresses, relative to the size of the stress; a law with `evaluate_mixed` uses its own.
        max_iterations: Newton iterations of a step before it is halved.
        max_cuts: how often a step may be halved.
        comm: the ranks of the law's evaluations, see below.

    Each rank drives a path of its own unless `comm` has more than one; then all of its ranks drive one path, for a law
    that needs them: the arguments are those of rank 0, which has the point, and all ranks return the path.

    Raises:
        ValueError: a component with both strain and stress or with neither, directions that are not orthonormal, or
            another argument out of its range; no time for a law that depends on it.
        StepFailed: a step also failed in parts; names the step, what was prescribed, and why.
        TypeError: a value that is no law.

    Example:
        A tensile test: strain along x, no stress in the other components:

            strain = np.full((20, 6), np.nan)
            strain[:, 0] = np.linspace(0.0, 0.01, 21)[1:]
            path = fe2.drive(fe2.ExactLaw(rve), strain=strain, stress=np.where(np.isnan(strain), 0.0, np.nan))
            young = path.stress[0, 0] / path.strain[0, 0]
    """
    strain, stress, time, directions, tolerance, max_iterations, max_cuts = comm.bcast(
        (strain, stress, time, directions, tolerance, max_iterations, max_cuts)
    )
    need_law(law)
    if not tolerance > 0:
        raise ValueError(f"tolerance = {tolerance}: need a positive number")
    if max_iterations < 1 or max_cuts < 0:
        raise ValueError(f"max_iterations = {max_iterations}, max_cuts = {max_cuts}: need at least 1 and 0")
    steps = controls(strain, stress, directions, law.strain_size, "step")
    for k, control in enumerate(steps):
        if control.turns_inside_out(measure_of(law)):
            raise ValueError(f"step {k} prescribes the strain {control.strain.tolist()}, where det F is not positive")
    times = None if time is None else _times(time, len(steps))
    if times is None and getattr(law, "rate_dependent", False):
        require_step(type(law).__name__, None)
    driver = _Driver(law, comm, tolerance, max_iterations)
    found = [driver.advance(k, control, max_cuts, times) for k, control in enumerate(steps)]
    d, m = law.strain_size, law.state_size
    return Path(
        np.array([f.strain for f in found]).reshape(-1, d),
        np.array([f.stress for f in found]).reshape(-1, d),
        np.array([f.tangent for f in found]).reshape(-1, d, d),
        np.concatenate([np.empty((0, m)), *(comm.bcast(f.state) for f in found)]),
        np.array([f.energy for f in found], dtype=np.float64),
        np.array([f.iterations for f in found], dtype=np.int64),
        np.array([f.cuts for f in found], dtype=np.int64),
        times,
    )


def _times(given: npt.ArrayLike, steps: int) -> Array:
    time = np.array(given, dtype=np.float64)
    if time.shape != (steps,):
        raise ValueError(f"time has the shape {time.shape}, need ({steps},), one for each step")
    before = np.concatenate([[0.0], time[:-1]])
    if not (time > before).all():
        k = int(np.flatnonzero(~(time > before))[0])
        raise ValueError(f"time of step {k} is {time[k]}: need more than {before[k]}, when the step begins")
    return time


@dataclass(slots=True)
class _Point:
    """The response at a strain; on all ranks, but for the state, which has no row on ranks other than the first."""

    strain: Array  # (d,)
    stress: Array  # (d,)
    tangent: Array  # (d, d)
    state: Array  # (1 or 0, state_size)
    energy: float = np.nan
    iterations: int = 0
    cuts: int = 0

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.stress).all() and np.isfinite(self.tangent).all())


class _Driver:
    """The law with its accepted state.

    Args:
        law: the law.
        comm: its ranks.
        tolerance: see `drive`.
        max_iterations: see `drive`.
    """

    def __init__(self, law: Any, comm: MPI.Intracomm, tolerance: float, max_iterations: int):
        self.law, self.comm, self.tolerance, self.max_iterations = law, comm, tolerance, max_iterations
        self.mine = slice(0, 1 if comm.rank == 0 else 0)  # the point is on the first rank
        with raise_on_all_ranks(comm):
            self.state = law.initial_state(1 if comm.rank == 0 else 0)
        self.guess = self.state
        self.strain = np.zeros(law.strain_size)
        self.stress: Array | None = None  # not known before it is asked for
        self.time_step: TimeStep | None = None  # of what is solved

    def advance(self, step: int, control: Control, max_cuts: int, times: Array | None) -> _Point:
        """Solve a step, in parts if it must be, and accept it; raises StepFailed."""
        begin, stress = self.strain, self.stress
        begin_time = 0.0 if times is None or step == 0 else float(times[step - 1])
        length = 0.0 if times is None else float(times[step]) - begin_time
        reached, size, iterations, cuts = 0.0, 1.0, 0, 0
        while reached < 1:
            if times is not None:
                self.time_step = TimeStep(begin_time + reached * length, size * length)
            part = control if stress is None else control.between(begin, stress, reached + size, measure_of(self.law))
            try:
                found = self._solve(part)
            except _FAILURES as error:
                if cuts == max_cuts:
                    where = f"step {step}, from {reached:.4g} to {reached + size:.4g} of the way to {control}"
                    raise StepFailed(f"{where}, after {cuts} cuts: {error}") from error
                cuts, size, self.guess = cuts + 1, size / 2, self.state
                if stress is None:
                    stress = self._finite(self._respond(begin)).stress
            else:
                self.strain, self.stress, self.state, self.guess = found.strain, found.stress, found.state, found.state
                reached, iterations = reached + size, iterations + found.iterations
        found.iterations, found.cuts = iterations, cuts
        return found

    def _solve(self, control: Control) -> _Point:
        """The response with what is prescribed, from the accepted state; raises one of _FAILURES."""
        if hasattr(self.law, "evaluate_mixed"):
            return self._finite(self._respond_mixed(control))
        if not len(control.free):
            return self._finite(self._respond(control.strain_from(self.strain)))
        return self._newton(control)

    def _newton(self, control: Control) -> _Point:
        """Newton's method for the free strains, see the head of this module."""
        free, target = control.free, control.target
        at, iterations = self._finite(self._respond(control.strain_from(self.strain))), 0
        gap = free @ at.stress - target
        sizes = [_norm(gap)]
        least = max(_norm(target), 0.0 if self.stress is None else _norm(self.stress))
        while not self._is_small(sizes, max(least, _norm(at.stress)), at):
            if iterations == self.max_iterations:
                raise StepFailed(f"no convergence in {iterations} iterations ({_shown(sizes)})")
            if len(sizes) > _SLOW and sizes[-1] > _STAGNATION * sizes[-1 - _SLOW]:
                raise StepFailed(
                    f"the prescribed stresses stagnate ({_shown(sizes)}, stress {_norm(at.stress):.3g}); a law "
                    f"of few digits needs a larger tolerance than {self.tolerance}"
                )
            e = solve_free(free @ at.tangent @ free.T, gap, at.tangent)

            def trial(length: float, strain: Array = at.strain, e: Array = e) -> tuple[float, float]:
                nonlocal at, gap
                at = self._respond(strain - length * (e @ free))
                gap = free @ at.stress - target
                return _norm(gap), float(gap @ e)

            take_step(trial, sizes[-1], float(gap @ e))
            self._finite(at)
            iterations += 1
            sizes.append(_norm(gap))
        check_stiffness(free @ at.tangent @ free.T, at.tangent)
        at.iterations = iterations
        return at

    def _is_small(self, sizes: list[float], scale: float, at: _Point) -> bool:
        """Whether the stresses prescribed are reached, or stagnate at rounding."""
        if sizes[-1] <= self.tolerance * scale:
            return True
        stagnates = len(sizes) > 2 and sizes[-1] > _STAGNATION * sizes[-3]
        return stagnates and sizes[-1] <= float(np.finfo(np.float64).eps) * _norm(at.tangent)

    def _respond(self, strain: Array) -> _Point:
        """The response of the law at a strain (collective)."""
        strain = self.comm.bcast(strain)
        found = respond(self.law, strain[None][self.mine], self.state, self.guess, self.comm, self.time_step)
        self.guess = found.state
        stress, tangent = self.comm.bcast((found.stress[self.mine], found.tangent[self.mine]))
        return _Point(strain, stress[0], tangent[0], found.state)

    def _respond_mixed(self, control: Control) -> _Point:
        """The response of a law that finds free strains itself, on the first rank (collective)."""
        at, state = None, self.state
        with raise_on_all_ranks(self.comm):
            if self.comm.rank == 0:
                given = control.strain[None], control.stress[None]
                r = self.law.evaluate_mixed(*given, state, self.guess, control.directions, self.time_step)
                at = _Point(r.strain[0], r.stress[0], r.tangent[0], state[:0], r.energy[0], int(r.iterations[0]))
                state = r.state
        return replace(self.comm.bcast(at), state=state)

    def _finite(self, at: _Point) -> _Point:
        if not at.is_finite:
            raise StepFailed(f"the law returned a stress or tangent that is not finite at the strain {at.strain}")
        return at


def _norm(a: Array) -> float:
    return float(np.linalg.norm(a))


def _shown(sizes: list[float]) -> str:
    return f"residuals of the stress {', '.join(f'{s:.2e}' for s in sizes[-8:])}"
