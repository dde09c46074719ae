# SPDX-License-Identifier: MIT
"""Processors that work on features (nodes, batch, channels) at the nodes alone, and their maps of these features.

A map is called with the features and the `Hierarchy` of the space. With `linear=True` it has neither activations nor
offsets and is a linear map of its features; its coefficients may still vary in space.

Parameters belong to no single node or edge, so that results do not depend on the numbering of the mesh.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spon.operators.coarsening import CoarseGrids
from spon.operators.discretisation import Discretisation
from spon.operators.encoder import Encoded
from spon.operators.processors.base import Processor, Sizes, dense, perceptron
from spon.operators.processors.levels import Hierarchy, Level
from spon.sparse import SparseOperator


class NodeProcessor(Processor):
    """A lift of inputs to channels at each node, followed by a `map` of the channels.

    A prediction that is linear in some inputs is b(h) ⊙ M(a(h) ⊙ L f), with the features h of the other inputs, learned
    gates a and b, a lift L of the linear inputs f and a linear map M of the same kind.

    Args:
        discretisation: with coarse spaces if the map uses them.
        sizes: of inputs and prediction.
        generator: of the initial parameters.
        channels: features at a node.
        **options: of the map.
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

    def forward(self, encoded: Encoded, carry: Sequence[SparseOperator]) -> list[Tensor]:
        """Scaled components at the nodes of each part.

        Args:
            encoded: the inputs.
            carry: see `Discretisation`.
        """
        h = self.layers(self.lift(encoded.nodes), self.hierarchy)
        if self.linear:
            before, after = self.gates(h).chunk(2, -1)
            h = after * self.linear_layers(before * self.load(encoded.linear_nodes), self.hierarchy)
        return [self.readout(x) for x in (h, *(matrix @ h for matrix in carry))]


class Update(nn.Module):
    """h + f(h, m) at each node separately, with features h and `more` channels m."""

    def __init__(self, channels: int, more: int, generator: torch.Generator, linear: bool):
        super().__init__()
        inputs = channels + more
        if linear:
            self.layers: nn.Module = dense(inputs, channels, generator, offset=False)
        else:
            self.layers = perceptron([inputs, channels, channels], generator)

    def forward(self, h: Tensor, *m: Tensor) -> Tensor:
        return h + self.layers(torch.cat([h, *m], -1))


class NodeWise(nn.Module):
    """A perceptron at each node separately."""

    def __init__(self, channels: int, hierarchy: Hierarchy, generator: torch.Generator, linear: bool, depth: int = 3):
        super().__init__()
        self.layers = nn.ModuleList(Update(channels, 0, generator, linear) for _ in range(depth))

    def forward(self, h: Tensor, hierarchy: Hierarchy) -> Tensor:
        for layer in self.layers:
            h = layer(h)
        return h


class PerceptronProcessor(NodeProcessor):
    """A perceptron at each node separately."""

    map = NodeWise


class Message(nn.Module):
    """One round of messages along edges: the sender's features times a learned weight of the edge's features."""

    def __init__(self, channels: int, d: int, generator: torch.Generator, linear: bool):
        super().__init__()
        self.weight = perceptron([d + 3, channels, channels], generator)
        self.source = dense(channels, channels, generator, offset=False)
        self.update = Update(channels, channels, generator, linear)

    def forward(self, h: Tensor, level: Level) -> Tensor:
        weight = self.weight(level.features)[:, None]
        return self.update(h, level.gather(weight * level.send(self.source(h))))


class Rounds(nn.Module):
    """Layers one after the other on the finest space.

    Args:
        layers: maps of features at the nodes, given a level.
    """

    def __init__(self, layers: Iterable[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, h: Tensor, hierarchy: Hierarchy) -> Tensor:
        for layer in self.layers:
            h = layer(h, hierarchy.levels[0])
        return h


class Messages(Rounds):
    """Rounds of messages on the graph of the finest space (Bouziani & Boullé, arXiv 2410.01065)."""

    def __init__(self, channels: int, hierarchy: Hierarchy, generator: torch.Generator, linear: bool, depth: int = 6):
        d = hierarchy.levels[0].coordinates.shape[1]
        super().__init__(Message(channels, d, generator, linear) for _ in range(depth))


class MessageProcessor(NodeProcessor):
    """SPON: messages along the edges of the finest space."""

    map = Messages


class Multigrid(nn.Module):
    """Most of the work on the coarsest space, one round of messages before and after it on the others (SPON-MG).

    After Bouziani & Boullé, arXiv 2410.01065.

    Args:
        channels: features at a node.
        hierarchy: with at least one coarse space.
        generator: of the initial parameters.
        linear: without activations and offsets.
        depth: rounds of messages on the coarsest space.
        wide: channels on the coarsest space relative to those on the others.
        cycle: "V" or "W", which visits each coarser space twice.
        shared: whether all finer spaces have the same weights.

    Raises:
        ValueError: another cycle.
    """

    def __init__(
        self,
        channels: int,
        hierarchy: Hierarchy,
        generator: torch.Generator,
        linear: bool,
        depth: int = 4,
        wide: int = 4,
        cycle: str = "V",
        shared: bool = False,
    ):
        super().__init__()
        if cycle not in ("V", "W"):
            raise ValueError(f"cycle = {cycle!r}, need 'V' or 'W'")
        d, finer = hierarchy.levels[0].coordinates.shape[1], len(hierarchy.prolong)
        self.visits = {"V": 1, "W": 2}[cycle]
        light = [[Message(channels, d, generator, linear) for _ in range(1 if shared else finer)] for _ in range(2)]
        self.before, self.after = map(nn.ModuleList, light)
        self.widen = dense(channels, wide * channels, generator, offset=False)
        self.deep = nn.ModuleList(Message(wide * channels, d, generator, linear) for _ in range(depth))
        self.narrow = dense(wide * channels, channels, generator, offset=False)

    def forward(self, h: Tensor, hierarchy: Hierarchy, k: int = 0) -> Tensor:
        """From the k-th space to the coarsest and back."""
        level = hierarchy.levels[k]
        if k == len(hierarchy.prolong):
            h = self.widen(h)
            for layer in self.deep:
                h = layer(h, level)
            return self.narrow(h)
        before, after = self.before[k % len(self.before)], self.after[k % len(self.after)]
        h = before(h, level)
        # The coarsest space is visited once for each visit of the one above it.
        for _ in range(self.visits if k + 1 < len(hierarchy.prolong) else 1):
            h = after(h + hierarchy.prolong[k](self(hierarchy.restrict[k](h), hierarchy, k + 1)), level)
        return h


class MultigridProcessor(NodeProcessor):
    """SPON-MG: messages on a hierarchy of spaces."""

    map = Multigrid
    coarse_grids = CoarseGrids(cells=2)
    needs_coarse = True


class Stencil(nn.Module):
    """Σ_k A_k h W_k with the stencils A_k of a level and learned mixings W_k of channels."""

    def __init__(self, channels: int, d: int, generator: torch.Generator):
        super().__init__()
        # A cycle is a product of many stencils: this gain keeps its initial size near one.
        self.mix = dense((3 + d) * channels, channels, generator, offset=False, gain=0.5)

    def forward(self, h: Tensor, level: Level) -> Tensor:
        n, batch, channels = h.shape
        parts = level.stencils(h).view(-1, n, batch, channels).permute(1, 2, 0, 3)
        return self.mix(parts.reshape(n, batch, -1))


class Cycle(nn.Module):
    """A linear V-cycle: on each space u ← u + S (f − A u), first from u = 0, with learned A and S.

    After He, Liu & Xu, arXiv 2310.19809, with stencils of the space in place of convolutions.

    Args:
        channels: features at a node.
        hierarchy: of spaces.
        generator: of the initial parameters.
        residual: restrict the residual f − A u and start from zero, as in multigrid; else f and u, as published.
    """

    def __init__(self, channels: int, hierarchy: Hierarchy, generator: torch.Generator, residual: bool):
        super().__init__()
        d, count = hierarchy.levels[0].coordinates.shape[1], len(hierarchy.levels)
        self.residual = residual
        self.A, self.S = (nn.ModuleList(Stencil(channels, d, generator) for _ in range(count)) for _ in range(2))
        self.last = Stencil(channels, d, generator)  # the coarsest space is smoothed twice

    def forward(self, f: Tensor, hierarchy: Hierarchy) -> Tensor:
        found: list[Tensor] = []
        u = None  # zero
        for k, level in enumerate(hierarchy.levels):
            step = self.S[k](self._residual(f, u, k, level), level)
            u = step if u is None else u + step
            if k < len(hierarchy.restrict):
                found.append(u)
                restrict = hierarchy.restrict[k]
                f, u = (restrict(self._residual(f, u, k, level)), None) if self.residual else (restrict(f), restrict(u))
        u = u + self.last(self._residual(f, u, k, level), level)
        for finer, prolong in zip(reversed(found), reversed(hierarchy.prolong)):
            u = finer + prolong(u)
        return u

    def _residual(self, f: Tensor, u: Tensor | None, k: int, level: Level) -> Tensor:
        return f if u is None else f - self.A[k](u, level)


class MgNO(nn.Module):
    """u ← swish(W u + u C + b) with V-cycles W, mixings C of channels and a function b on the space.

    After He, Liu & Xu, arXiv 2310.19809.
    """

    def __init__(
        self,
        channels: int,
        hierarchy: Hierarchy,
        generator: torch.Generator,
        linear: bool,
        depth: int = 4,
        residual: bool = True,
    ):
        super().__init__()
        d = hierarchy.levels[0].coordinates.shape[1]
        self.linear = linear
        self.cycles = nn.ModuleList(Cycle(channels, hierarchy, generator, residual) for _ in range(depth))
        self.mixings = nn.ModuleList(dense(channels, channels, generator, offset=False) for _ in range(depth))
        biases = 0 if linear else depth
        self.biases = nn.ModuleList(perceptron([d, channels, channels], generator) for _ in range(biases))

    def forward(self, h: Tensor, hierarchy: Hierarchy) -> Tensor:
        for k, (cycle, mix) in enumerate(zip(self.cycles, self.mixings)):
            h = cycle(h, hierarchy) + mix(h)
            if not self.linear:
                h = nn.functional.silu(h + self.biases[k](hierarchy.levels[0].coordinates)[:, None])
        return h


class MgNOProcessor(NodeProcessor):
    """MgNO: learned V-cycles."""

    map = MgNO
    coarse_grids = CoarseGrids(cells=2)


class Attend(nn.Module):
    """One round of attention Q (Kᵀ M V), with the matrix M of `Level.mean`: its sums over all nodes are integrals.

    Of Galerkin type after Cao (NeurIPS 2021, arXiv 2105.14995), who normalises K and V on a regular grid. If it is
    linear, queries and keys depend on the coordinates alone, and it is an integral operator with a learned kernel.
    """

    def __init__(self, channels: int, d: int, generator: torch.Generator, linear: bool, heads: int):
        super().__init__()
        self.linear, self.heads = linear, heads
        sizes = [d, channels, 2 * channels] if linear else [channels, 2 * channels]
        self.queries_and_keys = perceptron(sizes, generator)
        self.value = dense(channels, channels, generator, offset=False)
        self.update = Update(channels, channels, generator, linear)

    def forward(self, h: Tensor, level: Level) -> Tensor:
        features = level.coordinates[:, None].expand(-1, h.shape[1], -1) if self.linear else h
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)) for x in (*self.queries_and_keys(features).chunk(2, -1), self.value(h))
        )
        size = k.shape[-1:]
        k = nn.functional.layer_norm(k, size)
        v = v if self.linear else nn.functional.layer_norm(v, size)
        means = torch.einsum("nbhi,nbhj->bhij", k, level.mean(v))
        return self.update(h, torch.einsum("nbhi,bhij->nbhj", q, means).flatten(-2) / size[0])


class Attention(Rounds):
    """Rounds of attention between all nodes, at a cost proportional to the number of nodes."""

    def __init__(
        self,
        channels: int,
        hierarchy: Hierarchy,
        generator: torch.Generator,
        linear: bool,
        depth: int = 4,
        heads: int = 4,
    ):
        if heads < 1 or channels % heads:
            raise ValueError(f"heads = {heads}, need a divisor of the {channels} channels")
        d = hierarchy.levels[0].coordinates.shape[1]
        super().__init__(Attend(channels, d, generator, linear, heads) for _ in range(depth))


class AttentionProcessor(NodeProcessor):
    """Attention between all nodes."""

    map = Attention
