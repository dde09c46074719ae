# SPDX-License-Identifier: MIT
"""Strong conditions, exact for any prediction of a network: Dirichlet values, tied dofs, integrals.

All are affine maps of fields (dofs, ...). Apply `expand` first, then `prescribe` and `with_integral` in any order: the
correction of the integral changes no prescribed dof and keeps tied dofs equal.
"""

import warnings

import torch
from torch import Tensor

from spon.spaces.space import Space


def prescribe(space: Space, x: Tensor) -> Tensor:
    """The field with exactly the Dirichlet values of the space."""
    shape = (space.dofs,) + (1,) * (x.ndim - 1)
    return torch.where(space.fixed.view(shape), space.lifting.view(shape), x)


def fix(space: Space, x: Tensor) -> Tensor:
    """The old name of `prescribe`."""
    warnings.warn("spon.spaces.constraints.fix is now prescribe", DeprecationWarning, stacklevel=2)
    return prescribe(space, x)


def restrict(space: Space, x: Tensor) -> Tensor:
    """The independent dofs (m, ...) of a field; the inverse of `expand`."""
    return x[space.independent]


def expand(space: Space, y: Tensor) -> Tensor:
    """The field (dofs, ...) from its independent dofs (m, ...): tied dofs equal their masters.

    The transpose, `space.tying.T @ r`, adds up residuals.
    """
    return space.tying @ y


def integral(space: Space, x: Tensor) -> Tensor:
    """Integral of each component (components, ...) of fields; divide by `space.volume` for means."""
    return torch.tensordot(space.integral.T, x, 1)


def with_integral(space: Space, x: Tensor, target: Tensor | float = 0.0) -> Tensor:
    """The field nearest in L² with a given integral and the same strong conditions.

    Args:
        space: of the field.
        x: (dofs, ...).
        target: (components, ...), or broadcast to it.

    Raises:
        ValueError: the Dirichlet values determine the integral of some component.
    """
    if space.correction.shape[1] == 0:
        raise ValueError("the Dirichlet values fix all dofs of some component and thus its integral")
    residual = target - integral(space, x)
    return x + torch.tensordot(space.correction, residual, 1)
