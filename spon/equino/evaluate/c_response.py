# SPDX-License-Identifier: MIT
"""Stress and tangent of a model as machine code.

The formulas are those of `spon.equino.networks.Potential.forward` and `Branch.with_tangent`, which are the reference,
and are used in training, on GPUs and without a compiler.
"""

import ctypes
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.constitutive.measure import Measure
from spon.equino.model import EquiNO
from spon.equino.networks import Branch, Potential
from spon.jit import Compiled, compiler, or_torch, source
from spon.reduced.model import Model

_REALS = {torch.float64: ("double", np.float64), torch.float32: ("float", np.float32)}
_MOST_LANES = 64
_STACK = 2**20  # bytes that a thread may keep on its stack
# Bytes of cache that the numbers of a block of points should fit in.
_POTENTIAL_CACHE, _BRANCH_CACHE = 2**19, 2**16


class ResponseNetwork(NamedTuple):
    """The network that predicts the stress of a model.

    Attributes:
        network: a potential, or a branch that predicts coefficients of stress modes.
        means: (d, r) of these modes [MPa]; None for a potential.
        measure: of the strain; the network takes its coordinates.
    """

    network: Potential | Branch
    means: Tensor | None
    measure: Measure


def response_network(model: Model) -> ResponseNetwork | None:
    """The network that predicts a model's stress; None for another class, or a subclass with its own `forward`."""
    if not isinstance(model, EquiNO) or type(model).forward is not EquiNO.forward:
        return None
    if model.potential is not None:
        return ResponseNetwork(model.potential, None, model.measure)
    return ResponseNetwork(model.stress, model.means, model.measure)


@dataclass(frozen=True, slots=True, eq=False)
class CNetwork:
    """A network as C source and numbers.

    Args:
        text: the source.
        constants: macros to define, all but REAL, SINGLE and LANES.
        parameters: the C struct `network` in double precision, which `set_at_zero_strain` completes.
        numbers: that the code keeps for each point.
        cache: bytes that the numbers of a block of points should fit in.
    """

    text: str
    constants: dict[str, str | int]
    parameters: npt.NDArray[np.float64]
    numbers: int
    cache: int

    def lanes(self, size: int = 8) -> int:
        """Points side by side, 8 to 64, whose numbers fit in the cache; 0 if a few exceed a thread's stack.

        Args:
            size: bytes of a number.
        """
        lanes = _MOST_LANES
        while lanes > 64 // size and size * lanes * self.numbers > self.cache:
            lanes //= 2
        return lanes if size * lanes * self.numbers <= _STACK else 0


def c_network(
    network: Potential | Branch, means: Tensor | None = None, measure: Measure | None = None
) -> CNetwork:  # fmt: skip
    """A network in C, with a copy of its present parameters.

    Args:
        network: a potential, or a branch that predicts coefficients of stress modes.
        means: (d, r) of these modes [MPa], for a branch.
        measure: of the strain; None for one whose coordinates are its components.
    """
    found = _potential(network) if isinstance(network, Potential) else _branch(network, means)
    if measure is None or not measure.finite:
        return found
    constants = {**found.constants, "DIM": {4: 2, 9: 3}[measure.size]}
    return replace(found, text=source(__package__, "turned.h") + found.text, constants=constants)


@torch.no_grad()
def _potential(network: Potential) -> CNetwork:
    (a1, a2, a3), (c1, c2, _) = network.weights, network.offsets
    d, w = network.half_range.numel(), network.width
    parts = (torch.zeros(d), network.stiffness, network.half_range, network.scale, _smoothing2(network), a1, c1, a2, c2,
             a3, _metrics(network))  # fmt: skip
    constants: dict[str, str | int] = {"D": d, "K": len(network.norms.maps), "WIDTH": w}
    return CNetwork(_text("potential.c"), constants, _row(parts), w * (2 * d + 6), _POTENTIAL_CACHE)


@torch.no_grad()
def _branch(network: Branch, means: Tensor | None) -> CNetwork:
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
    return CNetwork(_text("branch.c"), constants, _row(parts), 2 * most * (1 + d), _BRANCH_CACHE)


def _text(file: str) -> str:
    own = (source(__package__, name) for name in ("layers.h", file, "response.c"))
    return source("spon.constitutive", "lanes.h") + "".join(own)


def _smoothing2(network: Potential | Branch) -> Tensor:
    return torch.tensor(network.norms.smoothing**2, dtype=torch.float64)


def _metrics(network: Potential | Branch) -> Tensor:
    """Parameters of the norms; without norms those of a zero norm, since C has no arrays of length zero."""
    d = network.half_range.numel()
    return network.norms.metrics() if len(network.norms.maps) else torch.zeros(1, d, d)


def _row(parts: tuple[Tensor, ...]) -> npt.NDArray[np.float64]:
    return np.concatenate([part.detach().cpu().double().numpy().ravel() for part in parts])


class CompiledResponse(Compiled):
    """Stress and tangent of a network as machine code, with a copy of its present parameters.

    Args:
        network: a potential, or a branch that predicts coefficients of stress modes.
        means: (d, r) of these modes [MPa], for a branch.
        dtype: float64 or float32.
        measure: of the strain; None for one whose coordinates are its components.

    Raises:
        ValueError: another dtype.
        ValueError: layers that are too wide for a thread's stack.
        OSError: no compiler, or it fails; the message quotes its output.
    """

    def __init__(
        self,
        network: Potential | Branch,
        means: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        *,
        measure: Measure | None = None,
    ):
        if dtype not in _REALS:
            raise ValueError(f"dtype = {dtype}: need torch.float64 or torch.float32")
        real, self.dtype = _REALS[dtype]
        self.strain_size = network.half_range.numel() if measure is None else measure.size
        code = c_network(network, means, measure)
        lanes = code.lanes(np.dtype(self.dtype).itemsize)
        if not lanes:
            raise ValueError("the layers of the network are too wide for machine code: use torch, which is as fast")
        precision: dict[str, str | int] = {"REAL": real, "SINGLE": int(real == "float"), "LANES": lanes}
        self._parameters = code.parameters.astype(self.dtype)
        super().__init__(code.text, precision | code.constants)

    @cached_property
    def _network(self) -> npt.NDArray:
        """The C struct `network`: the parameters, and what the network predicts at zero strain, to be subtracted."""
        network = self._parameters.copy()
        self.library.set_at_zero_strain(ctypes.c_void_p(network.ctypes.data))
        return network

    def __call__(self, strain: npt.NDArray, stress: npt.NDArray, tangent: npt.NDArray) -> None:
        """Write stress and tangent to arrays, on as many threads as torch uses.

        Args:
            strain: (n, d).
            stress: (n, d) [MPa], written.
            tangent: (n, d, d) [MPa], written.

        Raises:
            ValueError: arrays of other shapes or types, not contiguous, or read-only.
        """
        n, d = len(strain), self.strain_size
        for name, array, shape in (
            ("strain", strain, (n, d)), ("stress", stress, (n, d)), ("tangent", tangent, (n, d, d))
        ):  # fmt: skip
            fits = array.shape == shape and array.dtype == self.dtype and array.flags.c_contiguous
            if not (fits and (array is strain or array.flags.writeable)):
                raise ValueError(
                    f"{name} has shape {array.shape} and type {array.dtype}, need {shape} and {np.dtype(self.dtype)}, "
                    "contiguous, and writeable for stress and tangent"
                )
        self.library.response(
            ctypes.c_long(n),
            *(ctypes.c_void_p(a.ctypes.data) for a in (self._network, strain, stress, tangent)),
            ctypes.c_int(torch.get_num_threads()),
        )

    def fill(self, strain: npt.NDArray, stress: npt.NDArray, tangent: npt.NDArray) -> None:
        """Write stress and tangent to float64 arrays, whatever the precision of the code.

        Args:
            strain: (n, d).
            stress: (n, d) [MPa], written.
            tangent: (n, d, d) [MPa], written.
        """
        found = [a if a.dtype == self.dtype else np.empty(a.shape, self.dtype) for a in (stress, tangent)]
        self(np.ascontiguousarray(strain, self.dtype), *found)
        for out, values in zip((stress, tangent), found, strict=True):
            if values is not out:
                out[:] = values


def compiled_response(model: Model, dtype: torch.dtype = torch.float64) -> CompiledResponse | None:
    """A model as machine code.

    None for a model of another kind, another precision, layers so wide that torch is as fast, or without a compiler;
    also, with a warning, if the compiler fails.
    """
    known = response_network(model)
    if known is None or dtype not in _REALS or not c_network(*known).lanes() or not compiler():
        return None
    network, means, measure = known
    return or_torch(lambda: CompiledResponse(network, means, dtype, measure=measure), "the model")
