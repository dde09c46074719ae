# SPDX-License-Identifier: MIT
"""Scales of the inputs and predictions of a network, from samples."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spon.spaces.space import Space

_POWERS = 64  # scales are among 2^-64 ... 2^64


class InputScaling(nn.Module):
    """Scaled components of one input and, unless the network is linear in it, their logarithms.

    Only components that are positive in all samples, such as coefficients, have logarithms; values below the least of
    the samples get its logarithm. The logarithms of other components are zero.

    Args:
        components: of the input.
        linear: whether the network is linear in the input, which then keeps its mean and has no logarithms.

    Attributes:
        width: number of scaled values.
    """

    mean: Tensor
    scale: Tensor
    least: Tensor

    def __init__(self, components: int, linear: bool):
        super().__init__()
        self.linear, self.width = linear, components if linear else 2 * components
        self.register_buffer("mean", torch.zeros(self.width, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(self.width, dtype=torch.float64))
        self.register_buffer("least", torch.zeros(components, dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        """Scaled values (..., width) of values (..., components)."""
        if not self.linear:
            positive = self.least > 0
            logarithms = torch.where(positive, torch.maximum(values, self.least), 1.0).log()
            values = torch.cat([values, logarithms], -1)
        return (values - self.mean) / self.scale

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Take mean and scale from values (n, components) of samples."""
        if not self.linear:
            least = values.amin(0).clamp(min=0.0)
            self.least.copy_(least)
            values = torch.cat([values, torch.where(least > 0, values, 1.0).log()], -1)
        mean = torch.zeros_like(values[0]) if self.linear else values.mean(0)
        self.mean.copy_(mean)
        self.scale.copy_(positive((values - mean).square().mean(0).sqrt()))


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """mean, scale: (components,) of fields at dofs without Dirichlet values."""

    mean: Tensor
    scale: Tensor


def statistics(space: Space, fields: Tensor, centred: bool) -> Statistics:
    """Mean and standard deviation of fields (dofs, samples); `centred` is False for the mean zero."""
    free = torch.where(space.fixed[:, None], torch.nan, fields).view(-1, space.block_size, fields.shape[1])
    mean = free.nanmean((0, 2)).nan_to_num() * centred
    return Statistics(mean, positive((free - mean[:, None]).square().nanmean((0, 2)).sqrt().nan_to_num()))


def scale_of_loss(loss: Callable[[float], float], bound: float) -> float:
    """The least power of two s with loss(s) ≥ bound, by bisection; one if none in range separates the two."""
    lower, upper = -_POWERS, _POWERS
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if loss(2.0**middle) < bound else (lower, middle)
    return 2.0**upper if -_POWERS < lower and upper < _POWERS else 1.0


def positive(scale: Tensor) -> Tensor:
    """A scale to divide by: zero, the scale of uniform fields, becomes one."""
    return torch.where(scale > 0, scale, 1.0)
