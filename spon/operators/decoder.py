# SPDX-License-Identifier: MIT
"""From scaled predictions at nodes to a field that satisfies all conditions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spon.operators.discretisation import Discretisation
from spon.operators.structure import Structure
from spon.spaces import constraints


class Decoder(nn.Module):
    """The field of the space of the prediction, with its strong conditions and prescribed integrals.

    Args:
        parts: number of components of each part of the output.
        structure: prescribed integrals of the field, and whether it is an increment.
        extension: (nodes, components), added to every prediction of the first part unless it is an increment.

    Attributes:
        mean, scale: (components,), from scaled predictions to values.
    """

    mean: Tensor
    scale: Tensor
    extension: Tensor

    def __init__(self, parts: Sequence[int], structure: Structure, extension: Tensor):
        super().__init__()
        self.parts, self.structure = list(parts), structure
        self.register_buffer("mean", torch.zeros(sum(parts), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(sum(parts), dtype=torch.float64))
        self.register_buffer("extension", 0 * extension if structure.increment else extension, persistent=False)

    def forward(self, spaces: Discretisation, predicted: Sequence[Tensor], before: Tensor | None) -> Tensor:
        """The field (dofs, batch) of scaled predictions.

        Args:
            spaces: in the precision and on the device of the predictions.
            predicted: (nodes, batch, components of all parts) at the nodes of each part.
            before: (dofs, batch), the input in the space of the prediction, or None.
        """
        values = [y * self.scale + self.mean for y in predicted]
        parts = [y.split(self.parts, -1)[k] for k, y in enumerate(values)]
        parts[0] = parts[0] + self.extension[:, None]
        return self.field(spaces, parts, before)

    def field(self, spaces: Discretisation, values: Sequence[Tensor], before: Tensor | None) -> Tensor:
        """The field (dofs, batch) with values at nodes that satisfies all conditions.

        Args:
            spaces: in the precision and on the device of the values.
            values: (nodes, batch, components) of each part.
            before: (dofs, batch), the input in the space of the prediction, or None.
        """
        increment, fields = self.structure.increment, []
        for space, y, target in zip(spaces.parts, values, self.structure.integrals(len(spaces.parts))):
            x = y.transpose(1, 2).reshape(-1, y.shape[1])
            if increment and spaces.curl is None:
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
        return given(before) + x if increment else x


def given(before: Tensor | None) -> Tensor:
    """The input that increments are added to.

    Raises:
        ValueError: no such input; `Structure.check` rejects such a network.
    """
    if before is None:
        raise ValueError("increments and integral = 'input' need an input in the space of the prediction")
    return before
