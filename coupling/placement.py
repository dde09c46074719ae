# SPDX-License-Identifier: MIT
"""Assignment of ranks to devices.

Each rank has a GPU of its own if there are enough. Otherwise several ranks share one, and the first of them is its
owner (`coupling.shared_evaluator`), with one context on each GPU, one launch for all points, and no messages. Without
GPUs each rank uses its own cores. GPUs are experimental.
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
        device: the device of this rank.
        group: the ranks of the device; the first is its owner.
    """

    device: torch.device
    group: MPI.Intracomm

    @classmethod
    def of(cls, device: "str | torch.device | Placement") -> "Placement":
        """The placement itself, or one with the device for this rank alone."""
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
        devices: of this node, such as ["cuda:0", "cuda:1"], or ["cpu"] to evaluate all points of a node on one rank;
            None for the GPUs that torch finds, or each rank's own cores without GPUs.
        log: called on rank 0 with a line for each device.

    Raises:
        ValueError: no devices, or a name that is none of torch; on all ranks.
    """
    with raise_on_all_ranks(comm):
        if devices is not None and not devices:
            raise ValueError("devices = []: need at least one, or None")
        try:
            named = [torch.device(name) for name in devices or _gpus()]
        except RuntimeError as error:
            raise ValueError(f"devices = {devices}: {error}") from error
        hardware = tuple(map(_hardware, named))
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    if all(node.allgather(not named)):
        found = Placement(torch.device("cpu"), MPI.Intracomm(node.Split(node.rank)))
    else:
        # Under a batch system, the same name may be another GPU of the node on each rank.
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
    """The unique name of the hardware, independent of its number on this rank."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else str(device)
