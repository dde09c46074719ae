# SPDX-License-Identifier: MIT
"""Evaluation of a model at many points, from and to NumPy arrays, in the fastest way on a device."""

import contextlib
import copy
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.constitutive.measure import Measure
from spon.equino.evaluate.c_response import compiled_response, response_network
from spon.equino.evaluate.cuda_graphs import CudaGraphs, Evaluate, empty
from spon.equino.networks import Branch
from spon.reduced.model import Model

Array = npt.NDArray[np.float64]

CHUNKS = {"cpu": 1024, "cuda": 131072}  # fits in a core's cache; hides a transfer behind an evaluation


class Prediction(NamedTuple):
    """Stress (n, d) and tangent (n, d, d) [MPa] of n points."""

    stress: Array
    tangent: Array


class Evaluator:
    """A copy of a model that evaluates many points on a device.

    It runs as machine code on a CPU and as one kernel on a GPU; in torch without a compiler or Triton, for wide layers,
    and for models other than `spon.EquiNO`. Evaluation on a GPU is experimental: it has never run on a GPU so far.

    Args:
        model: such as `spon.EquiNO`.
        device: "cpu", or a GPU such as "cuda:0".
        dtype: precision of the evaluation; results are float64 in any case.
        tangent_dtype: precision of the tangent, used by the GPU kernel only; None for `dtype`.
        chunk: points that torch evaluates at a time; None for 1,024 on a CPU and 131,072 on a GPU.
        compiled: whether to use machine code or the GPU kernel; else torch evaluates.

    Attributes:
        model: the copy.

    Raises:
        ValueError: a chunk below 1.
        ValueError: a device that does not exist.
        ValueError: precisions that the GPU kernel does not support.
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
        self._code = compiled_response(model, dtype) if compiled and device.type == "cpu" else None
        self._fused = _fused(model, device, dtype, tangent_dtype) if compiled and device.type == "cuda" else None
        self._gpu = None
        if device.type == "cuda":
            # Models of other classes may synchronise with the GPU, which cannot be recorded.
            recorded = response_network(model) is not None and not model.measure.finite
            self._gpu = CudaGraphs(self._fused or self._by_torch, model.strain_size, device, self.chunk, recorded)

    @property
    def way(self) -> Literal["machine code", "fused kernel", "torch"]:
        """The kind of evaluation."""
        if self._code is not None:
            return "machine code"
        return "torch" if self._fused is None else "fused kernel"

    def __call__(self, strain: Array) -> Prediction:
        """Stress and tangent at strains.

        Args:
            strain: (n, d).

        Raises:
            ValueError: strains of another shape.
        """
        strain = np.asarray(strain, dtype=np.float64)
        if strain.ndim != 2 or strain.shape[1] != self.model.strain_size:
            raise ValueError(f"strains have the shape {strain.shape}, the model takes (n, {self.model.strain_size})")
        found = Prediction(*(empty(shape, self.device) for shape in (strain.shape, (*strain.shape, strain.shape[1]))))
        self.fill(strain, *found)
        return found

    def fill(self, strain: Array, stress: Array, tangent: Array) -> None:
        """Write stress and tangent to arrays.

        Args:
            strain: (n, d) float64.
            stress: (n, d) float64 [MPa], written.
            tangent: (n, d, d) float64 [MPa], written.
        """
        if self._code is not None:
            self._code.fill(strain, stress, tangent)
        elif self._gpu is not None:
            self._gpu(strain, stress, tangent)
        else:
            arrays = [torch.from_numpy(a) for a in (np.ascontiguousarray(strain), stress, tangent)]
            for parts in zip(*(a.split(self.chunk) for a in arrays), strict=True):
                self._by_torch(*parts)

    @torch.no_grad()
    def _by_torch(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        with _full_precision():
            for out, values in zip((stress, tangent), self.model(strain.to(self.dtype)), strict=True):
                out.copy_(values)


class _Turned:
    """A function of coordinates, at finite strain, as a function of strains, see `spon.constitutive.measure`.

    Args:
        at: writes stress (n, s) and tangent (n, s, s) at coordinates (n, s), all float64.
        measure: of the strains.
    """

    def __init__(self, at: Evaluate, measure: Measure):
        self._at, self._measure = at, measure

    @torch.no_grad()
    def __call__(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        for out, values in zip((stress, tangent), self._measure.respond(self._respond, strain), strict=True):
            out.copy_(values)

    def _respond(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        n, s = coordinates.shape
        found = coordinates.new_empty(n, s), coordinates.new_empty(n, s, s)
        self._at(coordinates.contiguous(), *found)
        return found


def _device(name: str | torch.device) -> torch.device:
    """The CPU, or a GPU with its number; ValueError if it does not exist."""
    device = torch.device(name)
    if device.type not in CHUNKS:
        raise ValueError(f"device = {str(device)!r}: need 'cpu' or 'cuda'")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if not count:
        raise ValueError(f"device = {str(device)!r}: torch {torch.__version__} finds no GPU here, need 'cpu'")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise ValueError(f"device = {str(device)!r}: torch finds {count} GPUs here, the last is 'cuda:{count - 1}'")
    return torch.device("cuda", index)


def _fused(
    model: Model, device: torch.device, dtype: torch.dtype, tangent_dtype: torch.dtype | None
) -> Evaluate | None:
    """The model as one kernel; None without Triton, or for a model of another kind or with wide layers."""
    known = response_network(model)
    if known is None or importlib.util.find_spec("triton") is None:
        return None
    from spon.equino.evaluate.triton_response import WIDEST, FusedResponse  # needs Triton

    network, means, measure = known
    if max(network.widths if isinstance(network, Branch) else [network.width]) > WIDEST:
        return None
    d = model.lower.numel()
    try:  # an older Triton, or a GPU with less shared memory, may fail to compile it
        kernel: Evaluate = FusedResponse(network, means, device=device, dtype=dtype, tangent_dtype=tangent_dtype)
        if measure.finite:
            kernel, d = _Turned(kernel, measure), measure.size
        kernel(*(torch.zeros(1, *shape, dtype=torch.float64, device=device) for shape in ((d,), (d,), (d, d))))
    except ValueError:  # arguments that the kernel does not support
        raise
    except Exception as error:  # Triton's classes differ from version to version
        warnings.warn(f"the model cannot be one kernel on {device} and is evaluated by torch: {error}", stacklevel=4)
        return None
    return kernel


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Without TF32, which the program may have allowed: products in float32 keep 23 bits instead of 10."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
