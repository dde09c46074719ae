# SPDX-License-Identifier: MIT
"""The interface of processors to operator networks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spon.operators.coarsening import CoarseGrids
from spon.operators.discretisation import Discretisation, nodes


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of scaled values that a processor takes and predicts.

    Args:
        node_features: at each node, coordinates and Dirichlet conditions.
        inputs: components of the inputs that predictions may depend on nonlinearly.
        linear_inputs: components of the inputs that predictions are linear in.
        components: of the prediction, in all parts of the output.
    """

    node_features: int
    inputs: int
    linear_inputs: int
    components: int

    @property
    def linear(self) -> bool:
        """Whether predictions are linear in some input."""
        return self.linear_inputs > 0


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


class Processor(nn.Module, ABC):
    """A learned map from encoded inputs to hidden features at the nodes, and its readout.

    An instance is `cls(discretisation, sizes, generator, **options)`; its parameters belong to no node, so that they
    are valid for any mesh.

    Attributes:
        at_points: whether it also takes inputs at the quadrature points, which only Lagrange outputs have.
        coarse_grids: its default coarse spaces; None if it uses none.
        needs_coarse: whether it requires at least one coarse space.
        nests: whether `coarsen` moves its work to coarser spaces.
        vanishes: whether its prediction of the first part vanishes where all its Dirichlet values do.
        readout: layer from hidden features to components.
    """

    at_points: ClassVar[bool] = False
    coarse_grids: ClassVar[CoarseGrids | None] = None
    needs_coarse: ClassVar[bool] = False
    nests: ClassVar[bool] = False
    vanishes: ClassVar[bool] = False
    readout: nn.Linear

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Hidden features (nodes, batch, hidden)."""

    def predict(self, hidden: Tensor) -> Tensor:
        """Scaled components (nodes, batch, components) of hidden features (nodes, batch, hidden), at any nodes."""
        return self.readout(hidden)

    def extension(self, discretisation: Discretisation) -> Tensor:
        """Values (nodes, components of the first part) that are added to every prediction; zero if not overridden."""
        space = discretisation.output
        return torch.zeros(len(nodes(space)), space.block_size, dtype=torch.float64)

    def fixed_options(self) -> dict[str, Any]:
        """Options whose values the network keeps on other spaces, because their defaults depend on the spaces."""
        return {}

    def coarsen(self, levels: int) -> None:
        """Move all work to spaces that are coarser by so many levels, at most to the coarsest.

        Raises:
            ValueError: the processor does not support it.
        """
        if levels:
            raise ValueError(f"the processor {type(self).__name__} cannot move to coarser spaces, need 'fluxes'")
