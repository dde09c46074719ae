# SPDX-License-Identifier: MIT
"""From input fields to scaled values at the nodes of the output, and at its quadrature points."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spon.operators.discretisation import Discretisation, node_coordinates, nodes
from spon.operators.normalisation import positive
from spon.spaces.space import Space


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Scaled inputs of a processor.

    Args:
        nodes: (nodes, batch, node features + inputs).
        linear_nodes: (nodes, batch, linear inputs).
        points: (points, batch, inputs) at the quadrature points of the output, None unless the processor uses them.
        linear_points: (points, batch, linear inputs) at the same points.
    """

    nodes: Tensor
    linear_nodes: Tensor
    points: Tensor | None = None
    linear_points: Tensor | None = None


class Encoder(nn.Module):
    """Inputs at the nodes of the output, scaled, beside features of the nodes.

    Args:
        discretisation: in float64 on the CPU.
        linear_in: numbers of the inputs in which the network is linear.
        at_points: whether the inputs are also taken at the quadrature points of the output.

    Attributes:
        node_features: (nodes, features), coordinates, and Dirichlet conditions with their values.
        scalings: the `InputScaling` of each input.
    """

    node_features: Tensor

    def __init__(self, discretisation: Discretisation, linear_in: Sequence[int], at_points: bool):
        super().__init__()
        self.at_points = at_points
        self.register_buffer("node_features", _node_features(discretisation.output), persistent=False)
        components = [matrix.shape[0] // len(self.node_features) for matrix in discretisation.encoders]
        self.scalings = nn.ModuleList(InputScaling(size, k in linear_in) for k, size in enumerate(components))

    def width(self, linear: bool) -> int:
        """Number of scaled values of the inputs in which the network is linear, or of the others."""
        return sum(scaling.width for scaling in self.scalings if scaling.linear is linear)

    def forward(self, spaces: Discretisation, inputs: Sequence[Tensor]) -> Encoded:
        """Scaled inputs of the processor.

        Args:
            spaces: in the precision and on the device of the inputs.
            inputs: (dofs, batch) each.

        Raises:
            ValueError: an input of another shape.
        """
        others, linear = self._scaled(spaces, inputs, points=False)
        features = self.node_features[:, None].expand(-1, inputs[0].shape[1], -1)
        at_nodes = torch.cat([features, others], -1)
        if not self.at_points:
            return Encoded(at_nodes, linear)
        return Encoded(at_nodes, linear, *self._scaled(spaces, inputs, points=True))

    def _scaled(self, spaces: Discretisation, inputs: Sequence[Tensor], points: bool) -> list[Tensor]:
        """Scaled values (nodes or points, batch, .) of the nonlinear inputs, and of the linear ones."""
        fields = [
            scaling(input_values(spaces, k, x, points=points))
            for k, (x, scaling) in enumerate(zip(inputs, self.scalings))
        ]
        empty = fields[0][..., :0]
        return [
            torch.cat([empty, *(x for x, scaling in zip(fields, self.scalings) if scaling.linear is linear)], -1)
            for linear in (False, True)
        ]


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


def input_values(spaces: Discretisation, k: int, x: Tensor, *, points: bool = False) -> Tensor:
    """Values (nodes, batch, components) of an input.

    Args:
        spaces: in the precision and on the device of the input.
        k: number of the input.
        x: (dofs, batch).
        points: at the quadrature points of the output instead of its nodes.

    Raises:
        ValueError: an input of another shape.
    """
    matrix = (spaces.point_encoders if points else spaces.encoders)[k]
    if x.ndim != 2 or len(x) != matrix.shape[1]:
        raise ValueError(f"input {k} has the shape {tuple(x.shape)}, need ({matrix.shape[1]}, batch)")
    count = len(spaces.points[0].weights if points else nodes(spaces.output))
    return (matrix @ x).view(count, -1, x.shape[1]).transpose(1, 2)


def _node_features(space: Space) -> Tensor:
    """Features of the nodes (nodes, features): coordinates, and Dirichlet conditions with their values."""
    here, largest = nodes(space), space.lifting.abs().max()
    conditions = [space.fixed.double(), space.lifting / torch.where(largest > 0, largest, 1.0)]
    coordinates = node_coordinates(space, space.points.min(0).values, space.points.max(0).values)
    return torch.cat([coordinates, *(values.view(-1, space.block_size)[here] for values in conditions)], 1)
