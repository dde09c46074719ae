# SPDX-License-Identifier: MIT
"""The interface of laws, from strain and state at n points to stress, tangent and new state; laws that solve RVEs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2 import arguments
from fe2.body import Body
from fe2.failures import Failure, NotConverged
from fe2.micro_fields import MicroFields
from fe2.ranks import raise_on_all_ranks
from fe2.rve import RVE
from fe2.state import StateLayout
from fe2.time_step import TimeStep

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a law at n points.

    Attributes:
        stress: (n, d) [MPa].
        tangent: (n, d, d), consistent dS/dE [MPa].
        state: (n, state_size) at the end of the step.
    """

    stress: Array
    tangent: Array
    state: Array

    def put(self, points: npt.NDArray[np.bool_], part: "Response") -> None:
        """Write the response of some of the points, a mask (n,), in their order."""
        self.stress[points], self.tangent[points], self.state[points] = part.stress, part.tangent, part.state


@dataclass(frozen=True, slots=True)
class MixedResponse(Response):
    """The response of a law at n points where strains or stresses are prescribed.

    Attributes:
        strain: (n, d) reached.
        energy: (n,) mean energy density [MPa].
        iterations: (n,) Newton iterations.
    """

    strain: Array
    energy: Array
    iterations: npt.NDArray[np.int64]


class Law(Protocol):
    """The interface of a law to the macroscale.

    A law may also have any of

        measure                       the `fe2.Measure` of its strain and stress; small strain without it
        layout                        the `fe2.StateLayout` of its rows, of `state_size` numbers
        micro_fields(strain, state)   the `fe2.MicroFields` at a strain (d,) and accepted state (state_size,)
        set_state(state)              the `fe2.Body` there, moved and shared by all points
        own_rves = True               each point has an RVE of its own, which exists only on the rank of the point
        rate_dependent = True         the response depends on time, and `evaluate` is called with `step=`, the
                                      `fe2.TimeStep` at whose end the strain is reached
        evaluate_mixed(...)           see `ExactLaw.evaluate_mixed`
    """

    strain_size: int
    state_size: int

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        ...

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Intracomm) -> Response:
        """Response at `strain` (n, d), collective over `comm`; each rank passes its own points, possibly none.

        Args:
            strain: (n, d) at the end of the step.
            state: (n, state_size) at its beginning, accepted; not modified.
            guess: (n, state_size), the state of the last evaluation nearby, which may speed up the solution but not
                change it.
            comm: ranks among which the work may be shared.

        Raises:
            ValueError: on all ranks, strains that are not (n, d), real and finite, or rows that are not the law's.
        """
        ...


@dataclass(frozen=True, slots=True)
class FailureOfRank(Failure):
    """A failure at a point of a rank; `point` is the index among the points that `rank` passed to the law."""

    rank: int

    def __str__(self):
        return Failure.__str__(self).replace(f"point {self.point}", f"point {self.point} of rank {self.rank}", 1)


@contextmanager
def _numbered(points: Sequence[tuple[int, int]], comm: MPI.Intracomm) -> Iterator[None]:
    """Number the failures of `NotConverged` as the ranks passed their points.

    Args:
        points: (rank, index there) of each point that is solved on this rank.
        comm: the ranks.
    """
    try:
        yield
    except NotConverged as error:
        given = [(f, *points[f.point]) for f in error.failures]
        if comm.size == 1:
            raise NotConverged([replace(f, point=k) for f, _, k in given]) from None
        raise NotConverged(
            [FailureOfRank(k, f.strain, f.attempts, rank, stress=f.stress) for f, rank, k in given]
        ) from None


class ExactLaw:
    """One RVE problem per point, spread over the ranks by the work of the last solution.

    Args:
        rve: on every rank, its mesh on MPI.COMM_SELF.

    Attributes:
        layout: "rve", see `RVE`, and "work", that of the last solution.
        rate_dependent: whether some material depends on time, so that `evaluate` needs a step.
    """

    def __init__(self, rve: RVE):
        self.rve, self.measure = rve, rve.measure
        self.strain_size = rve.strain_size
        self.rate_dependent = rve.body.rate_dependent
        self.layout = StateLayout(rve=rve.layout, work=())
        self.state_size = self.layout.size

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed RVEs."""
        return self.layout.rows(n, rve=self.rve.initial_state(n), work=1.0)

    def set_state(self, state: Array) -> Body:
        """Put the RVE's body at one state row (state_size,), see `RVE.set_state`; the next call moves the same body."""
        return self.rve.set_state(self.layout.view(state, "rve"))

    def place(self, state: Array) -> Body:
        """The old name of `set_state`."""
        warnings.warn("ExactLaw.place is now ExactLaw.set_state", DeprecationWarning, stacklevel=2)
        return self.set_state(state)

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields of one state row (state_size,), of which `strain` is a part."""
        return _exact_fields(self.rve, self.layout.view(state, "rve"))

    def evaluate(
        self,
        strain: Array,
        state: Array,
        guess: Array,
        comm: MPI.Intracomm = MPI.COMM_SELF,
        step: TimeStep | None = None,
    ) -> Response:
        """See `Law.evaluate`.

        Raises:
            ValueError: see `Law.evaluate`.
            NotConverged: on all ranks, with the failures of the first rank that had some; on several ranks each is a
                `FailureOfRank`.
        """
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
        d, m, n = self.strain_size, self.rve.state_size, len(strain)
        # Rows that go to the rank which solves the point, and rows that come back.
        task = StateLayout(strain=d, state=m, guess=m, point=())
        result = StateLayout(stress=d, tangent=(d, d), state=self.layout)
        state, work, guess = (self.layout.view(*part) for part in ((state, "rve"), (guess, "work"), (guess, "rve")))
        tasks = task.rows(n, strain=strain, state=state, guess=guess, point=np.arange(n))
        received = _send(comm, tasks, _spread(comm, work))
        tasks = np.concatenate(received)
        home = np.repeat(np.arange(comm.size), [len(r) for r in received])
        handed_in = [(int(rank), int(k)) for rank, k in zip(home, task.view(tasks, "point"), strict=True)]
        with raise_on_all_ranks(comm), _numbered(handed_in, comm):
            strain, state, guess = (task.view(tasks, name) for name in ("strain", "state", "guess"))
            h = self.rve.homogenise(strain, state, guess=guess, step=step)
            results = result.rows(len(tasks), stress=h.stress, tangent=h.tangent, rve=h.state, work=h.work)
        # Destinations grow with the point number, so what comes back rank by rank is in the original order.
        results = np.concatenate(_send(comm, results, home))
        return Response(*(np.ascontiguousarray(result.view(results, k)) for k in ("stress", "tangent", "state")))

    def evaluate_mixed(
        self,
        strain: npt.ArrayLike,
        stress: npt.ArrayLike,
        state: Array,
        guess: Array,
        directions: npt.ArrayLike | None = None,
        step: TimeStep | None = None,
    ) -> MixedResponse:
        """Response where of each component either the strain or the stress is prescribed, on this rank alone.

        The stresses are equations of the RVE's own Newton iteration, so that they cost little.

        Args:
            strain: (n, d), NaN where the stress is prescribed.
            stress: (n, d), NaN where the strain is prescribed [MPa].
            state: (n, state_size) at the beginning of the step, accepted.
            guess: (n, state_size), the state of the last evaluation nearby.
            directions: (d, d), see `RVE.homogenise`.
            step: of which the result is the end, for materials that depend on time.

        Raises:
            ValueError: see `RVE.homogenise`; rows that are not the law's.
            NotConverged: with the failures of the first point that had some.
        """
        n = len(np.asarray(strain))
        for what, rows in (("state", state), ("guess", guess)):
            arguments.state_rows(type(self).__name__, what, rows, (n, self.state_size))
        before, start = (self.layout.view(rows, "rve") for rows in (state, guess))
        h = self.rve.homogenise(strain, before, stress=stress, directions=directions, guess=start, step=step)
        after = self.layout.rows(n, rve=h.state, work=h.work)
        return MixedResponse(h.stress, h.tangent, after, h.strain, h.energy, h.iterations)


def _spread(comm: MPI.Intracomm, work: Array) -> npt.NDArray[np.int64]:
    """The rank to solve each local point, with equal shares of `work` (n,) for all ranks (collective).

    The order of the points is kept, so that most points stay on their rank, and neighbours stay together.
    """
    work = np.maximum(work, 1.0)
    mine = float(work.sum())
    before = comm.exscan(mine) or 0.0
    total = comm.allreduce(mine)
    middle = before + np.cumsum(work) - work / 2
    return np.minimum((middle / max(total, 1e-300) * comm.size).astype(np.int64), comm.size - 1)


def _send(comm: MPI.Comm, rows: Array, to: npt.NDArray[np.int64]) -> list[Array]:
    """Send each row (n, m) to its rank; returns the rows received from each rank, in rank order (collective)."""
    return comm.alltoall([rows[to == r] for r in range(comm.size)])


class VaryingLaw:
    """One RVE problem per point, each with an RVE of its own; each rank solves those of its own points.

    Args:
        rve: the mesh and the materials of all RVEs; no material has state.
        tags: (n, cells), the phases in the RVEs of this rank's n points, in the order of `fe2.law_coordinates`.

    Attributes:
        tags: as given.
        like: the argument `rve`.
        layout: "point", the number of the RVE, and "rve", see `RVE`.

    Raises:
        ValueError: tags of another shape or without material, or materials with state or that depend on time.
    """

    own_rves = True

    def __init__(self, rve: RVE, tags: npt.NDArray[np.integer]):
        count, known = rve.body.weights.shape[0], np.array(list(rve.body.materials))
        if tags.ndim != 2 or tags.shape[1] != count:
            raise ValueError(f"tags have the shape {tags.shape}, need (points, {count})")
        if not np.isin(tags, known).all():
            raise ValueError(
                f"tag {tags[~np.isin(tags, known)][0]} has no material; the tags with material are {known.tolist()}"
            )
        for material in rve.body.materials.values():
            if material.state_size or material.local_size:
                raise ValueError(
                    f"{type(material).__name__} has state or local unknowns, which no varying RVE may have"
                )
            if material.rate_dependent:
                raise ValueError(f"{type(material).__name__} depends on time, which no varying RVE may")
        self.tags, self.like, self.measure = tags, rve, rve.measure
        self.strain_size = rve.strain_size
        self.layout = StateLayout(point=(), rve=rve.layout)
        self.state_size = self.layout.size
        self._rves = dict[int, RVE]()

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed RVEs; raises ValueError for another number of points than RVEs."""
        if n != len(self.tags):
            raise ValueError(f"there are {n} points on this rank and {len(self.tags)} RVEs")
        return self.layout.rows(n, point=np.arange(n), rve=self.like.initial_state(n))

    def rve_at(self, k: int) -> RVE:
        """The RVE of the k-th point, made at the first call."""
        if k not in self._rves:
            like, tags = self.like, self.tags[k]
            materials = {tag: like.body.materials[tag] for tag in np.unique(tags).tolist()}
            self._rves[k] = RVE(
                like.domain.with_tags(tags),
                materials,
                degree=like.body.V.element.basix_element.degree,
                boundary=like.boundary,
                plane=like.body.plane,
                element=like.body.element,
                solver=like.solver,
            )
        return self._rves[k]

    def cell(self, k: int) -> RVE:
        """The old name of `rve_at`."""
        warnings.warn("VaryingLaw.cell is now VaryingLaw.rve_at", DeprecationWarning, stacklevel=2)
        return self.rve_at(k)

    def set_state(self, state: Array) -> Body:
        """Put the body of the point's RVE at one state row (state_size,), see `RVE.set_state`."""
        return self._rve_of(state).set_state(self.layout.view(state, "rve"))

    def place(self, state: Array) -> Body:
        """The old name of `set_state`."""
        warnings.warn("VaryingLaw.place is now VaryingLaw.set_state", DeprecationWarning, stacklevel=2)
        return self.set_state(state)

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields of one state row (state_size,), of which `strain` is a part."""
        return _exact_fields(self._rve_of(state), self.layout.view(state, "rve"))

    def _rve_of(self, state: Array) -> RVE:
        return self.rve_at(int(self.layout.view(state, "point")))

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Intracomm = MPI.COMM_SELF) -> Response:
        """See `Law.evaluate`.

        Raises:
            ValueError: see `Law.evaluate`.
            NotConverged: on all ranks, with the failures of the first rank that had some; on several ranks each is a
                `FailureOfRank`.
        """
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
            strain = np.asarray(strain, dtype=np.float64)
            n, d = strain.shape
            out = Response(np.empty((n, d)), np.empty((n, d, d)), guess.copy())
            before, start, after = (self.layout.view(rows, "rve") for rows in (state, guess, out.state))
            for i in range(n):
                one = slice(i, i + 1)
                with _numbered([(comm.rank, i)], comm):
                    h = self._rve_of(state[i]).homogenise(strain[one], before[one], guess=start[one])
                out.stress[one], out.tangent[one], after[one] = h.stress, h.tangent, h.state
        return out

    def destroy(self) -> None:
        """Free the PETSc objects of all RVEs."""
        for rve in self._rves.values():
            rve.destroy()
        self._rves.clear()


def _exact_fields(rve: RVE, row: Array) -> MicroFields:
    """The fields of a state row (state_size,) of an RVE, with a displacement of its own."""
    body = rve.set_state(row)
    return MicroFields(rve.displacement(row), body.strain(), body.stress(), rve)
