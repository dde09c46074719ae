# SPDX-License-Identifier: MIT
"""Laws: what maps strain and state at n points to stress, tangent and new state."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2 import arguments
from fe2.body import Body
from fe2.micro_fields import MicroFields
from fe2.ranks import send, spread, together
from fe2.rve import RVE, Failure, NotConverged

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Response:
    """stress: (n, d) [MPa]. tangent: (n, d, d) consistent dS/dE [MPa]. state: (n, state_size) at the step's end."""

    stress: Array
    tangent: Array
    state: Array


class Law(Protocol):
    """The one interface that the macroscale knows; strain may be any measure of `strain_size` components.

    A law that knows what goes on inside of its points also has, for `fe2.MicroPoint`, any of

        micro_fields(strain, state)   the `fe2.MicroFields` at a strain (d,) and accepted state (state_size,)
        place(state)                  the `fe2.Body` there, moved and shared by all points
        own_cells = True              each point has a cell of its own, which only the rank of the point knows
    """

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

        Raises:
            ValueError: on all ranks, strains that are not (n, d), real and finite, or rows that are not the law's.
        """
        ...


@dataclass(frozen=True, slots=True)
class FailureOfRank(Failure):
    """A failure at a point of a rank: `point` counts those that `rank` has handed in, wherever solved."""

    rank: int

    def __str__(self):
        return Failure.__str__(self).replace(f"point {self.point}", f"point {self.point} of rank {self.rank}", 1)


@contextmanager
def _numbered(points: Sequence[tuple[int, int]], comm: MPI.Comm) -> Iterator[None]:
    """Have `NotConverged` name the points as they were handed in; `points`: rank and number there of each solved."""
    try:
        yield
    except NotConverged as error:
        given = [(f, *points[f.point]) for f in error.failures]
        if comm.size == 1:
            raise NotConverged([Failure(k, f.strain, f.attempts) for f, _, k in given]) from None
        raise NotConverged([FailureOfRank(k, f.strain, f.attempts, rank) for f, rank, k in given]) from None


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

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields of one state row (state_size,), of which `strain` is a part."""
        return _exact_fields(self.rve, state[:-1])

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `Law.evaluate`.

        Raises:
            ValueError: see `Law.evaluate`. NotConverged: on all ranks, with the failures of the first rank that had
            some; on several ranks each is a `FailureOfRank`.
        """
        d, m = self.strain_size, self.rve.state_size
        with together(comm):
            strain, state, guess = arguments.rows(self, strain, state, guess)
        to = spread(comm, guess[:, -1])
        numbers = np.arange(len(strain))[:, None]
        received = send(comm, np.hstack([strain, state[:, :m], guess[:, :m], numbers]), to)
        rows = np.concatenate(received)
        home = np.repeat(np.arange(comm.size), [len(r) for r in received])
        with together(comm), _numbered(list(zip(home.tolist(), rows[:, -1].astype(int).tolist())), comm):
            h = self.rve.homogenise(rows[:, :d], rows[:, d : d + m], guess=rows[:, d + m : -1])
            solved = np.hstack([h.stress, h.tangent.reshape(len(rows), d * d), h.state, h.work[:, None]])
        # Destinations grow with the point number, so what comes back rank by rank is in the original order.
        solved = np.concatenate(send(comm, solved, home))
        return Response(
            np.ascontiguousarray(solved[:, :d]),
            solved[:, d : d + d * d].reshape(-1, d, d),
            np.ascontiguousarray(solved[:, d + d * d :]),
        )


class VaryingLaw:
    """One RVE problem per point, of a cell that only this point has; each rank solves those of its own points.

    A state row begins with the number of the point's cell, and goes on as that of the RVE.

    Args:
        rve: of a cell with the mesh that all share, and with their materials, which have no state.
        tags: (n, cells), the phases of the cells of this rank's n points, in the order of `QuadratureLaw.places`.

    Attributes:
        tags: as given. like: the RVE that was given.

    Raises:
        ValueError: tags of another shape or without material, or materials with state.
    """

    own_cells = True

    def __init__(self, rve: RVE, tags: npt.NDArray[np.integer]):
        count, known = rve.body.weights.shape[0], np.array(list(rve.body.materials))
        if tags.ndim != 2 or tags.shape[1] != count:
            raise ValueError(f"tags have the shape {tags.shape}, need (points, {count})")
        if not np.isin(tags, known).all():
            raise ValueError(f"tag {tags[~np.isin(tags, known)][0]} has no material, there are {known.tolist()}")
        for material in rve.body.materials.values():
            if material.state_size or material.local_size:
                raise ValueError(
                    f"{type(material).__name__} has state or local unknowns, which no varying cell may have"
                )
        self.tags, self.like = tags, rve
        self.strain_size = rve.strain_size
        self.state_size = rve.state_size + 1
        self._rves = dict[int, RVE]()

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed RVEs; raises ValueError for another number of points than cells."""
        if n != len(self.tags):
            raise ValueError(f"there are {n} points on this rank and {len(self.tags)} cells")
        return np.hstack([np.arange(n)[:, None], self.like.initial_state(n)])

    def cell(self, k: int) -> RVE:
        """The RVE of the k-th point, made when it is asked for first."""
        if k not in self._rves:
            like, tags = self.like, self.tags[k]
            materials = {tag: like.body.materials[tag] for tag in np.unique(tags).tolist()}
            self._rves[k] = RVE(
                like.domain.with_tags(tags),
                materials,
                degree=like.body.V.element.basix_element.degree,
                boundary=like.boundary,
                plane=like.body.plane,
                solver=like.solver,
            )
        return self._rves[k]

    def place(self, state: Array) -> Body:
        """The body of the point's cell at one state row (state_size,)."""
        return self.cell(int(state[0])).place(state[1:])

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields of one state row (state_size,), of which `strain` is a part."""
        return _exact_fields(self.cell(int(state[0])), state[1:])

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `Law.evaluate`.

        Raises:
            ValueError: see `Law.evaluate`. NotConverged: on all ranks, with the failures of the first rank that had
            some; on several ranks each is a `FailureOfRank`.
        """
        with together(comm):
            strain, state, guess = arguments.rows(self, strain, state, guess)
            n, d = strain.shape
            out = Response(np.empty((n, d)), np.empty((n, d, d)), guess.copy())
            for i, k in enumerate(state[:, 0].astype(int).tolist()):
                with _numbered([(comm.rank, i)], comm):
                    h = self.cell(k).homogenise(strain[i : i + 1], state[i : i + 1, 1:], guess=guess[i : i + 1, 1:])
                out.stress[i], out.tangent[i], out.state[i, 1:] = h.stress[0], h.tangent[0], h.state[0]
        return out

    def destroy(self) -> None:
        """Free the PETSc objects of all cells."""
        for rve in self._rves.values():
            rve.destroy()
        self._rves.clear()


def _exact_fields(rve: RVE, row: Array) -> MicroFields:
    """What a state row (state_size,) of an RVE says, with a displacement of its own."""
    body = rve.place(row)
    return MicroFields(rve.displacement(row), body.strain(), body.stress(), rve)
