# SPDX-License-Identifier: MIT
"""Scales of the predictions of a network, from samples or from a loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spon.spaces.space import Space

_POWERS = 64  # scales are among 2^-64 ... 2^64


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
