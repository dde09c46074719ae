# SPDX-License-Identifier: MIT
"""From predicted values at nodes to a field that satisfies all conditions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spon.operators.discretisation import Discretisation
from spon.operators.structure import Structure
from spon.spaces import constraints


def decode(spaces: Discretisation, structure: Structure, values: Sequence[Tensor], before: Tensor | None) -> Tensor:
    """The field (dofs, batch) of the space of the prediction.

    Args:
        spaces: in the precision and on the device of the values.
        structure: prescribed integrals of the field, and whether it is an increment.
        values: (nodes, batch, components) of each part.
        before: (dofs, batch), the input in the space of the prediction, or None.
    """
    fields = []
    for space, y, target in zip(spaces.parts, values, structure.integrals(len(spaces.parts))):
        x = y.transpose(1, 2).reshape(-1, y.shape[1])
        if structure.increment and spaces.curl is None:
            x = x + constraints.restrict(space, given(before))
        x = constraints.prescribe(space, constraints.expand(space, x))
        if target is not None:
            wanted = constraints.integral(space, given(before)) if isinstance(target, str) else target
            x = constraints.with_integral(space, x, wanted)
        fields.append(x)
    if spaces.join is not None:
        return spaces.join @ torch.cat(fields)
    (x,) = fields
    if spaces.curl is None:
        return x
    x = spaces.curl @ x
    return given(before) + x if structure.increment else x


def given(before: Tensor | None) -> Tensor:
    """The input that increments are added to.

    Raises:
        ValueError: no such input; `Structure.check` rejects such a network.
    """
    if before is None:
        raise ValueError("increments and integral = 'input' need an input in the space of the prediction")
    return before
