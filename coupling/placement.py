# SPDX-License-Identifier: MIT
"""Which device serves which ranks, and how ranks reach one that they share.

With a GPU for each rank, everyone has its own. With fewer, several ranks share one, of which the first is the owner:
all write their strains side by side into memory that they have in common (a shared window of MPI-3), the owner
evaluates them as one batch, and everyone reads what is its own. So there is one context on each GPU and one launch for
all points, and nothing is sent. Without a GPU each rank has the cores that it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from fe2 import raise_on_all_ranks
from spon.equino.evaluate.cuda_graphs import empty

Array = npt.NDArray[np.float64]
Fill = Callable[[Array, Array, Array], None]


@dataclass(frozen=True, slots=True)
class Placement:
    """device: that serves this rank. group: the ranks that it serves, of which the first is its owner."""

    device: torch.device
    group: MPI.Intracomm

    @property
    def owner(self) -> bool:
        return self.group.rank == 0


def assign_devices(
    comm: MPI.Intracomm, devices: Sequence[str] | None = None, log: Callable[[str], None] | None = None
) -> Placement:
    """Spread the ranks of each node over its devices, neighbours together (collective).

    Args:
        comm: all ranks. devices: of this node, such as ["cuda:0", "cuda:1"], or ["cpu"] for one rank that computes for
            all of a node; None for the GPUs that torch sees, and for the rank's own cores if there are none.
        log: takes a line for each device, on rank 0.

    Raises:
        ValueError: no devices, or a name that torch does not know; on all ranks.
    """
    with raise_on_all_ranks(comm):
        if devices is not None and not devices:
            raise ValueError("devices = []: need one at least, or None")
        try:
            named = [torch.device(name) for name in devices or _gpus()]
        except RuntimeError as error:
            raise ValueError(f"devices = {devices}: {error}") from error
        seen = tuple(map(_identity, named))
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    if all(node.allgather(not named)):
        found = Placement(torch.device("cpu"), node.Split(node.rank))
    else:
        # A batch system may let each rank see another GPU of the node, under the same name.
        lists = node.allgather(seen)
        peers = node.Split(lists.index(seen), key=node.rank)
        number = peers.rank * len(named) // max(peers.size, len(named))
        found = Placement(named[number] if named else torch.device("cpu"), peers.Split(number, key=peers.rank))
        peers.Free()
    node.Free()
    if log is not None:
        ranks = found.group.gather(comm.rank)
        lines: list[str | None] | None = comm.gather(
            f"{MPI.Get_processor_name()}: {found.device} for ranks {ranks}" if ranks else None
        )
        for line in filter(None, lines or ()):
            log(line)
    return found


def _gpus() -> list[str]:
    return [f"cuda:{k}" for k in range(torch.cuda.device_count())]


def _identity(device: torch.device) -> str:
    """The name of the piece of hardware, whatever its number is on this rank."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else str(device)


class SharedBatch:
    """Evaluations of all points of a group of ranks as one batch of its owner.

    Args:
        placement: see `assign_devices`.
        fill: (strain, stress, tangent), writes stress (n, d) and tangent (n, d, d) of strains
            (n, d); it is called on the owner alone. strain_size: d.
    """

    def __init__(self, placement: Placement, fill: Fill, strain_size: int):
        self.placement, self._fill, self._d = placement, fill, strain_size
        self._window: MPI.Win | None = None
        self._memory, self._pinned = np.empty(0), False

    def __call__(self, strain: Array, comm: MPI.Comm) -> tuple[Array, Array]:
        """Stress (n, d) and tangent (n, d, d) of this rank's strains (n, d) (collective).

        `comm`: ranks that go on together, with all of the group; what one of them raises, all of them raise.

        Raises:
            ValueError: a communicator of fewer ranks than the group.
        """
        group, n, d = self.placement.group, len(strain), self._d
        if comm.size < group.size:
            raise ValueError(f"{group.size} ranks share {self.placement.device}, but evaluate together on {comm.size}")
        if group.size == 1:
            stress, tangent = (empty(shape, self.placement.device) for shape in ((n, d), (n, d, d)))
            with raise_on_all_ranks(comm):
                self._fill(strain, stress, tangent)
            return stress, tangent
        # When all have said how many they have, all have read what was there before.
        counts = group.allgather(n)
        total, first = sum(counts), sum(counts[: group.rank])
        if total * d * (2 + d) > self._memory.size:
            self._make_room(total * d * (2 + d))
        given, stress, tangent = (
            part.reshape(total, *shape)
            for part, shape in zip(
                np.split(self._memory[: total * d * (2 + d)], [total * d, 2 * total * d]), [(d,), (d,), (d, d)]
            )
        )
        mine = slice(first, first + n)
        given[mine] = strain
        self._meet()
        with raise_on_all_ranks(comm):
            if self.placement.owner and total:
                self._fill(given, stress, tangent)
        self._meet()
        return stress[mine].copy(), tangent[mine].copy()

    def _meet(self) -> None:
        """What any of the group has written is there for all of it."""
        if self._window is not None:
            self._window.Sync()
            self.placement.group.Barrier()
            self._window.Sync()

    def _make_room(self, count: int) -> None:
        self.destroy()
        size = MPI.DOUBLE.Get_size()
        self._window = MPI.Win.Allocate_shared(
            count * size if self.placement.owner else 0, size, comm=self.placement.group
        )
        self._window.Lock_all(MPI.MODE_NOCHECK)
        self._memory = np.ndarray(count, dtype=np.float64, buffer=self._window.Shared_query(0)[0])
        if self.placement.owner and self.placement.device.type == "cuda":
            # Pages that stay where they are, so that the GPU reads and writes them itself.
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
