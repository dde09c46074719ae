# SPDX-License-Identifier: MIT
"""Strong conditions, exact for whatever a network says: Dirichlet values, tied dofs, integrals.

All are affine maps of fields (dofs, ...). `expand` comes first, then `fix` and `with_integral` in any order: the
correction of the integral moves no fixed dof and leaves tied ones equal.
"""

import torch
from torch import Tensor

from spon.spaces.space import Space


def fix(space: Space, x: Tensor) -> Tensor:
    """The field with the Dirichlet values of the space, to the last bit."""
    shape = (space.dofs,) + (1,) * (x.ndim - 1)
    return torch.where(space.fixed.view(shape), space.lifting.view(shape), x)


def restrict(space: Space, x: Tensor) -> Tensor:
    """The independent dofs (m, ...) of a field; the opposite of `expand`."""
    return x[space.independent]


def expand(space: Space, y: Tensor) -> Tensor:
    """The field whose tied dofs equal their masters, from its independent dofs (m, ...).

    Its transpose, `space.tying.T @ r`, adds up residuals.
    """
    return space.tying @ y


def integral(space: Space, x: Tensor) -> Tensor:
    """Integral of each component (components, ...) of fields; divide by `space.volume` for means."""
    return torch.tensordot(space.integral.T, x, 1)


def with_integral(space: Space, x: Tensor, target: Tensor | float = 0.0) -> Tensor:
    """The field nearest in L² that has a given integral and meets the same strong conditions.

    target: (components, ...) or what broadcasts to it.

    Raises:
        ValueError: fixed dofs leave the integral no room.
    """
    if space.correction.shape[1] == 0:
        raise ValueError("the Dirichlet values fix all dofs of some component, so that its integral is given with them")
    missing = target - integral(space, x)
    return x + torch.tensordot(space.correction, missing, 1)
