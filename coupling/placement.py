# SPDX-License-Identifier: MIT
"""Which device serves which ranks.

With a GPU for each rank, each rank has its own. With fewer, several ranks share one, and the first of them is its owner
(`coupling.shared_evaluator`): one context on each GPU, one launch for all points, and no messages. Without a GPU each
rank has its own cores. GPUs are experimental.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mpi4py import MPI

from fe2 import raise_on_all_ranks


@dataclass(frozen=True, slots=True)
class Placement:
    """The device of a rank.

    Attributes:
        device: that serves this rank.
        group: the ranks that it serves; the first is its owner.
    """

    device: torch.device
    group: MPI.Intracomm

    @classmethod
    def of(cls, device: "str | torch.device | Placement") -> "Placement":
        """A placement, or a device that this rank has alone."""
        return device if isinstance(device, Placement) else cls(torch.device(device), MPI.COMM_SELF)

    @property
    def owner(self) -> bool:
        """Whether this rank evaluates for the group."""
        return self.group.rank == 0


def assign_devices(
    comm: MPI.Intracomm, devices: Sequence[str] | None = None, log: Callable[[str], None] | None = None
) -> Placement:
    """Spread the ranks of each node over its devices, neighbours together (collective).

    Args:
        comm: all ranks.
        devices: of this node, such as ["cuda:0", "cuda:1"], or ["cpu"] for one rank that computes for all of a node;
            None for the GPUs that torch finds, and for the rank's own cores if there are none.
        log: called on rank 0 with a line for each device.

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
        hardware = tuple(map(_hardware, named))
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    if all(node.allgather(not named)):
        found = Placement(torch.device("cpu"), MPI.Intracomm(node.Split(node.rank)))
    else:
        # A batch system may show each rank another GPU of the node under the same name.
        lists = node.allgather(hardware)
        peers = node.Split(lists.index(hardware), key=node.rank)
        number = peers.rank * len(named) // max(peers.size, len(named))
        device = named[number] if named else torch.device("cpu")
        found = Placement(device, MPI.Intracomm(peers.Split(number, key=peers.rank)))
        peers.Free()
    node.Free()
    if log is not None:
        ranks = found.group.gather(comm.rank)
        lines: list[str | None] | None = comm.gather(
            f"{MPI.Get_processor_name()}: {found.device} for ranks {ranks}" if ranks else None
        )
        with raise_on_all_ranks(comm):
            for line in filter(None, lines or ()):
                log(line)
    return found


def _gpus() -> list[str]:
    return [f"cuda:{k}" for k in range(torch.cuda.device_count())]


def _hardware(device: torch.device) -> str:
    """The name of the piece of hardware, whatever its number is on this rank."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else str(device)
