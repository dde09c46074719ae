# SPDX-License-Identifier: MIT
"""Stress and tangent of a model as machine code.

The formulas are those of `spon.equino.networks.Potential.forward` and `Branch.with_tangent`, which are the reference
and serve training, GPUs and machines without a compiler.
"""

import ctypes
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.equino.model import EquiNO
from spon.equino.networks import Branch, Potential
from spon.jit import Compiled, compiler, or_torch, source
from spon.reduced.model import Model

_REALS = {torch.float64: ("double", np.float64), torch.float32: ("float", np.float32)}


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A network's response in C.

    text: the source. constants: of the compilation, but for REAL, SINGLE and LANES. parameters: the C struct `network`,
    in double, as `set_rest` is to complete it. numbers: that the code keeps for each point. cache: bytes that they
    should stay in.
    """

    text: str
    constants: dict[str, str | int]
    parameters: npt.NDArray[np.float64]
    numbers: int
    cache: int

    def lanes(self, size: int = 8) -> int:
        """Points side by side, 8 to 64, so that what they need, in numbers of `size` bytes, is in the cache, and no
        danger to a thread's stack; 0 if a few are too many for it."""
        lanes = 64
        while lanes > 64 // size and size * lanes * self.numbers > self.cache:
            lanes //= 2
        return lanes if size * lanes * self.numbers <= 2**20 else 0


def written(network: Potential | Branch, means: Tensor | None = None) -> Written:
    """The response of a potential, or of a branch to the coefficients of modes with these means (d, r)."""
    return _potential(network) if isinstance(network, Potential) else _branch(network, means)


@torch.no_grad()
def _potential(network: Potential) -> Written:
    (a1, a2, a3), (c1, c2, _) = network.weights, network.offsets
    d, w = network.half_range.numel(), network.width
    parts = (torch.zeros(d), network.stiffness, network.half_range, network.scale, _smoothing2(network), a1, c1, a2, c2,
             a3, _metrics(network))  # fmt: skip
    constants: dict[str, str | int] = {"D": d, "K": len(network.norms.maps), "WIDTH": w}
    return Written(_text("potential.c"), constants, _row(parts), w * (2 * d + 6), 2**19)


@torch.no_grad()
def _branch(network: Branch, means: Tensor | None) -> Written:
    d, k = network.half_range.numel(), len(network.norms.maps)
    linear, last, constant = network.to_stress(means)
    layers = zip(network.weights[:-1], network.offsets[:-1], strict=True)
    chain = [part for layer in layers for part in layer]
    through_zero = torch.tensor(float(network.linear is not None))
    parts = (-constant, through_zero, network.half_range, _smoothing2(network), linear, last, *chain,
             _metrics(network))  # fmt: skip
    most = max(d + k, *network.widths)
    constants: dict[str, str | int] = {
        "D": d,
        "K": k,
        "LAYERS": "".join(f"LAYER({a},{b})" for a, b in pairwise((d + k, *network.widths))),
        "CHAIN": sum(part.numel() for part in chain),
        "LAST": network.widths[-1],
        "MOST": most,
        "SWISH": int(network.activation == "swish"),
    }
    return Written(_text("branch.c"), constants, _row(parts), 2 * most * (1 + d), 2**16)


def _text(file: str) -> str:
    own = (source(__package__, name) for name in ("layers.h", file, "response.c"))
    return source("spon.constitutive", "lanes.h") + "".join(own)


def _smoothing2(network: Potential | Branch) -> Tensor:
    return torch.tensor(network.norms.smoothing**2, dtype=torch.float64)


def _metrics(network: Potential | Branch) -> Tensor:
    """Of the norms; zeros where there are none, since C has no array of no numbers."""
    d = network.half_range.numel()
    return network.norms.metrics() if len(network.norms.maps) else torch.zeros(1, d, d)


def _row(parts: tuple[Tensor, ...]) -> npt.NDArray[np.float64]:
    return np.concatenate([part.detach().cpu().double().numpy().ravel() for part in parts])


class CompiledResponse(Compiled):
    """Stress and tangent of a network, as its parameters are now.

    Args:
        network: of which a copy of the parameters is taken. means: (d, r) of the stress modes of a branch.
        dtype: float64 or float32.

    Raises:
        ValueError: another dtype, or layers too wide for a thread's stack. OSError: no compiler, or one that fails;
        says what it said.
    """

    def __init__(
        self, network: Potential | Branch, means: Tensor | None = None, dtype: torch.dtype = torch.float64
    ):  # fmt: skip
        if dtype not in _REALS:
            raise ValueError(f"dtype = {dtype}: need torch.float64 or torch.float32")
        real, self.dtype = _REALS[dtype]
        self.strain_size = network.half_range.numel()
        code = written(network, means)
        lanes = code.lanes(np.dtype(self.dtype).itemsize)
        if not lanes:
            raise ValueError("the network's layers are too wide for machine code, where torch is as fast")
        super().__init__(code.text, {"REAL": real, "SINGLE": int(real == "float"), "LANES": lanes} | code.constants)
        self._network = code.parameters.astype(self.dtype)
        self.library.set_rest(ctypes.c_void_p(self._network.ctypes.data))

    def __call__(self, strain: npt.NDArray, stress: npt.NDArray, tangent: npt.NDArray) -> None:
        """Write stress (n, d) and tangent (n, d, d) [MPa] at strains (n, d), on as many threads as torch has.

        Raises:
            ValueError: arrays of other shapes or types, not contiguous, or not to be written to.
        """
        n, d = len(strain), self.strain_size
        for name, array, shape in (
            ("strain", strain, (n, d)), ("stress", stress, (n, d)), ("tangent", tangent, (n, d, d))
        ):  # fmt: skip
            right = array.shape == shape and array.dtype == self.dtype and array.flags.c_contiguous
            if not (right and (array is strain or array.flags.writeable)):
                raise ValueError(
                    f"{name} has shape {array.shape} and type {array.dtype}, need {shape} and {np.dtype(self.dtype)}, "
                    "contiguous, and writeable for what is found"
                )
        self.library.response(
            ctypes.c_long(n),
            *(ctypes.c_void_p(a.ctypes.data) for a in (self._network, strain, stress, tangent)),
            ctypes.c_int(torch.get_num_threads()),
        )


def response_network(model: Model) -> tuple[Potential | Branch, Tensor | None] | None:
    """What gives a model's stress: its potential, or its branch and the means of its modes; None for a model of another
    class, or one with a `forward` of its own, of which nothing is known."""
    if not isinstance(model, EquiNO) or type(model).forward is not EquiNO.forward:
        return None
    return (model.potential, None) if model.potential is not None else (model.stress, model.means)


def compiled_response(model: Model, dtype: torch.dtype = torch.float64) -> CompiledResponse | None:
    """The model as machine code; None if it is of another kind than known here, for another precision, for layers so
    wide that torch is as fast, or without a compiler; with a warning if the compiler fails."""
    known = response_network(model)
    if known is None or dtype not in _REALS or not written(*known).lanes() or not compiler():
        return None
    return or_torch(lambda: CompiledResponse(*known, dtype), "the model")
