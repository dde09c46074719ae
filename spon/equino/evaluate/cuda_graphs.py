# SPDX-License-Identifier: MIT
"""How batches of any size get to a device and back.

Few points are a question of launches: what is to be done is recorded once, as a CUDA graph for batches of up to a size,
and replayed as one launch, between copies from and to pinned memory. Many points are a question of transfers: chunks
alternate between two streams, so that one is computed while another is on its way.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Respond = Callable[[Tensor, Tensor, Tensor], None]

SIZES = (256, 1024, 4096, 16384)  # of the batches that are recorded; between two, rows are computed for nothing


class Launches:
    """Evaluations of NumPy arrays on a device.

    Args:
        respond: (strain, stress, tangent), writes stress (n, d) and tangent (n, d, d) of strains (n, d), float64 on the
            device. d: strain components.
        device: a GPU; with "cpu" nothing is recorded and everything else is the same, which is for tests.
        chunk: points on their way at a time, at most. recorded: whether small batches are; `respond` must not ask the
            device for anything then.
    """

    def __init__(self, respond: Respond, d: int, device: torch.device, chunk: int, recorded: bool = True):
        self._respond, self._d, self.device, self.chunk = respond, d, device, chunk
        self._sizes = [size for size in SIZES if size <= chunk] if recorded else []
        self._recorded: dict[int, _Recorded] = {}
        self._slots: list[list[Tensor]] = []
        self._streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2)]

    def __call__(self, strain: Array, stress: Array, tangent: Array) -> None:
        """Write stress (n, d) and tangent (n, d, d) at strains (n, d)."""
        n = len(strain)
        if not n:
            return
        arrays = [torch.from_numpy(a) for a in (np.ascontiguousarray(strain), stress, tangent)]
        size = next((s for s in self._sizes if n <= s), 0)
        if not size:
            return self._stream(*arrays)
        if size not in self._recorded:
            self._recorded[size] = _Recorded(self._respond, _room(size, self._d, self.device), self.device)
        self._recorded[size](*arrays)

    def _stream(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        if not self._slots:
            self._slots = [_room(self.chunk, self._d, self.device) for _ in range(2)]
        try:
            for k, first in enumerate(range(0, len(strain), self.chunk)):
                part = slice(first, first + self.chunk)
                # A slot's last copies are done before its next begin: they are of one stream.
                with _on(self._streams[k % 2]):
                    given, *found = (room[: len(strain[part])] for room in self._slots[k % 2])
                    given.copy_(strain[part], non_blocking=True)
                    self._respond(given, *found)
                    for out, values in zip((stress, tangent), found, strict=True):
                        out[part].copy_(values, non_blocking=True)
        finally:
            # Also after an error: nothing is on its way any more into memory that may be given back.
            for stream in self._streams:
                if stream is not None:
                    stream.synchronize()


class _Recorded:
    """One evaluation of a number of points, recorded as a graph where there is a GPU."""

    def __init__(self, respond: Respond, room: list[Tensor], device: torch.device):
        self._here, self._work = room, lambda: respond(*room)
        self._host = [torch.zeros_like(x, device="cpu", pin_memory=device.type == "cuda") for x in room]
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            with torch.cuda.device(device):
                # What is compiled or allocated at the first time cannot be recorded.
                with torch.cuda.stream(self._stream):
                    for _ in range(3):
                        respond(*room)
                self._stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self._stream):
                    respond(*room)
            self._work = graph.replay

    def __call__(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        n = len(strain)
        (given, *found), (given_host, *found_host) = self._here, self._host
        given_host[:n] = strain
        try:
            with _on(self._stream):
                given[:n].copy_(given_host[:n], non_blocking=True)
                self._work()
                for host, here in zip(found_host, found, strict=True):
                    host[:n].copy_(here[:n], non_blocking=True)
        finally:
            if self._stream is not None:
                self._stream.synchronize()
        for out, host in zip((stress, tangent), found_host, strict=True):
            out.copy_(host[:n])


def _on(stream: "torch.cuda.Stream | None") -> contextlib.AbstractContextManager:
    """What is launched goes to this stream; None: there is no GPU."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def empty(shape: tuple[int, ...], device: torch.device) -> Array:
    """An array for results of a device; for a GPU of pages that stay where they are, so that it writes them itself
    while others are computed. torch keeps those of before."""
    if device.type == "cuda":
        return torch.empty(shape, dtype=torch.float64, pin_memory=True).numpy()
    return np.empty(shape)


def _room(size: int, d: int, device: torch.device) -> list[Tensor]:
    """For strains, stresses and tangents. What no point is written to stays a strain of zero, or an old one."""
    room = [torch.zeros(size, *shape, dtype=torch.float64, device=device) for shape in ((d,), (d,), (d, d))]
    if device.type == "cuda":
        # Other streams are about to use it, and what the kernels read, which was written on the current one.
        torch.cuda.synchronize(device)
    return room
