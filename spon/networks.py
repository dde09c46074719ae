# SPDX-License-Identifier: MIT
"""Small networks of the macroscale strain, with derivatives in closed form.

Values and derivatives leave one pass through the layers, without autograd, and can be trained on both. Inputs are
strains (n, d) in Mandel components.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Activated(NamedTuple):
    """Value, slope and curvature of an activation function."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


def tanh(x: Tensor) -> Activated:
    """tanh, with (tanh)' = 1 − tanh² and (tanh)'' = −2 tanh (1 − tanh²)."""
    y = torch.tanh(x)
    slope = 1 - y * y
    return Activated(y, slope, -2 * y * slope)


def swish(x: Tensor) -> Activated:
    """x s(x) with the logistic function s, its slope s (1 + x (1 − s)) and curvature s (1 − s) (2 + x (1 − 2 s))."""
    s = torch.sigmoid(x)
    t = s * (1 - s)
    return Activated(x * s, s + x * t, t * (2 + x * (1 - 2 * s)))


ACTIVATIONS = {"tanh": tanh, "swish": swish}


def layers(sizes: list[int], generator: torch.Generator) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Weights (in, out), uniform after Glorot & Bengio (AISTATS 2010), and offsets (out,) of a chain of layers."""
    weights, offsets = nn.ParameterList(), nn.ParameterList()
    for a, b in pairwise(sizes):
        limit = (6 / (a + b)) ** 0.5
        weights.append(limit * (2 * torch.rand(a, b, generator=generator, dtype=torch.float64) - 1))
        offsets.append(0.5 * (2 * torch.rand(b, generator=generator, dtype=torch.float64) - 1))
    return weights, offsets


class Branch(nn.Module):
    """Coefficients of modes as a function of the strain: b(E) = L E + s (f(E/h) − f(0)) + c.

    f is a chain of layers. With `through_zero` the coefficients vanish at zero strain, and L is a linear part of their
    own; without, there is no L, f(0) stays and c is the mean, which is the published form.

    Args:
        size: d of the strain. coefficients: r. half_range: h (d,), strains of this size are one to the network.
        scale: s (r,) or a number, the size of the coefficients. mean: c, for the published form.
        widths: of the hidden layers. activation: "tanh" or "swish". seed: of the initial weights.
    """

    half_range: Tensor
    scale: Tensor
    mean: Tensor

    def __init__(
        self,
        half_range: Tensor,
        scale: Tensor,
        *,
        mean: Tensor | None = None,
        widths: tuple[int, ...] = (64, 64),
        activation: str = "tanh",
        through_zero: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        d, r = half_range.numel(), scale.numel()
        self.widths, self.activation, self.through_zero = widths, activation, through_zero
        self.weights, self.offsets = layers([d, *widths, r], torch.Generator().manual_seed(seed))
        self.register_buffer("half_range", half_range.clone())
        self.register_buffer("scale", scale.clone())
        self.register_buffer("mean", torch.zeros(r, dtype=torch.float64) if mean is None else mean.clone())
        self.linear = nn.Parameter(torch.zeros(d, r, dtype=torch.float64)) if through_zero else None

    def start_linear(self, strain: Tensor, coefficients: Tensor) -> None:
        """Let the linear part be the best for these strains (n, d) and coefficients (n, r)."""
        if self.linear is not None:
            with torch.no_grad():
                self.linear.copy_(torch.linalg.lstsq(strain, coefficients).solution)

    def forward(self, strain: Tensor) -> Tensor:
        """Coefficients (n, r)."""
        y = self._chain(strain / self.half_range)
        if self.linear is None:
            return self.scale * y + self.mean
        return strain @ self.linear + self.scale * (y - self._chain(torch.zeros_like(strain[:1])))

    def _chain(self, x: Tensor) -> Tensor:
        f = ACTIVATIONS[self.activation]
        for a, c in zip(self.weights[:-1], self.offsets[:-1], strict=True):
            x = f(x @ a + c).value
        return x @ self.weights[-1] + self.offsets[-1]

    def with_tangent(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (n, r) and their derivatives (n, r, d) by forward mode."""
        f = ACTIVATIONS[self.activation]
        n, d = strain.shape
        x = strain / self.half_range
        # The d directions of the derivative travel beside the value, as rows of one matrix product.
        directions = torch.diag(1 / self.half_range)[:, None, :].expand(d, n, d)
        for a, c in zip(self.weights[:-1], self.offsets[:-1], strict=True):
            layer = f(x @ a + c)
            x, directions = layer.value, layer.slope * (directions @ a)
        y = x @ self.weights[-1] + self.offsets[-1]
        slope = (directions @ self.weights[-1]).permute(1, 2, 0) * self.scale[:, None]
        if self.linear is None:
            return self.scale * y + self.mean, slope
        rest = self._chain(torch.zeros_like(strain[:1]))
        return strain @ self.linear + self.scale * (y - rest), slope + self.linear.T


class Potential(nn.Module):
    """Effective energy as a function of the strain, W(E) = ½ E·C₀ E + s (g(E/h) − g(0) − ∇g(0)·E/h).

    g has two hidden layers and one output. The stress is dW/dE and the tangent d²W/dE², so that the stress vanishes at
    zero strain, the tangent is symmetric and the work of a closed strain path is zero, whatever the weights.

    Args:
        stiffness: C₀ (d, d) [MPa], symmetric. half_range: h (d,). scale: s [MPa], the size of the energy that is not
        quadratic. width: of both layers. seed: of the initial weights.
    """

    stiffness: Tensor
    half_range: Tensor
    scale: Tensor

    def __init__(self, stiffness: Tensor, half_range: Tensor, scale: float, *, width: int = 32, seed: int = 0):
        super().__init__()
        self.width = width
        self.weights, self.offsets = layers(
            [half_range.numel(), width, width, 1], torch.Generator().manual_seed(seed)
        )
        self.register_buffer("stiffness", stiffness.clone())
        self.register_buffer("half_range", half_range.clone())
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))

    def energy(self, strain: Tensor) -> Tensor:
        """W (n,) [MPa]."""
        x = strain / self.half_range
        zero = torch.zeros_like(x[:1])
        part = self._value(x) - self._value(zero) - x @ self._gradient(zero)[0]
        return 0.5 * (strain * (strain @ self.stiffness)).sum(-1) + self.scale * part

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Stress (n, d) and tangent (n, d, d) [MPa]."""
        a1, a2, a3 = self.weights
        x = strain / self.half_range
        one = tanh(x @ a1 + self.offsets[0])
        two = tanh(one.value @ a2 + self.offsets[1])
        v = a3[:, 0]
        back = (v * two.slope) @ a2.T
        gradient = (back * one.slope) @ a1.T
        # Hessian: curvature of the second layer along what each strain component does to it, and of the first layer.
        reach = (one.slope[:, None, :] * a1) @ a2
        hessian = (reach * (v * two.curvature)[:, None, :]) @ reach.mT
        hessian = hessian + (a1 * (back * one.curvature)[:, None, :]) @ a1.T
        unit = self.scale / self.half_range
        stress = strain @ self.stiffness + unit * (gradient - self._gradient(torch.zeros_like(x[:1])))
        tangent = self.stiffness + hessian * unit[:, None] / self.half_range
        return stress, (tangent + tangent.mT) / 2  # equal up to rounding

    def _value(self, x: Tensor) -> Tensor:
        h = tanh(tanh(x @ self.weights[0] + self.offsets[0]).value @ self.weights[1] + self.offsets[1]).value
        return (h @ self.weights[2])[:, 0]

    def _gradient(self, x: Tensor) -> Tensor:
        one = tanh(x @ self.weights[0] + self.offsets[0])
        two = tanh(one.value @ self.weights[1] + self.offsets[1])
        return (((self.weights[2][:, 0] * two.slope) @ self.weights[1].T) * one.slope) @ self.weights[0].T
