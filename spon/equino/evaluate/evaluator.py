# SPDX-License-Identifier: MIT
"""Evaluation of a model at many points, NumPy arrays in and out, in the fastest way that a device has for it."""

import contextlib
import copy
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.equino.evaluate.c_response import compiled_response, response_network
from spon.equino.evaluate.cuda_graphs import Launches, Respond, empty
from spon.equino.networks import Branch
from spon.reduced.model import Model

Array = npt.NDArray[np.float64]

CHUNKS = {"cpu": 1024, "cuda": 131072}  # what fits a core's cache; what hides a transfer behind another


class Evaluator:
    """A copy of a model on a device.

    Args:
        model: e.g. `spon.EquiNO`. device: "cpu" or a GPU. dtype: in which precision; results are float64 in any case.
        tangent_dtype: that of the tangent, if a lower one will do; it is used by the fused kernel alone.
        chunk: points that torch evaluates at a time; None for some thousand on a CPU and some 100,000 on a GPU.
        compiled: whether machine code may be used on a CPU, and the fused kernel on a GPU; where there is no compiler
            or no Triton, or for a model of another kind than `spon.EquiNO` or with wide layers, torch does it.

    Attributes:
        model: the copy. way: "machine code", "fused kernel" or "torch".

    Raises:
        ValueError: a chunk below 1, a device that is not there, or precisions that the kernel does not have.
    """

    def __init__(
        self,
        model: Model,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
        *,
        tangent_dtype: torch.dtype | None = None,
        chunk: int | None = None,
        compiled: bool = True,
    ):
        device = _device(device)
        self.chunk = CHUNKS[device.type] if chunk is None else chunk
        if self.chunk < 1:
            raise ValueError(f"chunk = {chunk}: need at least 1 point")
        self.device, self.dtype = device, dtype
        self.model = copy.deepcopy(model).to(device, dtype).requires_grad_(False).eval()
        self.way: Literal["machine code", "fused kernel", "torch"] = "torch"
        self._code = compiled_response(model, dtype) if compiled and device.type == "cpu" else None
        self._launches = None
        if self._code is not None:
            self.way = "machine code"
        elif device.type == "cuda":
            fused = _fused(model, device, dtype, tangent_dtype) if compiled else None
            self.way = "torch" if fused is None else "fused kernel"
            # What another class asks the GPU for on the way is not known, and may be what cannot be recorded.
            recorded = response_network(model) is not None
            self._launches = Launches(fused or self._by_torch, model.lower.numel(), device, self.chunk, recorded)

    def __call__(self, strain: Array) -> tuple[Array, Array]:
        """Stress (n, d) and tangent (n, d, d) [MPa] at strains (n, d); raises ValueError for another shape."""
        strain = np.asarray(strain, dtype=np.float64)
        if strain.ndim != 2 or strain.shape[1] != self.model.lower.numel():
            raise ValueError(f"strains have the shape {strain.shape}, the model takes (n, {self.model.lower.numel()})")
        stress, tangent = (empty(shape, self.device) for shape in (strain.shape, (*strain.shape, strain.shape[1])))
        self.fill(strain, stress, tangent)
        return stress, tangent

    def fill(self, strain: Array, stress: Array, tangent: Array) -> None:
        """Write stress (n, d) and tangent (n, d, d) [MPa] at strains (n, d), all float64."""
        if self._code is not None:
            real = self._code.dtype
            found = [a if a.dtype == real else np.empty(a.shape, real) for a in (stress, tangent)]
            self._code(np.ascontiguousarray(strain, real), *found)
            for out, values in zip((stress, tangent), found, strict=True):
                if values is not out:
                    out[:] = values
        elif self._launches is not None:
            self._launches(strain, stress, tangent)
        else:
            arrays = [torch.from_numpy(a) for a in (np.ascontiguousarray(strain), stress, tangent)]
            for parts in zip(*(a.split(self.chunk) for a in arrays), strict=True):
                self._by_torch(*parts)

    @torch.no_grad()
    def _by_torch(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        with _full_precision():
            for out, values in zip((stress, tangent), self.model(strain.to(self.dtype)), strict=True):
                out.copy_(values)


def _device(name: str | torch.device) -> torch.device:
    """A CPU, or a GPU that is there, with its number."""
    device = torch.device(name)
    if device.type not in CHUNKS:
        raise ValueError(f"device = {str(device)!r}: need 'cpu' or 'cuda'")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if not count:
        raise ValueError(f"device = {str(device)!r}: torch {torch.__version__} sees no GPU here, need 'cpu'")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise ValueError(f"device = {str(device)!r}: torch sees {count} GPUs here, the last is 'cuda:{count - 1}'")
    return torch.device("cuda", index)


def _fused(model: Model, device: torch.device, dtype: torch.dtype, tangent_dtype: torch.dtype | None) -> Respond | None:
    """The model as one kernel, where there is Triton and it is of a kind and of widths that the kernel knows."""
    known = response_network(model)
    if known is None or importlib.util.find_spec("triton") is None:
        return None
    from spon.equino.evaluate.triton_response import WIDEST, FusedResponse  # which need Triton

    network, means = known
    if max(network.widths if isinstance(network, Branch) else [network.width]) > WIDEST:
        return None
    d = model.lower.numel()
    try:  # an older Triton, or a GPU with less memory on its multiprocessors, may not have what it takes
        kernel = FusedResponse(network, means, device=device, dtype=dtype, tangent_dtype=tangent_dtype)
        kernel(*(torch.zeros(1, *shape, dtype=torch.float64, device=device) for shape in ((d,), (d,), (d, d))))
    except ValueError:  # of what was asked for
        raise
    except Exception as error:  # of classes that Triton has in one version or another
        warnings.warn(f"the model cannot be one kernel on {device} and is evaluated by torch: {error}", stacklevel=4)
        return None
    return kernel


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Products in float32 are made in float32: TF32, which a program may have allowed, has 10 bits for a stress."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
