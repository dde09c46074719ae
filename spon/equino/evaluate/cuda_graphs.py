# SPDX-License-Identifier: MIT
"""Batches of any size on a GPU. Experimental: never run on a GPU so far.

For few points the launches of kernels take most of the time: the evaluation is recorded once, as a CUDA graph for
batches up to a size, and replayed as one launch, between copies from and to pinned memory. For many points transfers
take most of the time: chunks alternate between two streams, so that one is evaluated while another is transferred.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.equino.evaluate.experimental import warn_never_run_on_a_gpu

Array = npt.NDArray[np.float64]
Evaluate = Callable[[Tensor, Tensor, Tensor], None]

SIZES = (256, 1024, 4096, 16384)  # of recorded batches; smaller ones are padded
_WARM_UP = 3  # evaluations before recording, in which kernels are compiled and memory is allocated


class CudaGraphs:
    """Evaluation of NumPy arrays on a GPU. Experimental: never run on a GPU so far.

    Args:
        evaluate: function (strain, stress, tangent) that writes stress (n, d) and tangent (n, d, d) at strains (n, d),
            float64 tensors on the device.
        d: strain components.
        device: a GPU. With "cpu", for tests, nothing is recorded and the rest is the same.
        chunk: points of a transfer, at most.
        recorded: whether small batches are recorded; if so, `evaluate` must not synchronise with the device.
    """

    def __init__(self, evaluate: Evaluate, d: int, device: torch.device, chunk: int, recorded: bool = True):
        if device.type == "cuda":
            warn_never_run_on_a_gpu()
        self._evaluate, self._d, self.device, self.chunk = evaluate, d, device, chunk
        self._sizes = [size for size in SIZES if size <= chunk] if recorded else []
        self._recorded: dict[int, _Recorded] = {}
        self._slots: list[list[Tensor]] = []
        self._streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2)]

    def __call__(self, strain: Array, stress: Array, tangent: Array) -> None:
        """Write stress and tangent to arrays.

        Args:
            strain: (n, d).
            stress: (n, d) [MPa], written.
            tangent: (n, d, d) [MPa], written.
        """
        n = len(strain)
        if not n:
            return
        arrays = [torch.from_numpy(a) for a in (np.ascontiguousarray(strain), stress, tangent)]
        size = next((s for s in self._sizes if n <= s), 0)
        if not size:
            return self._stream(*arrays)
        if size not in self._recorded:
            self._recorded[size] = _Recorded(self._evaluate, _buffers(size, self._d, self.device), self.device)
        self._recorded[size](*arrays)

    def _stream(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        if not self._slots:
            self._slots = [_buffers(self.chunk, self._d, self.device) for _ in range(2)]
        try:
            for k, first in enumerate(range(0, len(strain), self.chunk)):
                part = slice(first, first + self.chunk)
                # The last copies of a slot end before its next ones begin: they are on one stream.
                with _on(self._streams[k % 2]):
                    given, *found = (buffer[: len(strain[part])] for buffer in self._slots[k % 2])
                    given.copy_(strain[part], non_blocking=True)
                    self._evaluate(given, *found)
                    for out, values in zip((stress, tangent), found, strict=True):
                        out[part].copy_(values, non_blocking=True)
        finally:
            # Also after an error: no transfer may continue into memory that the caller frees.
            for stream in self._streams:
                if stream is not None:
                    stream.synchronize()


class _Recorded:
    """One evaluation of a fixed number of points, recorded as a graph on a GPU."""

    def __init__(self, evaluate: Evaluate, buffers: list[Tensor], device: torch.device):
        self._buffers, self._run = buffers, lambda: evaluate(*buffers)
        self._host = [torch.zeros_like(x, device="cpu", pin_memory=device.type == "cuda") for x in buffers]
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            with torch.cuda.device(device):
                with torch.cuda.stream(self._stream):
                    for _ in range(_WARM_UP):
                        evaluate(*buffers)
                self._stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self._stream):
                    evaluate(*buffers)
            self._run = graph.replay

    def __call__(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        n = len(strain)
        (given, *found), (given_host, *found_host) = self._buffers, self._host
        given_host[:n] = strain
        try:
            with _on(self._stream):
                given[:n].copy_(given_host[:n], non_blocking=True)
                self._run()
                for host, here in zip(found_host, found, strict=True):
                    host[:n].copy_(here[:n], non_blocking=True)
        finally:
            if self._stream is not None:
                self._stream.synchronize()
        for out, host in zip((stress, tangent), found_host, strict=True):
            out.copy_(host[:n])


def _on(stream: "torch.cuda.Stream | None") -> contextlib.AbstractContextManager:
    """Make the stream current; a no-op for None, without a GPU."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def empty(shape: tuple[int, ...], device: torch.device) -> Array:
    """An uninitialised array for results of a device.

    For a GPU its memory is pinned, so that the GPU writes to it during other evaluations; torch reuses pinned memory.
    """
    if device.type == "cuda":
        return torch.empty(shape, dtype=torch.float64, pin_memory=True).numpy()
    return np.empty(shape)


def _buffers(size: int, d: int, device: torch.device) -> list[Tensor]:
    """Strains, stresses and tangents of `size` points. Strains of padding are zero, or those of an earlier batch."""
    buffers = [torch.zeros(size, *shape, dtype=torch.float64, device=device) for shape in ((d,), (d,), (d, d))]
    if device.type == "cuda":
        # Other streams use the buffers and the parameters next, which the current stream has written.
        torch.cuda.synchronize(device)
    return buffers
