# SPDX-License-Identifier: MIT
"""Norms of fields (dofs, ...), one value for each of what is batched, from the matrices of their space.

They are differentiable; at the zero field the derivative is taken as zero.
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
    """‖∇x‖, ‖div x‖ or ‖curl x‖ in L², see `Space.seminorm`."""
    return _root(_form(space.stiffness, x))


def natural(space: Space, x: Tensor) -> Tensor:
    """The norm of H¹, H(div) or H(curl): the root of the sum of the squares of `l2` and `seminorm`."""
    return _root(_form(space.mass, x) + _form(space.stiffness, x))


def relative(
    norm: Callable[[Space, Tensor], Tensor], space: Space | MixedSpace, x: Tensor, reference: Tensor
) -> Tensor:
    """‖x − reference‖ / ‖reference‖ in one of the norms above; of a mixed space, its mean over the parts."""
    both = zip(split(space, x), split(space, reference))
    errors = [norm(part, a - b) / norm(part, b) for (part, a), (_, b) in both]
    return sum(errors[1:], errors[0]) / len(errors)


def split(space: Space | MixedSpace, x: Tensor) -> list[tuple[Space, Tensor]]:
    """The parts of a mixed space that are not mixed, and the field (dofs, ...) of each; else the two as they are."""
    if isinstance(space, Space):
        return [(space, x)]
    return [pair for part, field in zip(space.parts, space.split(x)) for pair in split(part, field)]


def _form(matrix: SparseOperator, x: Tensor) -> Tensor:
    return (x * (matrix @ x)).sum(0)


def _root(square: Tensor) -> Tensor:
    # Rounding may leave a seminorm's square just below zero; what is no number stays none.
    positive = ~(square <= 0)
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
