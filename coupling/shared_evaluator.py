# SPDX-License-Identifier: MIT
"""Evaluation of a model on the device of a group of ranks, all of their points in one batch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.placement import Placement
from fe2 import raise_on_all_ranks
from spon import Evaluator, Model

Array = npt.NDArray[np.float64]


class SharedEvaluator:
    """Evaluation of the points of all ranks of a group by the rank that owns the device.

    The ranks write their strains side by side into memory that they share, the owner evaluates them, and each rank
    reads its own results.

    Args:
        model: the model; only the owner copies it to the device.
        placement: device and ranks, see `coupling.assign_devices`.
        **options: of `spon.Evaluator`.

    Attributes:
        way: kind of evaluation, see `spon.Evaluator`.

    Raises:
        ValueError: as `spon.Evaluator`, on all ranks of the group.
    """

    def __init__(self, model: Model, placement: Placement, **options: Any):
        self.placement, self._d = placement, model.strain_size
        with raise_on_all_ranks(placement.group):
            # Only the owner creates a CUDA context.
            self._evaluator = Evaluator(model, placement.device, **options) if placement.owner else None
        self.way: str = placement.group.bcast(self._evaluator.way if self._evaluator is not None else None)
        self._window: MPI.Win | None = None
        self._memory: Array = np.empty(0)
        self._pinned = False

    def __call__(self, strain: Array, comm: MPI.Comm) -> tuple[Array, Array]:
        """Stress (n, d) and tangent (n, d, d) [MPa] of this rank's strains (n, d) (collective).

        Args:
            strain: (n, d).
            comm: ranks on which an error of any is raised, all of the group among them.

        Raises:
            ValueError: a communicator of fewer ranks than the group.
        """
        group = self.placement.group
        if comm.size < group.size:
            raise ValueError(f"{group.size} ranks share {self.placement.device}, but evaluate together on {comm.size}")
        if group.size > 1:
            return self._evaluate_shared(strain, comm)
        with raise_on_all_ranks(comm):
            assert self._evaluator is not None
            return self._evaluator(strain)

    def _evaluate_shared(self, strain: Array, comm: MPI.Comm) -> tuple[Array, Array]:
        group, n, d = self.placement.group, len(strain), self._d
        # After this exchange all ranks have read their results of the last call.
        counts = group.allgather(n)
        total, first = sum(counts), sum(counts[: group.rank])
        if total * d * (2 + d) > self._memory.size:
            self._allocate(total * d * (2 + d))
        ends = np.cumsum([total * d, total * d, total * d * d])
        given, stress, tangent = (
            self._memory[end - total * int(np.prod(shape)) : end].reshape(total, *shape)
            for end, shape in zip(ends, ((d,), (d,), (d, d)), strict=True)
        )
        mine = slice(first, first + n)
        given[mine] = strain
        self._synchronise()
        with raise_on_all_ranks(comm):
            if self._evaluator is not None and total:
                self._evaluator.fill(given, stress, tangent)
        self._synchronise()
        return stress[mine].copy(), tangent[mine].copy()

    def _synchronise(self) -> None:
        """Synchronise the shared memory of the group."""
        if self._window is not None:
            self._window.Sync()
            self.placement.group.Barrier()
            self._window.Sync()

    def _allocate(self, count: int) -> None:
        """Share memory for a number of float64 numbers (collective in the group)."""
        self.destroy()
        size = MPI.DOUBLE.Get_size()
        self._window = MPI.Win.Allocate_shared(
            count * size if self.placement.owner else 0, size, comm=self.placement.group
        )
        self._window.Lock_all(MPI.MODE_NOCHECK)
        self._memory = np.frombuffer(self._window.Shared_query(0)[0], np.float64, count)  # type: ignore[call-overload]  # a buffer
        if self.placement.owner and self.placement.device.type == "cuda":
            # Page-locked memory, which the GPU reads and writes directly.
            code = torch.cuda.cudart().cudaHostRegister(self._memory.ctypes.data, self._memory.nbytes, 0)
            self._pinned = int(code) == 0

    def destroy(self) -> None:
        """Free the shared memory (collective in the group)."""
        if self._window is None:
            return
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._memory.ctypes.data)
            self._pinned = False
        self._memory = np.empty(0)
        self._window.Unlock_all()
        self._window.Free()
        self._window = None
