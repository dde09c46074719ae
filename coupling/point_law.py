# SPDX-License-Identifier: MIT
"""Laws for other programs: a function of arrays, with the state of its points."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2 import Law, TimeStep, arguments, mandel, raise_on_all_ranks
from fe2.measure import SMALL_STRAIN, measure_of
from fe2.phases import need_law
from fe2.time_step import respond

Array = npt.NDArray[np.float64]
Notation = Literal["Mandel", "engineering"]


class PointResponse(NamedTuple):
    """Response of n points.

    Attributes:
        stress: (n, d) [MPa].
        tangent: (n, d, d), consistent [MPa].
    """

    stress: Array
    tangent: Array


def check_notation(notation: str) -> None:
    """Raise ValueError for a notation that is not one of `Notation`."""
    if notation not in get_args(Notation):
        raise ValueError(f"notation = {notation!r}, need {' or '.join(map(repr, get_args(Notation)))}")


class PointLaw:
    """A law at n points as a function of their strains.

        respond = coupling.PointLaw(law, 100)
        stress, tangent = respond(strain)  # (100, d) and (100, d, d), any number of times
        respond.accept()                   # accept the step; the next one starts from it

    Args:
        law: any `fe2.Law`.
        n: points of this rank.
        comm: ranks among which the law may share its work; the function is then collective.
        notation: of strains, stresses and tangents: "Mandel", or "engineering" with shears γ = 2 ε and the components
            of the stress tensor, both in the order of `fe2.mandel`; other measures than the small strain have their own
            components, see `fe2.measure`, and the first of the two.

    Attributes:
        state: (n, state_size) at the last accepted step.

    Raises:
        ValueError: another notation, fewer than 0 points, or engineering notation of another measure.
        TypeError: a value that is no law.
    """

    def __init__(self, law: Law, n: int, *, comm: MPI.Intracomm = MPI.COMM_SELF, notation: Notation = "Mandel"):
        check_notation(notation)
        need_law(law)
        if n < 0:
            raise ValueError(f"n = {n} points, need 0 or more")
        self.law, self.comm = law, comm
        measure, ones = measure_of(law), np.ones(law.strain_size)
        if notation == "engineering" and measure is not SMALL_STRAIN:
            raise ValueError(f"notation = 'engineering': is for small strains, and the law takes a {measure.name}")
        # Engineering shears are √2 times those of Mandel vectors, stresses a √2-th.
        self._factor = mandel.to_engineering(ones) if notation == "engineering" else ones
        self.state = self._last = law.initial_state(n)

    def __call__(self, strain: npt.ArrayLike, step: TimeStep | None = None) -> PointResponse:
        """Stress (n, d) and consistent tangent (n, d, d) [MPa] at strains (n, d) of the end of the step.

        Args:
            strain: (n, d).
            step: in time, for a law that depends on it; the same on all ranks.

        Raises:
            ValueError: strains of another shape, not finite or not real; no step for a law that depends on time.
            Exception: any error of the law.
        """
        with raise_on_all_ranks(self.comm):
            if np.shape(strain) != (len(self.state), self.law.strain_size):
                need, what = (len(self.state), self.law.strain_size), measure_of(self.law).component_names
                raise ValueError(f"strain has the shape {np.shape(strain)}, need {need} {what}")
            given = np.ascontiguousarray(arguments.strains(strain, self.law))
        found = respond(self.law, given / self._factor, self.state, self._last, self.comm, step)
        self._last = found.state
        return PointResponse(found.stress / self._factor, found.tangent / np.outer(self._factor, self._factor))

    def accept(self) -> None:
        """Accept the step: the next one starts from the state of the last evaluation."""
        self.state = self._last

    def reject(self) -> None:
        """Reject the step: discard the evaluations since the last `accept`."""
        self._last = self.state
