# SPDX-License-Identifier: MIT
"""Distribution of points over ranks, and errors that are raised on all ranks."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from mpi4py import MPI


@contextmanager
def raise_on_all_ranks(comm: MPI.Comm) -> Iterator[None]:
    """Run rank-local work; if it raises on any rank, raise that error on every rank (collective).

    The block must not make collective calls: a rank that fails before one would leave the others waiting in it.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as e:
        error = e
    errors = [e for e in comm.allgather(_portable(error)) if e is not None]
    if error is not None:
        raise error
    if errors:
        raise errors[0]


def _portable(error: Exception | None) -> Exception | None:
    """The error itself if it can be pickled, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def spread(comm: MPI.Intracomm, work: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The rank to solve each local point, with equal shares of `work` (n,) for all ranks (collective).

    The order of the points is kept, so that most points stay on their rank, and neighbours stay together.
    """
    work = np.maximum(work, 1.0)
    mine = float(work.sum())
    before = comm.exscan(mine) or 0.0
    total = comm.allreduce(mine)
    middle = before + np.cumsum(work) - work / 2
    return np.minimum((middle / max(total, 1e-300) * comm.size).astype(np.int64), comm.size - 1)


def send(comm: MPI.Comm, rows: npt.NDArray[np.float64], to: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
    """Send each row (n, m) to its rank; returns the rows received from each rank, in rank order (collective)."""
    return comm.alltoall([rows[to == r] for r in range(comm.size)])
