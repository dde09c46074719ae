# SPDX-License-Identifier: MIT
"""Norms (...) of fields (dofs, ...), from the matrices of their space.

They are differentiable; the derivative at the zero field is zero.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from spon.spaces.space import MixedSpace, Space
from spon.sparse import SparseOperator


def l2(space: Space, x: Tensor) -> Tensor:
    """‖x‖ in L²."""
    return _root(_form(space.mass, x))


def seminorm(space: Space, x: Tensor) -> Tensor:
    """‖∇x‖, ‖div x‖ or ‖curl x‖ in L², by `Space.seminorm`."""
    return _root(_form(space.stiffness, x))


def natural(space: Space, x: Tensor) -> Tensor:
    """The norm of H¹, H(div) or H(curl): the root of the sum of the squares of `l2` and `seminorm`."""
    return _root(_form(space.mass, x) + _form(space.stiffness, x))


def relative(
    norm: Callable[[Space, Tensor], Tensor], space: Space | MixedSpace, x: Tensor, reference: Tensor
) -> Tensor:
    """‖x − reference‖ / ‖reference‖ (...); for a mixed space, the mean over its parts.

    Args:
        norm: `l2`, `seminorm` or `natural`.
        space: of both fields.
        x: (dofs, ...).
        reference: (dofs, ...).
    """
    both = zip(split(space, x), split(space, reference))
    errors = [norm(part, a - b) / norm(part, b) for (part, a), (_, b) in both]
    return sum(errors[1:], errors[0]) / len(errors)


def split(space: Space | MixedSpace, x: Tensor) -> list[tuple[Space, Tensor]]:
    """The unmixed parts of a space, each with its part of a field (dofs, ...)."""
    if isinstance(space, Space):
        return [(space, x)]
    return [pair for part, field in zip(space.parts, space.split(x)) for pair in split(part, field)]


def _form(matrix: SparseOperator, x: Tensor) -> Tensor:
    return (x * (matrix @ x)).sum(0)


def _root(square: Tensor) -> Tensor:
    # Rounding may leave the square of a seminorm just below zero; NaN stays NaN.
    positive = ~(square <= 0)
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
