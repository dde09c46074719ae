# SPDX-License-Identifier: MIT
"""The exception of this package, and how an error on one rank reaches all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mpi4py import MPI

T = TypeVar("T")


class MeshError(ValueError):
    """A mesh, or the description of one, that cannot be used: what is wrong, and what would be right."""


def on_root(comm: MPI.Intracomm, work: Callable[[], T]) -> T | None:
    """Do ``work`` on rank 0 alone; an error there is raised on every rank, so that no rank waits for a dead one.

    Args:
        comm: communicator; the call is collective.
        work: function without arguments.

    Returns:
        The result of ``work`` on rank 0, None on the others.

    Raises:
        MeshError: ``work`` raised (its own error on rank 0, the same sentence on the others).
    """
    result, error = None, None
    if comm.rank == 0:
        try:
            result = work()
        except Exception as caught:  # every error must reach the other ranks before it ends this one
            error = caught if isinstance(caught, MeshError) else MeshError(f"{type(caught).__name__}: {caught}")
            error.__cause__ = None if error is caught else caught
    message = comm.bcast(None if error is None else str(error), root=0)
    if message is not None:
        raise error if error is not None else MeshError(message)
    return result
