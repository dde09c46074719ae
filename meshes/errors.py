# SPDX-License-Identifier: MIT
"""The exception of this package, and errors on rank 0 raised on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mpi4py import MPI

T = TypeVar("T")


class MeshError(ValueError):
    """A mesh, or its description, is invalid; the message names the fault and the remedy."""


def on_root(comm: MPI.Intracomm, work: Callable[[], T]) -> T | None:
    """Call ``work`` on rank 0 alone; an error there is raised on every rank, so that none waits in a collective call.

    Args:
        comm: communicator; the call is collective.
        work: function without arguments.

    Returns:
        The result of ``work`` on rank 0, None on the others.

    Raises:
        MeshError: ``work`` raised; the same message on all ranks.
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
