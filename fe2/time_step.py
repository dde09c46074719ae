# SPDX-License-Identifier: MIT
"""Steps in time, for materials and laws whose response depends on the length of a step or on time itself."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from dolfinx import fem

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimeStep:
    """A step in time, in any unit that the materials have, too.

    Args:
        begin: time at its beginning.
        length: its duration, positive.

    Raises:
        ValueError: a time that is not finite, or a length that is not positive.
    """

    begin: float
    length: float

    def __post_init__(self):
        if not isfinite(self.begin):
            raise ValueError(f"TimeStep: begin = {self.begin}, need a finite time")
        if not (isfinite(self.length) and self.length > 0):
            raise ValueError(f"TimeStep: length = {self.length}, need a finite time above 0")

    @property
    def end(self) -> float:
        """Time at its end."""
        return self.begin + self.length


def require_step(what: str, step: object) -> TimeStep:
    """The step that a response which depends on time needs.

    Args:
        what: has the response, for the message.
        step: as given.

    Raises:
        ValueError: there is none.
        TypeError: something else.
    """
    if step is None:
        raise ValueError(
            f"{what} depends on time and got no step: need MacroProblem.solve(duration=...), "
            "QuadratureLaw.update(step=fe2.TimeStep(begin, length)), fe2.drive(time=...) or "
            "rve.homogenise(step=fe2.TimeStep(begin, length))"
        )
    if not isinstance(step, TimeStep):
        raise TypeError(f"{what}: step = {step!r}, need a fe2.TimeStep(begin, length)")
    return step


def respond(law: Any, strain: Array, state: Array, guess: Array, comm: MPI.Intracomm, step: TimeStep | None) -> Any:
    """`law.evaluate` with the step if the law depends on time, and without it if not (collective).

    Args:
        law: a `fe2.Law`.
        strain: see `fe2.Law.evaluate`.
        state: see `fe2.Law.evaluate`.
        guess: see `fe2.Law.evaluate`.
        comm: see `fe2.Law.evaluate`.
        step: of which `strain` is the end; the same on all ranks.

    Raises:
        ValueError: the law depends on time, and there is no step.
        Exception: any error of the law.
    """
    if not getattr(law, "rate_dependent", False):
        return law.evaluate(strain, state, guess, comm)
    return law.evaluate(strain, state, guess, comm, step=require_step(type(law).__name__, step))


class StepConstants:
    """Length and end of the present step as constants of UFL: a new step needs no compilation.

    They are NaN until the first step, so that no response is that of a step which nobody has given.

    Args:
        mesh: on which the materials are evaluated.
    """

    def __init__(self, mesh):
        self.dt, self.time = (fem.Constant(mesh, np.float64(np.nan)) for _ in range(2))

    def set(self, step: TimeStep) -> None:
        """Begin a step."""
        self.dt.value, self.time.value = step.length, step.end
