# SPDX-License-Identifier: MIT
"""Small networks of the macroscale strain, with derivatives in closed form, and the error of both.

One pass through the layers gives values and derivatives without autograd, and training may use both. Inputs are strains
(n, d) in Mandel components.

Networks take the components and norms of the strain. The energy of an RVE is a mean of energies of local strains,
which are nearly linear in the macroscale strain. If the law of a phase depends on a norm of the strain, such as
‖dev ε‖, the response is not analytic at zero strain, and smooth layers alone would converge slowly.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_DERIVATIVES = 0.1  # weight of the error of the derivatives, relative to that of the values
_SMALL = 1e-4  # fraction of the mean square that is added to each square, so that small values do not dominate


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


class Norms(nn.Module):
    """k norms of a vector x (n, d), ν_j = √(|A_j x|² + δ²) with learned A_j (d, d); δ keeps them smooth at zero.

    Args:
        size: d.
        count: k.
        generator: of the initial maps.
        smoothing: δ.
    """

    def __init__(self, size: int, count: int, generator: torch.Generator, smoothing: float = 0.05):
        super().__init__()
        self.smoothing = smoothing
        random = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
        self.maps = nn.Parameter(random / size**0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The norms (n, k) and their gradients (n, d, k)."""
        (n, d), k = x.shape, len(self.maps)
        y = (x @ self.metrics().permute(1, 2, 0).reshape(d, d * k)).view(n, d, k)
        norms = ((y * x[:, :, None]).sum(1) + self.smoothing**2).sqrt()
        return norms, y / norms[:, None]

    def metrics(self) -> Tensor:
        """AᵀA (k, d, d); the second derivative of a norm is (AᵀA − ∇ν ∇νᵀ)/ν."""
        return self.maps.mT @ self.maps


class Branch(nn.Module):
    """Coefficients of modes as a function of the strain: b(E) = L E + s (f(E/h) − f(0)) + c.

    f is a chain of layers that takes the strain and its norms. With `through_zero` the coefficients vanish at zero
    strain and L is a separate linear part. Otherwise L and the term f(0) are omitted and c is the mean: the published
    form, which has no norms either.

    Args:
        half_range: h (d,), the unit of the strain inside the network.
        scale: s (r,), the size of the coefficients.
        linear: the initial L (d, r), with `through_zero`; None for zero.
        mean: c (r,), for the published form; None for zero.
        widths: of the hidden layers.
        norms: number of norms.
        activation: "tanh" or "swish".
        through_zero: whether the coefficients vanish at zero strain.
        seed: of the initial weights.
    """

    half_range: Tensor
    scale: Tensor
    mean: Tensor

    def __init__(
        self,
        half_range: Tensor,
        scale: Tensor,
        *,
        linear: Tensor | None = None,
        mean: Tensor | None = None,
        widths: tuple[int, ...] = (64, 64),
        norms: int = 0,
        activation: str = "tanh",
        through_zero: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        d, r = half_range.numel(), scale.numel()
        self.widths, self.activation, self.through_zero = widths, activation, through_zero
        generator = torch.Generator().manual_seed(seed)
        self.weights, self.offsets = layers([d + norms, *widths, r], generator)
        self.norms = Norms(d, norms, generator)
        self.register_buffer("half_range", half_range.clone())
        self.register_buffer("scale", scale.clone())
        self.register_buffer("mean", torch.zeros(r, dtype=torch.float64) if mean is None else mean.clone())
        linear = torch.zeros(d, r, dtype=torch.float64) if linear is None else linear
        self.linear = nn.Parameter(linear.clone(memory_format=torch.contiguous_format)) if through_zero else None

    def to_json(self) -> dict[str, Any]:
        """The shape of the network for JSON; its parameters are in its `state_dict`."""
        return {
            "coefficients": self.scale.numel(),
            "widths": list(self.widths),
            "norms": len(self.norms.maps),
            "activation": self.activation,
            "through_zero": self.through_zero,
        }

    @classmethod
    def from_json(cls, shape: dict[str, Any], strain_size: int) -> "Branch":
        """A network of this shape for strains of `strain_size` components, whose parameters are not loaded yet."""
        return cls(
            torch.ones(strain_size, dtype=torch.float64),
            torch.ones(shape["coefficients"], dtype=torch.float64),
            widths=tuple(shape["widths"]),
            norms=shape["norms"],
            activation=shape["activation"],
            through_zero=shape["through_zero"],
        )

    def in_modes(self, change: Tensor, scale: Tensor) -> "Branch":
        """The branch whose coefficients are `change` times the coefficients of this one.

        Args:
            change: (r', r).
            scale: (r',), the size of the new coefficients.

        Raises:
            ValueError: a branch of the published form.
        """
        if self.linear is None:
            raise ValueError("a branch of the published form has one mean and scale for all modes: train a new one")
        new = copy.deepcopy(self).requires_grad_()
        new.scale, new.mean = scale.clone(), change @ self.mean
        to = (self.scale[:, None] * change.T) / scale
        new.weights[-1] = nn.Parameter((self.weights[-1] @ to).detach())
        new.offsets[-1] = nn.Parameter((self.offsets[-1] @ to).detach())
        new.linear = nn.Parameter((self.linear @ change.T).detach())
        return new

    def to_stress(self, means: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The last layer with the means of the stress modes multiplied into it, which gives the homogenised stress.

        Args:
            means: (d, r) of the stress modes that the coefficients belong to.

        Returns:
            The matrix (d, d) of the strain, the matrix (w, d) of the units of the last hidden layer, and a constant
            (d,). With `through_zero` the constant is zero, and the stress at zero strain must be subtracted.

        Raises:
            ValueError: no means.
        """
        if means is None:
            raise ValueError("means = None: need those of the stress modes, (d, r)")
        last = self.weights[-1] @ (self.scale[:, None] * means.T)
        if self.linear is not None:
            return means @ self.linear.T, last, means.new_zeros(len(means))
        constant = means @ (self.scale * self.offsets[-1] + self.mean)
        return means.new_zeros(len(means), len(means)), last, constant

    def forward(self, strain: Tensor) -> Tensor:
        """Coefficients (n, r)."""
        y = self._chain(strain / self.half_range)
        if self.linear is None:
            return self.scale * y + self.mean
        return strain @ self.linear + self.scale * (y - self._chain(strain.new_zeros(1, strain.shape[1])))

    def _chain(self, x: Tensor) -> Tensor:
        f = ACTIVATIONS[self.activation]
        x = torch.cat([x, self.norms(x)[0]], dim=1)
        for a, c in zip(self.weights[:-1], self.offsets[:-1], strict=True):
            x = f(x @ a + c).value
        return x @ self.weights[-1] + self.offsets[-1]

    def with_tangent(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (n, r) and their derivatives (n, r, d) by forward mode."""
        f = ACTIVATIONS[self.activation]
        n, d = strain.shape
        x = strain / self.half_range
        norms, gradients = self.norms(x)
        x = torch.cat([x, norms], dim=1)
        # The d directions of the derivative pass through the layers with the value, as rows of one matrix product.
        directions = torch.cat([torch.eye(d, dtype=x.dtype, device=x.device).expand(n, d, d), gradients], dim=2)
        directions = directions.transpose(0, 1) / self.half_range[:, None, None]
        for a, c in zip(self.weights[:-1], self.offsets[:-1], strict=True):
            layer = f(x @ a + c)
            x, directions = layer.value, layer.slope * (directions @ a)
        y = x @ self.weights[-1] + self.offsets[-1]
        derivative = (directions @ self.weights[-1]).permute(1, 2, 0) * self.scale[:, None]
        if self.linear is None:
            return self.scale * y + self.mean, derivative
        at_zero = self._chain(strain.new_zeros(1, strain.shape[1]))
        return strain @ self.linear + self.scale * (y - at_zero), derivative + self.linear.T


class Potential(nn.Module):
    """Effective energy as a function of the strain, W(E) = ½ E·C₀ E + s (g(x) − g(0) − ∇g(0)·x), x = E/h.

    g takes the strain and its norms through two hidden layers to one number. The stress is dW/dE and the tangent
    d²W/dE². So the stress vanishes at zero strain, the tangent is symmetric and the work of a closed strain path is
    zero, for any weights.

    Args:
        stiffness: C₀ (d, d) [MPa], symmetric.
        half_range: h (d,).
        scale: s [MPa], the size of the energy that is not quadratic.
        width: of both hidden layers.
        norms: number of norms.
        seed: of the initial weights.
    """

    stiffness: Tensor
    half_range: Tensor
    scale: Tensor

    def __init__(
        self, stiffness: Tensor, half_range: Tensor, scale: float, *, width: int = 24, norms: int = 8, seed: int = 0
    ):
        super().__init__()
        self.width, generator = width, torch.Generator().manual_seed(seed)
        d = half_range.numel()
        self.weights, self.offsets = layers([d + norms, width, width, 1], generator)
        self.norms = Norms(d, norms, generator)
        self.register_buffer("stiffness", stiffness.clone())
        self.register_buffer("half_range", half_range.clone())
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))

    def to_json(self) -> dict[str, Any]:
        """The shape of the network for JSON; its parameters are in its `state_dict`."""
        return {"width": self.width, "norms": len(self.norms.maps)}

    @classmethod
    def from_json(cls, shape: dict[str, Any], strain_size: int) -> "Potential":
        """A network of this shape for strains of `strain_size` components, whose parameters are not loaded yet."""
        stiffness = torch.eye(strain_size, dtype=torch.float64)
        half_range = torch.ones(strain_size, dtype=torch.float64)
        return cls(stiffness, half_range, 1.0, width=shape["width"], norms=shape["norms"])

    def energy(self, strain: Tensor) -> Tensor:
        """W (n,) [MPa]."""
        x = strain / self.half_range
        zero = x.new_zeros(1, x.shape[1])
        value, (gradient, _) = self._value(torch.cat([zero, x])), self._derivatives(zero)
        part = value[1:] - value[0] - x @ gradient[0]
        return 0.5 * (strain * (strain @ self.stiffness)).sum(-1) + self.scale * part

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Stress (n, d) and tangent (n, d, d) [MPa]."""
        x = strain / self.half_range
        gradient, hessian = self._derivatives(torch.cat([x.new_zeros(1, x.shape[1]), x]))
        unit = self.scale / self.half_range
        stress = strain @ self.stiffness + unit * (gradient[1:] - gradient[0])
        tangent = self.stiffness + hessian[1:] * (unit[:, None] / self.half_range)
        return stress, (tangent + tangent.mT) / 2  # equal up to rounding

    def _value(self, x: Tensor) -> Tensor:
        """g (n,)."""
        h = torch.cat([x, self.norms(x)[0]], dim=1)
        for a, c in zip(self.weights[:-1], self.offsets[:-1], strict=True):
            h = torch.tanh(h @ a + c)
        return (h @ self.weights[-1])[:, 0]

    def _derivatives(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """∇g (n, d) and ∇²g (n, d, d).

        Each macroscale iteration evaluates this, so it consists of products of large matrices.
        """
        a1, a2, a3 = self.weights
        n, d = x.shape
        norms, gradients = self.norms(x)
        one = tanh(torch.addmm(self.offsets[0], torch.cat([x, norms], dim=1), a1))
        two = tanh(torch.addmm(self.offsets[1], one.value, a2))
        back = two.slope @ (a3 * a2.T)
        outer = (back * one.slope) @ a1.T
        through = outer[:, d:]
        gradient = outer[:, :d] + (gradients @ through[:, :, None])[:, :, 0]
        # Curvature of the second layer along its derivative by each strain component, of the first layer likewise, and
        # of the norms.
        first = (gradients.reshape(n * d, -1) @ a1[d:]).view(n, d, -1) + a1[:d]
        second = ((one.slope[:, None] * first).view(n * d, -1) @ a2).view(n, d, -1)
        curved = through / norms
        hessian = (second * (a3[:, 0] * two.curvature)[:, None]) @ second.mT
        hessian = hessian.baddbmm(first * (back * one.curvature)[:, None], first.mT)
        hessian = hessian.baddbmm(gradients * curved[:, None], gradients.mT, alpha=-1)
        return gradient, hessian + (curved @ self.norms.metrics().reshape(-1, d * d)).view(n, d, d)


class Values(NamedTuple):
    """Values of a network at n strains.

    Args:
        strain: (n, d).
        value: (n, r).
        derivative: (n, r, d), by the strain.
    """

    strain: Tensor
    value: Tensor
    derivative: Tensor

    def at(self, rows: Any) -> "Values":
        """The values at some of the strains."""
        return Values(*(x[rows] for x in self))


@dataclass(frozen=True, slots=True, eq=False)
class SobolevError:
    """Relative squared errors of a network: of its values and, with a tenth of the weight, of its derivatives.

    Args:
        evaluate: strains (n, d) → values (n, r) and their derivatives (n, r, d).
        size: (r, r), multiplies the values before they are squared.
        directions: (d, d), strains as columns, along which the derivatives are taken.
    """

    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]
    size: Tensor
    directions: Tensor

    def __call__(self, target: Values) -> Tensor:
        """Errors (n,) at the strains of exact values."""
        value, derivative = self.evaluate(target.strain)
        error = self._relative((value - target.value) @ self.size.T, target.value @ self.size.T)
        both = derivative - target.derivative, target.derivative
        return error + _DERIVATIVES * self._relative(*(((self.size @ s) @ self.directions).flatten(1) for s in both))

    def mean(self, target: Values) -> Tensor:
        """The mean error (), the loss of a training."""
        return self(target).mean()

    @staticmethod
    def _relative(error: Tensor, target: Tensor) -> Tensor:
        squares = target.square().sum(-1)
        return error.square().sum(-1) / (squares + _SMALL * squares.mean())
