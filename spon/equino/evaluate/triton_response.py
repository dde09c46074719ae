# SPDX-License-Identifier: MIT
"""Stress and tangent of a network in one GPU kernel (Triton). Experimental: never run on a GPU so far.

The reference is `spon.equino.networks`; tests compare both in Triton's interpreter.

Each program of the kernel evaluates some points in all layers. Values between the layers stay in registers: only the
strain is loaded from memory, and only stress and tangent are stored. A tile has a row for each point and a column for
each unit of a layer; derivatives by the strain components are a further axis between the two. Sizes are padded to
powers of two with zero weights.

Products have the given precision, never TF32. The tangent may have a lower precision than the stress: Newton's method
then converges to the same solution, with at most one more iteration.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from spon.equino.evaluate.experimental import warn_never_run_on_a_gpu
from spon.equino.networks import Branch, Potential

WIDEST = 64  # layer: its matrix in float64 takes 32 KiB of the 228 KiB that the blocks of a multiprocessor share
_TYPES = {torch.float64: tl.float64, torch.float32: tl.float32}


@triton.jit
def _at_points(strain, half_range, rows, inside, D: tl.constexpr, D2: tl.constexpr, REAL: tl.constexpr):
    """The strains in units of their range, (points, D2), and the inverse range (D2,)."""
    i = tl.arange(0, D2)
    here = inside[:, None] & (i < D)[None, :]
    inverse = 1 / tl.load(half_range + i, mask=i < D, other=1.0).to(REAL)
    return tl.load(strain + rows[:, None] * D + i[None, :], mask=here, other=0.0).to(REAL) * inverse[None, :], inverse


@triton.jit
def _column(x, k, SIZE: tl.constexpr):
    """Column k of a tile (points, SIZE), as (points,)."""
    return tl.sum(tl.where((tl.arange(0, SIZE) == k)[None, :], x, 0.0), axis=1)


@triton.jit
def _norm(x, metrics, smoothing2, k, D: tl.constexpr, D2: tl.constexpr):
    """Norm k of x (points, D2), and its gradient (points, D2)."""
    i = tl.arange(0, D2)
    y = tl.zeros_like(x)
    for j in tl.static_range(D):
        row = tl.load(metrics + (k * D + j) * D + i, mask=i < D, other=0.0).to(x.dtype)
        y += _column(x, j, D2)[:, None] * row[None, :]
    norm = tl.sqrt(tl.sum(y * x, axis=1) + smoothing2.to(x.dtype))
    return norm, y / norm[:, None]


@triton.jit
def _first_layer(
    x, inverse, a, c, metrics, smoothing2, D: tl.constexpr, D2: tl.constexpr, K: tl.constexpr, W: tl.constexpr,
    TANGENT: tl.constexpr,
):  # fmt: skip
    """The inputs of the first layer's units, (points, W), and their derivatives by the strain, (points, D2, W)."""
    unit, i = tl.arange(0, W), tl.arange(0, D2)
    z = tl.zeros([x.shape[0], W], dtype=x.dtype)
    z += tl.load(c + unit).to(x.dtype)[None, :]
    dz = tl.zeros([x.shape[0], D2, W], dtype=TANGENT)
    for j in tl.static_range(D):
        row = tl.load(a + j * W + unit).to(x.dtype)
        z += _column(x, j, D2)[:, None] * row[None, :]
        dz += tl.where(i == j, inverse, 0.0).to(TANGENT)[None, :, None] * row.to(TANGENT)[None, None, :]
    for k in range(K):
        row = tl.load(a + (D + k) * W + unit).to(x.dtype)
        norm, gradient = _norm(x, metrics, smoothing2, k, D, D2)
        z += norm[:, None] * row[None, :]
        dz += (gradient * inverse[None, :]).to(TANGENT)[:, :, None] * row.to(TANGENT)[None, None, :]
    return z, dz


@triton.jit
def _tanh(x):
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit
def _activated(z, SWISH: tl.constexpr):
    """Value and slope of the activation function."""
    if SWISH:
        s = 1 / (1 + tl.exp(-z))
        return z * s, s + z * s * (1 - s)
    else:
        y = _tanh(z)
        return y, 1 - y * y


@triton.jit
def _through(dz, a, D2: tl.constexpr, W: tl.constexpr):
    """Derivatives (points, D2, W) through a layer's matrix (W, W)."""
    flat = tl.reshape(dz, [dz.shape[0] * D2, W])
    return tl.reshape(tl.dot(flat, a.to(dz.dtype), input_precision="ieee", out_dtype=dz.dtype), dz.shape)


@triton.jit(do_not_specialize=["n"])
def _branch(
    strain, stress, tangent, n, at_zero_strain, half_range, smoothing2, linear, first, offsets, hidden, last, metrics,
    D: tl.constexpr, D2: tl.constexpr, K: tl.constexpr, W: tl.constexpr, DEPTH: tl.constexpr, SWISH: tl.constexpr,
    POINTS: tl.constexpr, REAL: tl.constexpr, TANGENT: tl.constexpr,
):  # fmt: skip
    """`Branch.with_tangent`; its last matrix contains the modes' means."""
    rows = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = rows < n
    unit, i = tl.arange(0, W), tl.arange(0, D2)
    x, inverse = _at_points(strain, half_range, rows, inside, D, D2, REAL)
    z, dz = _first_layer(x, inverse, first, offsets, metrics, tl.load(smoothing2), D, D2, K, W, TANGENT)
    for layer in range(DEPTH - 1):
        a = tl.load(hidden + (layer * W + unit[:, None]) * W + unit[None, :]).to(REAL)
        c = tl.load(offsets + (layer + 1) * W + unit).to(REAL)
        y, slope = _activated(z, SWISH)
        # This order frees the registers of z during the larger product.
        dz = _through(slope.to(TANGENT)[:, None, :] * dz, a, D2, W)
        z = tl.dot(y, a, input_precision="ieee", out_dtype=REAL) + c[None, :]
    y, slope = _activated(z, SWISH)
    dz = slope.to(TANGENT)[:, None, :] * dz
    for j in range(D):
        row = tl.load(last + j * W + unit).to(REAL)
        own = tl.load(linear + j * D + i, mask=i < D, other=0.0).to(REAL)
        s = tl.sum(y * row[None, :], axis=1) - tl.load(at_zero_strain + j).to(REAL)
        s += tl.sum(x / inverse[None, :] * own[None, :], axis=1)
        tl.store(stress + rows * D + j, s, mask=inside)
        t = tl.sum(dz * row.to(TANGENT)[None, None, :], axis=2) + own.to(TANGENT)[None, :]
        tl.store(tangent + (rows[:, None] * D + j) * D + i[None, :], t, mask=inside[:, None] & (i < D)[None, :])


@triton.jit(do_not_specialize=["n", "only_gradient"])
def _potential(
    strain, stress, tangent, n, only_gradient, at_zero_strain, half_range, smoothing2, stiffness, scale, a1, c1, a2, c2,
    a3, metrics,
    D: tl.constexpr, D2: tl.constexpr, K: tl.constexpr, W: tl.constexpr,
    POINTS: tl.constexpr, REAL: tl.constexpr, TANGENT: tl.constexpr,
):  # fmt: skip
    """`Potential.forward`; with only_gradient, the gradient instead of the stress, and no tangent.

    The flag is no compile-time constant, so that the same code computes the gradient at zero strain and elsewhere.
    """
    rows = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = rows < n
    unit, i = tl.arange(0, W), tl.arange(0, D2)
    x, inverse = _at_points(strain, half_range, rows, inside, D, D2, REAL)
    smoothing = tl.load(smoothing2)
    # Derivatives by the strain in units of its range.
    z, first = _first_layer(x, inverse * 0 + 1, a1, c1, metrics, smoothing, D, D2, K, W, TANGENT)
    one = _tanh(z)
    a = tl.load(a2 + unit[:, None] * W + unit[None, :]).to(REAL)
    second = _through((1 - one * one).to(TANGENT)[:, None, :] * first, a, D2, W)
    two = _tanh(tl.dot(one, a, input_precision="ieee", out_dtype=REAL) + tl.load(c2 + unit).to(REAL)[None, :])

    # Backward: derivatives of g by the inputs of each layer, and times the second derivatives of its activation.
    slope = tl.load(a3 + unit).to(REAL)[None, :] * (1 - two * two)
    outer = tl.dot(slope, tl.trans(a), input_precision="ieee", out_dtype=REAL) * (1 - one * one)
    bend_one, bend_two = (-2 * one * outer).to(TANGENT), (-2 * two * slope).to(TANGENT)
    # The gradient, and the norms' curvature as the first part of the Hessian.
    gradient = tl.zeros([POINTS, D2], dtype=REAL)
    h = tl.zeros([POINTS, D2, D2], dtype=TANGENT)
    square = (i < D)[:, None] & (i < D)[None, :]
    for k in range(K):
        norm, along = _norm(x, metrics, smoothing, k, D, D2)
        through = tl.sum(outer * tl.load(a1 + (D + k) * W + unit).to(REAL)[None, :], axis=1)
        gradient += through[:, None] * along
        metric = tl.load(metrics + (k * D + i[:, None]) * D + i[None, :], mask=square, other=0.0).to(TANGENT)
        along = along.to(TANGENT)
        curved = (through / norm).to(TANGENT)[:, None, None]
        h += curved * (metric[None, :, :] - along[:, :, None] * along[:, None, :])
    for j in range(D):
        row = tl.load(a1 + j * W + unit).to(REAL)
        gradient += tl.where((i == j)[None, :], tl.sum(outer * row[None, :], axis=1)[:, None], 0.0)
    gradient -= tl.load(at_zero_strain + i, mask=i < D, other=0.0).to(REAL)[None, :]
    positions = rows[:, None] * D + i[None, :]
    here = inside[:, None] & (i < D)[None, :]
    if only_gradient:
        tl.store(stress + positions, gradient, mask=here)
    else:
        size = tl.load(scale).to(REAL)
        s = size * inverse[None, :] * gradient
        for j in range(D):
            own = tl.load(stiffness + j * D + i, mask=i < D, other=0.0).to(REAL)
            s += _column(x / inverse[None, :], j, D2)[:, None] * own[None, :]
        tl.store(stress + positions, s, mask=here)

        # Curvature of both layers, along the derivatives of their inputs by the strain components.
        for j in range(D):
            of = (i == j)[None, :, None]
            along_two = tl.sum(tl.where(of, second, 0.0), axis=1) * bend_two
            along_one = tl.sum(tl.where(of, first, 0.0), axis=1) * bend_one
            column = tl.sum(second * along_two[:, None, :] + first * along_one[:, None, :], axis=2)
            h += tl.where((i == j)[None, None, :], column[:, :, None], 0.0)
        own = tl.load(stiffness + i[:, None] * D + i[None, :], mask=square, other=0.0).to(TANGENT)
        t = own[None, :, :] + h * (size * inverse[:, None] * inverse[None, :]).to(TANGENT)[None, :, :]
        # One half of the matrix is stored twice, so that it is exactly symmetric.
        half = inside[:, None, None] & (square & (i[:, None] >= i[None, :]))[None, :, :]
        first_index, second_index = i[None, :, None], i[None, None, :]
        tl.store(tangent + (rows[:, None, None] * D + first_index) * D + second_index, t, mask=half)
        tl.store(tangent + (rows[:, None, None] * D + second_index) * D + first_index, t, mask=half)


class FusedResponse:
    """Stress and tangent of a network as one GPU kernel, with a copy of its present parameters.

    Experimental: never run on a GPU so far.

    Args:
        network: a potential, or a branch that predicts coefficients of stress modes.
        means: (d, r) of these modes [MPa], for a branch.
        device: a GPU.
        dtype: of the stress, float64 or float32.
        tangent_dtype: of the tangent, float64 or float32; None for `dtype`.
        points: of each program of the kernel, a power of two, at least 16.
        warps: of each program; the default spills few or no registers on a GPU of the Hopper generation.

    Raises:
        ValueError: another dtype, or a tangent of higher precision than the stress.
        ValueError: layers wider than `WIDEST`.
        ValueError: no means for a branch.
    """

    def __init__(
        self,
        network: Potential | Branch,
        means: Tensor | None = None,
        *,
        device: str | torch.device = "cuda",
        dtype: torch.dtype = torch.float64,
        tangent_dtype: torch.dtype | None = None,
        points: int = 16,
        warps: int | None = None,
    ):
        tangent_dtype = dtype if tangent_dtype is None else tangent_dtype
        if dtype not in _TYPES or tangent_dtype not in _TYPES or tangent_dtype.itemsize > dtype.itemsize:
            raise ValueError(
                f"dtype = {dtype}, tangent_dtype = {tangent_dtype}: need float64 or float32, the tangent not above"
            )
        self.device, self._points = torch.device(device), points
        if self.device.type == "cuda":
            warn_never_run_on_a_gpu()
        self.strain_size = network.half_range.numel()
        self._sizes = {"D": self.strain_size, "D2": _power(self.strain_size), "K": len(network.norms.maps)}
        self._options = {"REAL": _TYPES[dtype], "TANGENT": _TYPES[tangent_dtype], "POINTS": points, "num_stages": 2}
        self._options["num_warps"] = warps or (4 if self.strain_size < 4 else 8)
        smoothing2 = torch.tensor([network.norms.smoothing**2], dtype=torch.float64)
        shared = [network.half_range, smoothing2]
        if isinstance(network, Potential):
            self._kernel, own = _potential, self._of_potential(network)
        else:
            self._kernel, own = _branch, self._of_branch(network, means)
        metrics = network.norms.metrics() if self._sizes["K"] else torch.zeros(1)
        self._parameters = [
            x.detach().to(self.device, torch.float64).contiguous()
            for x in (self._at_zero_strain, *shared, *own, metrics)
        ]
        if isinstance(network, Potential) or network.linear is not None:
            zero = torch.zeros(1, self.strain_size, dtype=torch.float64, device=self.device)
            found, unused = torch.empty_like(zero), zero.new_empty(1, self.strain_size, self.strain_size)
            self._launch(zero, found, unused, only_gradient=1)
            # By the same operations as at other strains, so that the stress at zero strain is exactly zero.
            self._parameters[0] = found[0].clone()

    def _of_potential(self, network: Potential) -> list[Tensor]:
        (a1, a2, a3), (c1, c2, _) = network.weights, network.offsets
        self._sizes["W"] = w = _width(network.width)
        self._at_zero_strain = torch.zeros(self.strain_size)
        scale = network.scale[None]
        return [network.stiffness, scale, _padded(a1, None, w), _padded(c1, w), _padded(a2, w, w), _padded(c2, w),
                _padded(a3[:, 0], w)]  # fmt: skip

    def _of_branch(self, network: Branch, means: Tensor | None) -> list[Tensor]:
        first, *hidden, _ = network.weights
        *offsets, _ = network.offsets
        linear, last, constant = network.to_stress(means)
        self._at_zero_strain = -constant
        self._sizes["W"] = w = _width(max(network.widths))
        self._sizes |= {"DEPTH": len(offsets), "SWISH": network.activation == "swish"}
        inner = torch.stack([_padded(a, w, w) for a in hidden]) if hidden else torch.zeros(1)
        return [linear, _padded(first, None, w), torch.stack([_padded(c, w) for c in offsets]), inner,
                _padded(last.T, None, w)]  # fmt: skip

    def __call__(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> None:
        """Write stress and tangent to tensors of any precision.

        Args:
            strain: (n, d), contiguous on the device.
            stress: (n, d) [MPa], contiguous on the device, written.
            tangent: (n, d, d) [MPa], contiguous on the device, written.

        Raises:
            ValueError: tensors of other shapes, on another device, or not contiguous.
        """
        n, d = len(strain), self.strain_size
        for name, x, shape in (("strain", strain, (n, d)), ("stress", stress, (n, d)), ("tangent", tangent, (n, d, d))):
            if x.shape != shape or x.device != self._parameters[0].device or not x.is_contiguous():
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)} on {x.device}, need {shape} on {self._parameters[0].device}, "
                    "contiguous"
                )
        if n:
            self._launch(strain, stress, tangent, only_gradient=0)

    def _launch(self, strain: Tensor, stress: Tensor, tangent: Tensor, only_gradient: int) -> None:
        n = len(strain)
        flags = [only_gradient] if self._kernel is _potential else []
        # Triton launches on torch's current GPU.
        with torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext():
            self._kernel[(triton.cdiv(n, self._points),)](
                strain, stress, tangent, n, *flags, *self._parameters, **self._sizes, **self._options
            )


def _width(units: int) -> int:
    """The padded width of layers, at least the 16 that matrix units need."""
    if units > WIDEST:
        raise ValueError(f"a layer has {units} units: the kernel supports at most {WIDEST}")
    return max(_power(units), 16)


def _power(n: int) -> int:
    """The least power of two not below n."""
    return 1 << (n - 1).bit_length()


def _padded(x: Tensor, *sizes: int | None) -> Tensor:
    """x padded with zeros to these sizes; None keeps a size."""
    out = x.new_zeros([s or old for s, old in zip(sizes, x.shape, strict=True)])
    out[tuple(slice(k) for k in x.shape)] = x.detach()
    return out
