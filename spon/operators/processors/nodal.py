# SPDX-License-Identifier: MIT
"""Processors that work on features at the nodes alone."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spon.operators.coarsening import CoarseGrids
from spon.operators.discretisation import Discretisation
from spon.operators.processors.base import Encoded, Processor, Sizes
from spon.operators.processors.layers import Attention, Messages, MgNO, Multigrid, NodeWise, dense
from spon.operators.processors.levels import Hierarchy


class NodeProcessor(Processor):
    """A lift of inputs to channels at each node, followed by a `map` of the channels.

    A prediction that is linear in some inputs is b(h) ⊙ M(a(h) ⊙ L f), with the features h of the other inputs, learned
    gates a and b, a lift L of the linear inputs f and a linear map M of the same kind.

    Args:
        discretisation: with coarse spaces if the map uses them.
        sizes: of inputs and prediction.
        generator: of the initial parameters.
        channels: features at a node.
        **options: of the map, see `spon.operators.processors.layers`.
    """

    map: ClassVar[type[nn.Module]]

    def __init__(
        self,
        discretisation: Discretisation,
        sizes: Sizes,
        generator: torch.Generator,
        *,
        channels: int = 16,
        **options: Any,
    ):
        super().__init__()
        self.hierarchy, self.linear = Hierarchy(discretisation), sizes.linear
        self.lift = dense(sizes.node_features + sizes.inputs, channels, generator)
        self.layers = self.map(channels, self.hierarchy, generator, False, **options)
        self.readout = dense(channels, sizes.components, generator, offset=not sizes.linear)
        if sizes.linear:
            self.gates = dense(channels, 2 * channels, generator)
            self.load = dense(sizes.linear_inputs, channels, generator, offset=False)
            self.linear_layers = self.map(channels, self.hierarchy, generator, True, **options)

    def forward(self, encoded: Encoded) -> Tensor:
        """Hidden features (nodes, batch, channels)."""
        h = self.layers(self.lift(encoded.nodes), self.hierarchy)
        if not self.linear:
            return h
        before, after = self.gates(h).chunk(2, -1)
        return after * self.linear_layers(before * self.load(encoded.linear_nodes), self.hierarchy)


class PerceptronProcessor(NodeProcessor):
    """A perceptron at each node separately."""

    map = NodeWise


class MessageProcessor(NodeProcessor):
    """SPON: messages along the edges of the finest space."""

    map = Messages


class MultigridProcessor(NodeProcessor):
    """SPON-MG: messages on a hierarchy of spaces."""

    map = Multigrid
    coarse_grids = CoarseGrids(cells=2)
    needs_coarse = True


class MgNOProcessor(NodeProcessor):
    """MgNO: learned V-cycles."""

    map = MgNO
    coarse_grids = CoarseGrids(cells=2)


class AttentionProcessor(NodeProcessor):
    """Attention between all nodes."""

    map = Attention
