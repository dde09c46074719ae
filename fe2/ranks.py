# SPDX-License-Identifier: MIT
"""Errors that are raised on all ranks."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

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
