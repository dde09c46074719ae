# SPDX-License-Identifier: MIT
"""A processor with learned laws at quadrature points, and a fixed solver from their fluxes to fields.

A round is like an iteration of a nonlinear finite element program: gradients of fields → law at the points → fluxes and
sources → loads → fields, by the inverse of the stiffness matrix of the space. Only the law is learned. Each round
acts on the whole domain, as the solution of an elliptic problem does, on any mesh; with the exact laws it is the fixed
point iteration with a homogeneous reference medium (Lippmann–Schwinger equation, see Moulinec & Suquet, CMAME 157,
1998), whose number of rounds does not grow with the mesh. Fields vanish where the output has Dirichlet values.

Most rounds are on a coarser mesh, and a few on that of the output, to which fields and states are interpolated.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn

from spon.operators.coarsening import CoarseGrids
from spon.operators.discretisation import Discretisation, nodes
from spon.operators.encoder import Encoded
from spon.operators.processors.base import Processor, Sizes, dense, perceptron
from spon.operators.processors.levels import Fixed
from spon.operators.processors.poisson import poisson_solvers, stiffness_matrix
from spon.spaces.quadrature import Points
from spon.sparse import SparseOperator


class FluxLaw(nn.Module):
    """At each point: state ← state + f(state, x), fluxes (1 + tanh γ) ⊙ W x + s, with f, γ and s learned of both.

    If it is linear, it is linear in the input x: f and γ depend on the state alone, and s is omitted.

    Args:
        state: size of the state.
        inputs: number of the other inputs of the law.
        fluxes: number of predicted values.
        generator: of the initial parameters.
        linear: whether fluxes are linear in the inputs.
    """

    def __init__(self, state: int, inputs: int, fluxes: int, generator: torch.Generator, linear: bool):
        super().__init__()
        self.linear, self.sizes = linear, [state, fluxes] if linear else [state, fluxes, fluxes]
        self.coefficients = perceptron([state if linear else state + inputs, 2 * state, sum(self.sizes)], generator)
        self.mix = dense(inputs, fluxes, generator, offset=False)

    def forward(self, state: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The new state and the fluxes, (points, batch, ...)."""
        found = self.coefficients(state if self.linear else torch.cat([state, inputs], -1))
        change, gates, *sources = found.split(self.sizes, -1)
        # The gates are bounded, so that repeated rounds do not grow faster than their inputs.
        return state + change, sum(sources, (1 + gates.tanh()) * self.mix(inputs))


class FluxProcessor(Processor):
    """Rounds of laws at the points of the spaces of a discretisation, from a coarse one to that of the output.

    At the end, fields are multiplied by learned functions of the inputs at the nodes. A component of the output is a
    combination of the fields that vanish where it has Dirichlet values.

    Args:
        discretisation: read with quadrature points.
        sizes: of inputs and prediction.
        generator: of the initial parameters.
        channels: twice the number of fields, and the size of the states of laws.
        depth: rounds on the first coarse space.
        finer: rounds on the output's space, added to `depth` without coarse spaces.
        unit: of length, the size of the domain if None; on another domain the network keeps its unit.

    Attributes:
        coarsening: by how many spaces all rounds are moved to coarser ones, see `coarsen`.

    Raises:
        ValueError: a discretisation without points, or a coarsest space that is too large.
    """

    at_points, nests, vanishes = True, True, True
    coarse_grids = CoarseGrids(cells=4)
    reach: Tensor

    def __init__(
        self,
        discretisation: Discretisation,
        sizes: Sizes,
        generator: torch.Generator,
        *,
        channels: int = 16,
        depth: int = 5,
        finer: int = 1,
        unit: float | None = None,
    ):
        super().__init__()
        levels = discretisation.points
        if not levels:
            raise ValueError("the processor 'fluxes' needs an output in a Lagrange space, read with its points")
        space, d = discretisation.output, levels[0].coordinates.shape[1]
        b, here = space.block_size, nodes(space).numpy()
        # Components with the same fixed nodes share fields.
        patterns, group = np.unique(space.fixed.view(-1, b).numpy()[here], axis=1, return_inverse=True)
        self.outputs = max(channels // 2, patterns.shape[1])
        member = np.arange(self.outputs) * patterns.shape[1] // self.outputs
        self.counts = [int(count) for count in np.bincount(member)]
        own = torch.from_numpy((group.ravel()[:, None] == member).astype(float))
        others = torch.ones(sizes.components - b, self.outputs, dtype=torch.float64)  # combinations of all fields
        self.register_buffer("reach", torch.cat([own, others]), persistent=False)
        solvers = (poisson_solvers(levels, discretisation.prolongations, fixed, space.volume) for fixed in patterns.T)
        self.solvers = nn.ModuleList(map(nn.ModuleList, solvers))
        self.unit = unit or self._unit(levels[0], space.volume)
        self.rounds = [1] * depth + [0] * finer if len(levels) > 1 else [0] * (depth + finer)
        self.coarsening = 0
        self._add_levels(levels, space.points.min(0).values, space.points.max(0).values)
        self.linear, fluxes = sizes.linear, self.outputs * (d + 1)
        self.lift = perceptron([d + sizes.inputs, 2 * channels, channels], generator)
        direct = sizes.linear_inputs if self.linear else sizes.inputs
        self.laws = nn.ModuleList(
            FluxLaw(channels, direct + (fluxes if k else 0), fluxes, generator, self.linear)
            for k in range(len(self.rounds))
        )
        features = sizes.node_features + sizes.inputs
        self.scaling = perceptron([features, 2 * channels, self.outputs], generator)
        self.readout = dense(self.outputs, sizes.components, generator, offset=False)

    def _unit(self, finest: Points, volume: float) -> float:
        """The unit of length in which a unit source gives a field of mean one."""
        d = finest.coordinates.shape[1]
        sources = torch.zeros(len(finest.weights), d + 1, dtype=torch.float64)
        sources[:, d] = finest.weights
        load = finest.fields.T @ sources.flatten()
        solver = self.solvers[0][0]  # type: ignore[index]  # of torch's nested lists of modules
        square = float(load @ solver(load[:, None])[:, 0]) / volume
        return square**0.5 if square > 0 else 1.0

    def _add_levels(self, levels: tuple[Points, ...], lower: Tensor, upper: Tensor) -> None:
        """The matrices of each level: gradients and values of fields, loads of fluxes, and means on other levels."""
        d = levels[0].coordinates.shape[1]
        self.gradients, self.load = nn.ModuleList(), nn.ModuleList()
        self.above, self.below = nn.ModuleList(), nn.ModuleList()
        for k, level in enumerate(levels):
            units = torch.tensor([self.unit] * d + [1.0], dtype=torch.float64).repeat(len(level.weights))
            gradients = scipy.sparse.diags_array(units.numpy()) @ level.fields.scipy
            by = scipy.sparse.diags_array(level.weights.repeat_interleave(d + 1).numpy() / self.unit**2)
            self.gradients.append(Fixed(SparseOperator.of(gradients)))
            self.load.append(Fixed(SparseOperator.of(scipy.sparse.csr_array(gradients.T @ by))))
            coordinates = 2 * (level.coordinates - lower) / (upper - lower) - 1
            self.register_buffer(f"coordinates_{k}", coordinates, persistent=False)
            if level.above is not None and level.below is not None:
                self.above.append(Fixed(level.above))
                self.below.append(Fixed(level.below))

    def forward(self, encoded: Encoded, carry: Sequence[SparseOperator]) -> list[Tensor]:
        """Scaled components at the nodes of each part, each from the fields that vanish where it has Dirichlet values.

        Args:
            encoded: the inputs, also at the points.
            carry: see `Discretisation`.
        """
        assert encoded.points is not None and encoded.linear_points is not None  # as `at_points` is set
        batch = encoded.nodes.shape[1]
        inputs = [torch.cat([encoded.points, encoded.linear_points], -1)]
        for above in self.above[: self.rounds[0] + self.coarsening]:
            inputs.append(above(inputs[-1]))
        split = [encoded.points.shape[-1], encoded.linear_points.shape[-1]]
        rounds = [min(level + self.coarsening, len(self.gradients) - 1) for level in self.rounds]
        at = rounds[0]
        fields = state = direct = None
        for k, (level, law) in enumerate(zip(rounds, self.laws)):
            if k == 0 or level < at:
                coordinates = getattr(self, f"coordinates_{level}")[:, None].expand(-1, batch, -1)
                here, linear = inputs[level].split(split, -1)
                fresh = self.lift(torch.cat([coordinates, here], -1))
                state = fresh if k == 0 else fresh + self.below[level](state)
                fields = fields if k == 0 else self._prolong(fields, level)
                direct, at = linear if self.linear else here, level
            arguments = direct if k == 0 else torch.cat([direct, self._at_points(fields, level)], -1)
            state, flux = law(state, arguments)
            flux = flux.view(len(flux), batch, -1, self.outputs).transpose(1, 2).reshape(-1, batch, self.outputs)
            step = self._solve(self.load[level](flux), level)
            fields = step if k == 0 else fields + step
        for level in reversed(range(at)):
            fields = self._prolong(fields, level)
        fields = fields * (1 + self.scaling(encoded.nodes))
        weight = self.readout.weight * self.reach
        return [nn.functional.linear(x, weight) for x in (fields, *(matrix @ fields for matrix in carry))]

    def extension(self, discretisation: Discretisation) -> Tensor:
        """Fields (nodes, components) of the first part with its Dirichlet values and no sources."""
        space, level = discretisation.output, discretisation.points[0]
        values = space.lifting.view(-1, space.block_size)[nodes(space)]
        stiffness = SparseOperator.of(stiffness_matrix(level, 0.0))
        which = [int(field) for field in self.reach[: space.block_size].argmax(1)]
        solvers = [each[0] for each, count in zip(self.solvers, self.counts) for _ in range(count)]  # type: ignore[index]  # of torch's nested lists of modules
        return torch.cat([x - solvers[i](stiffness @ x) for i, x in zip(which, values.T[..., None])], 1)

    def fixed_options(self) -> dict[str, Any]:
        """The unit of length: the flux law is dimensional and keeps the unit of its training."""
        return {"unit": self.unit}

    def coarsen(self, levels: int) -> None:
        """Move all rounds to spaces that are coarser by so many levels, at most to the coarsest.

        Fields are interpolated from there to the output: cheap, and as accurate in the first steps of training.
        """
        self.coarsening = levels

    def _solve(self, load: Tensor, level: int) -> Tensor:
        """Fields (nodes, batch, outputs) of loads on a level."""
        parts = load.split(self.counts, -1)
        return torch.cat([solvers[level](part) for solvers, part in zip(self.solvers, parts)], -1)  # type: ignore[index]  # of torch's nested lists of modules

    def _prolong(self, fields: Tensor, level: int) -> Tensor:
        """Fields of a level from those (nodes, batch, outputs) of the next coarser one."""
        parts = fields.split(self.counts, -1)
        return torch.cat([solvers[level].prolong(part) for solvers, part in zip(self.solvers, parts)], -1)  # type: ignore[index]  # of torch's nested lists of modules

    def _at_points(self, fields: Tensor, level: int) -> Tensor:
        """Gradients and values (points, batch, (d + 1) outputs) of fields."""
        batch, points = fields.shape[1], len(getattr(self, f"coordinates_{level}"))
        found = self.gradients[level](fields).view(points, -1, batch, self.outputs)
        return found.transpose(1, 2).reshape(points, batch, -1)
