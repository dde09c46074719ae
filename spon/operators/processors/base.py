# SPDX-License-Identifier: MIT
"""What all processors have: their interface to operator networks, and layers with reproducible initial weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spon.operators.coarsening import CoarseGrids
from spon.operators.discretisation import Discretisation, nodes
from spon.operators.encoder import Encoded
from spon.sparse import SparseOperator


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


class Processor(nn.Module, ABC):
    """A learned map from encoded inputs to hidden features at the nodes, and from these to a prediction.

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
    def forward(self, encoded: Encoded, carry: Sequence[SparseOperator]) -> list[Tensor]:
        """Scaled components (nodes, batch, components) at the nodes of each part of the output.

        Args:
            encoded: the inputs.
            carry: see `Discretisation`; predictions are read out of the hidden features at the nodes of each part.
        """

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


def dense(inputs: int, outputs: int, generator: torch.Generator, offset: bool = True, gain: float = 1.0) -> nn.Linear:
    """A layer with uniform random weights (Glorot & Bengio, AISTATS 2010) and offsets of zero.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        generator: of the weights.
        offset: whether the layer has offsets.
        gain: factor of the weights.
    """
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=offset, dtype=torch.float64)
    with torch.no_grad():
        nn.init.xavier_uniform_(layer.weight, gain, generator)
        if offset:
            layer.bias.zero_()
    return layer


def perceptron(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Layers of the given sizes with swish between them."""
    chain: list[nn.Module] = [dense(sizes[0], sizes[1], generator)]
    for a, b in pairwise(sizes[1:]):
        chain += [nn.SiLU(), dense(a, b, generator)]
    return nn.Sequential(*chain)
