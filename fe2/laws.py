# SPDX-License-Identifier: MIT
"""Laws: what maps strain and state at n points to stress, tangent and new state."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2.body import Body
from fe2.ranks import send, spread, together
from fe2.rve import RVE

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Response:
    """stress: (n, d) [MPa]. tangent: (n, d, d) consistent dS/dE [MPa]. state: (n, state_size) at the step's end."""

    stress: Array
    tangent: Array
    state: Array


class Law(Protocol):
    """The one interface that the macroscale knows; strain may be any measure of `strain_size` components."""

    strain_size: int
    state_size: int

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        ...

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm) -> Response:
        """Response at `strain` (n, d), collective over `comm`; each rank hands in its own points, possibly none.

        Args:
            strain: at the end of the step.
            state: at its beginning; accepted, and never changed here.
            guess: the state of the last evaluation nearby, which may speed up the solution but not change it.
            comm: ranks among which the work may be shared.
        """
        ...


class ExactLaw:
    """One RVE problem per point, spread over the ranks by the work that the points took last time.

    A state row is that of the RVE with the work of its last solve as one more number.

    Args:
        rve: on every rank, its mesh on MPI.COMM_SELF.
    """

    def __init__(self, rve: RVE):
        self.rve = rve
        self.strain_size = rve.strain_size
        self.state_size = rve.state_size + 1

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed RVEs."""
        return np.hstack([self.rve.initial_state(n), np.ones((n, 1))])

    def place(self, state: Array) -> Body:
        """The body of the RVE at one state row (state_size,); see `RVE.place`. The next call moves the same body."""
        return self.rve.place(state[:-1])

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `Law.evaluate`.

        Raises:
            NotConverged: on all ranks, with the failures of the first rank that had some.
        """
        d, m = self.strain_size, self.rve.state_size
        to = spread(comm, guess[:, -1])
        received = send(comm, np.hstack([strain, state[:, :m], guess[:, :m]]), to)
        rows = np.concatenate(received)
        with together(comm):
            h = self.rve.homogenise(rows[:, :d], rows[:, d : d + m], guess=rows[:, d + m :])
            solved = np.hstack([h.stress, h.tangent.reshape(len(rows), d * d), h.state, h.work[:, None]])
        home = np.repeat(np.arange(comm.size), [len(r) for r in received])
        # Destinations grow with the point number, so what comes back rank by rank is in the original order.
        solved = np.concatenate(send(comm, solved, home))
        return Response(
            np.ascontiguousarray(solved[:, :d]),
            solved[:, d : d + d * d].reshape(-1, d, d),
            np.ascontiguousarray(solved[:, d + d * d :]),
        )
