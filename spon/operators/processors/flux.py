# SPDX-License-Identifier: MIT
"""A processor with learned laws at quadrature points, and a fixed solver that makes fields of what they say.

A round goes as an iteration of a nonlinear finite element program: slopes of fields → law at the points → fluxes and
sources → loads → fields, by the inverse of the stiffness matrix of the space. Only the law is learned. Each round
reaches everywhere, as the solution of an elliptic problem does, on any mesh; with laws that
are right it is the iteration of a homogeneous medium for one that is not (Lippmann and Schwinger's equation, see
Moulinec & Suquet, CMAME 157, 1998), whose number of rounds does not grow with the mesh. Fields vanish where the output
has Dirichlet values.

Most rounds are on a coarser mesh, and a few on that of the output, to which fields and states are carried.
"""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from spon.operators.discretisation import Discretisation, nodes
from spon.operators.processors.layers import Fixed, dense, perceptron
from spon.sparse import SparseOperator

INVERTED = 2000  # nodes up to which the inverse is a dense matrix, the fastest way by far
SWEEPS = 2  # of relaxation, before and after the coarser space
ACCURACY = 0.01  # of what solves on larger spaces, in the norm of energy


class Green(nn.Module):
    """Fields (nodes, ...) of loads (nodes, ...): (∇v, ∇w) = load·w for all w that vanish at the fixed nodes, as v does.

    By the inverse of the stiffness matrix, or, of a large space, by some symmetric cycles of multigrid B, as many as
    make it accurate: a polynomial of B K of Chebyshev's, and so a linear map, symmetric too.

    Args:
        stiffness: (nodes, nodes). fixed: (nodes,) bool. prolong, below: (nodes, coarser nodes), to fields that vanish
            at the fixed nodes, and what solves on the coarser space; None on the coarsest.

    Raises:
        ValueError: a coarsest space that is too large to be inverted.
    """

    def __init__(
        self, stiffness: scipy.sparse.csr_array, fixed: np.ndarray, prolong=None, below: "Green | None" = None
    ):
        super().__init__()
        free, count = np.flatnonzero(~fixed), len(fixed)
        self.below, self.prolong = None, None if prolong is None else Fixed(prolong)
        if len(free) <= INVERTED:
            inverse = np.zeros((count, count))
            inverse[np.ix_(free, free)] = np.linalg.inv(stiffness[free][:, free].toarray())
            self.register_buffer("inverse", torch.from_numpy(inverse + inverse.T) / 2, persistent=False)
            return
        if prolong is None or below is None:
            raise ValueError(
                f"the coarsest space has {len(free)} free nodes, need {INVERTED} at most: give coarser ones, "
                "coarse = [...]"
            )
        mask = scipy.sparse.diags_array((~fixed).astype(float))
        self.below, self.stiffness = below, Fixed(SparseOperator.of(mask @ stiffness @ mask))
        self.restrict = Fixed(prolong.T)
        # No eigenvalue of D⁻¹K is larger than the largest sum of absolute values in a row.
        diagonal = stiffness.diagonal()
        bound = (np.asarray(abs(stiffness).sum(axis=1)).ravel() / diagonal).max()
        relax = np.where(fixed, 0.0, 4 / (3 * bound * diagonal))
        self.register_buffer("relax", torch.from_numpy(relax)[:, None], persistent=False)
        lower, upper = self._spectrum()
        self.middle, self.radius = (upper + lower) / 2, (upper - lower) / 2
        ratio = (upper / lower) ** 0.5
        rate = (ratio - 1) / (ratio + 1)
        self.cycles = max(1, int(np.ceil(np.log(ACCURACY / 2) / np.log(rate))))

    def _spectrum(self, steps: int = 40) -> tuple[float, float]:
        """Bounds of the eigenvalues of B K at free nodes, from how noise grows and shrinks."""
        generator = torch.Generator().manual_seed(0)
        bounds: list[float] = []
        for shift in (0.0, 1.05):
            x = torch.randn(len(self.relax), 1, generator=generator, dtype=torch.float64) * (self.relax > 0)
            for _ in range(steps):
                x = x / x.norm()
                x = self.cycle(self.stiffness(x)) - shift * (bounds[0] if bounds else 0.0) * x
            bounds.append(float(x.norm()))
        largest = 1.05 * bounds[0]
        return 0.9 * (largest - bounds[1]), largest

    def forward(self, load: Tensor) -> Tensor:
        f = load.flatten(1)
        if self.below is None:
            return (self.inverse @ f).view_as(load)
        step = self.cycle(f) / self.middle
        v, ratio = step, self.radius / self.middle
        before = ratio
        for _ in range(self.cycles - 1):
            after = 1 / (2 / ratio - before)
            step = after * before * step + 2 * after / self.radius * self.cycle(f - self.stiffness(v))
            v, before = v + step, after
        return v.view_as(load)

    def cycle(self, f: Tensor) -> Tensor:
        """B f (nodes, columns), one cycle, or the solution where there is an inverse."""
        if self.below is None or self.prolong is None:
            return self.inverse @ f
        v = self.relax * f
        for _ in range(SWEEPS - 1):
            v = v + self.relax * (f - self.stiffness(v))
        v = v + self.prolong(self.below.cycle(self.restrict(f - self.stiffness(v))))
        for _ in range(SWEEPS):
            v = v + self.relax * (f - self.stiffness(v))
        return v


class Law(nn.Module):
    """At each point: state ← state + f(state, seen), fluxes (1 + tanh γ) ⊙ W seen + s, with f, γ and s learned of both.

    If it is linear, it is so in what is seen: f and γ are of the state alone, and there is no s.
    """

    def __init__(self, state: int, seen: int, fluxes: int, generator: torch.Generator, linear: bool):
        super().__init__()
        self.linear, self.sizes = linear, [state, fluxes] if linear else [state, fluxes, fluxes]
        asked = state if linear else state + seen
        self.look = perceptron([asked, 2 * state, sum(self.sizes)], generator)
        self.mix = dense(seen, fluxes, generator, offset=False)

    def forward(self, state: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        said = self.look(state if self.linear else torch.cat([state, seen], -1))
        change, gates, *own = said.split(self.sizes, -1)
        # The gates are bounded, so that rounds of them grow no faster than what they see.
        return state + change, sum(own, (1 + gates.tanh()) * self.mix(seen))


class Fluxes(nn.Module):
    """Rounds of laws at the points of the spaces of a discretisation, from a coarse one to that of the output.

    Fields are multiplied in the end by learned functions of what is seen at the nodes.

    Args:
        channels: twice the number of fields; laws have states of as many numbers. features: at a node, others and
            loads: at a point, the numbers that are seen. linear: whether the fields are to be linear in the loads.
        unit: of length, that of the domain if None; where a network is used on another domain it keeps its own.
        depth: rounds on the first coarse space. finer: rounds on the output's, which has them all if there is no other.

    Attributes:
        coarsening: by how many spaces all rounds are moved to coarser ones, as far as there are any, from which the
            fields
            are carried to the output: cheap, and as good to learn from at first.
        outputs: number of fields. reach: (components of the output, outputs), one where a component is made of fields
            that vanish where it has Dirichlet values.

    Raises:
        ValueError: a discretisation without points, or as `Green`.
    """

    def __init__(
        self,
        channels: int,
        discretisation: Discretisation,
        generator: torch.Generator,
        features: int,
        others: int,
        loads: int,
        linear: bool,
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
        patterns, group = np.unique(space.fixed.view(-1, b).numpy()[here], axis=1, return_inverse=True)
        self.outputs = max(channels // 2, patterns.shape[1])
        member = np.arange(self.outputs) * patterns.shape[1] // self.outputs
        self.counts = np.bincount(member).tolist()
        self.reach = torch.from_numpy((group.ravel()[:, None] == member).astype(float))
        prolongations = discretisation.prolongations
        self.greens = nn.ModuleList(
            nn.ModuleList(_greens(levels, prolongations, fixed, space.volume)) for fixed in patterns.T
        )
        # In the unit of length in which a source of one makes a field of one, on average.
        means = levels[0].fields.T @ _weighted(levels[0], torch.ones_like(levels[0].weights), d)
        square = float(means @ self.greens[0][0](means[:, None])[:, 0]) / space.volume
        self.unit = unit or (square**0.5 if square > 0 else 1.0)
        self.rounds = [1] * depth + [0] * finer if len(levels) > 1 else [0] * (depth + finer)
        self.coarsening = 0
        self.look, self.load = nn.ModuleList(), nn.ModuleList()
        self.above, self.below = nn.ModuleList(), nn.ModuleList()
        lower, upper = space.points.min(0).values, space.points.max(0).values
        for k, level in enumerate(levels):
            units = torch.tensor([self.unit] * d + [1.0], dtype=torch.float64).repeat(len(level.weights))
            look = scipy.sparse.diags_array(units.numpy()) @ level.fields.scipy
            by = level.weights.repeat_interleave(d + 1).numpy() / self.unit**2
            self.look.append(Fixed(SparseOperator.of(look)))
            self.load.append(Fixed(SparseOperator.of(scipy.sparse.csr_array(look.T @ scipy.sparse.diags_array(by)))))
            self.register_buffer(f"places_{k}", 2 * (level.coordinates - lower) / (upper - lower) - 1, persistent=False)
            if k > 0:
                self.above.append(Fixed(level.above))
                self.below.append(Fixed(level.below))
        self.linear, fluxes = linear, self.outputs * (d + 1)
        self.lift = perceptron([d + others, 2 * channels, channels], generator)
        direct = loads if linear else others
        self.laws = nn.ModuleList(
            Law(channels, direct + (fluxes if k else 0), fluxes, generator, linear) for k in range(len(self.rounds))
        )
        self.scaling = perceptron([features, 2 * channels, self.outputs], generator)

    def solve(self, load: Tensor, k: int) -> Tensor:
        """Fields (nodes, batch, outputs) of loads on the k-th space."""
        parts = load.split(self.counts, -1)
        return torch.cat([greens[k](part) for greens, part in zip(self.greens, parts)], -1)

    def carry(self, fields: Tensor, k: int) -> Tensor:
        """Fields of the k-th space from those (nodes, batch, outputs) of the one below."""
        parts = fields.split(self.counts, -1)
        return torch.cat([greens[k].prolong(part) for greens, part in zip(self.greens, parts)], -1)

    def extension(self, discretisation: Discretisation) -> Tensor:
        """Fields (nodes, components) of the output with its Dirichlet values and no sources."""
        space, level = discretisation.output, discretisation.points[0]
        values = space.lifting.view(-1, space.block_size)[nodes(space)]
        stiffness = SparseOperator.of(_stiffness(level, 0.0))
        which = self.reach.argmax(1).tolist()
        group = np.repeat(np.arange(len(self.counts)), self.counts)
        return torch.cat([x - self.greens[group[i]][0](stiffness @ x) for i, x in zip(which, values.T[..., None])], 1)

    def forward(self, features: Tensor, others: Tensor, loads: Tensor) -> Tensor:
        """Fields (nodes, batch, outputs) from features (nodes, batch, .) and what is seen at the output's points."""
        batch = features.shape[1]
        seen = [torch.cat([others, loads], -1)]
        for above in self.above[: self.rounds[0] + self.coarsening]:
            seen.append(above(seen[-1]))
        split = [others.shape[-1], loads.shape[-1]]
        fields = state = None
        rounds = [min(level + self.coarsening, len(self.look) - 1) for level in self.rounds]
        at = rounds[0]
        for k, (level, law) in enumerate(zip(rounds, self.laws)):
            if k == 0 or level < at:
                places = getattr(self, f"places_{level}")[:, None].expand(-1, batch, -1)
                here, direct = seen[level].split(split, -1)
                fresh = self.lift(torch.cat([places, here], -1))
                state = fresh if k == 0 else fresh + self.below[level](state)
                fields = fields if k == 0 else self.carry(fields, level)
                direct, at = direct if self.linear else here, level
            looked = direct if k == 0 else torch.cat([direct, self._look(fields, level)], -1)
            state, flux = law(state, looked)
            points = len(flux)
            flux = flux.view(points, batch, -1, self.outputs).transpose(1, 2).reshape(-1, batch, self.outputs)
            step = self.solve(self.load[level](flux), level)
            fields = step if k == 0 else fields + step
        for level in reversed(range(at)):
            fields = self.carry(fields, level)
        return fields * (1 + self.scaling(features))

    def _look(self, fields: Tensor, level: int) -> Tensor:
        """(points, batch, (d + 1) outputs), slopes and values of fields."""
        batch, points = fields.shape[1], len(getattr(self, f"places_{level}"))
        found = self.look[level](fields).view(points, -1, batch, self.outputs)
        return found.transpose(1, 2).reshape(points, batch, -1)


def _weighted(level, values: Tensor, d: int) -> Tensor:
    """Values (P,) of a source as fluxes (P (d + 1),), by the weights of the points."""
    rows = torch.zeros(len(values), d + 1, dtype=values.dtype)
    rows[:, d] = values * level.weights
    return rows.flatten()


def _stiffness(level, shift: float) -> scipy.sparse.csr_array:
    """∫ ∇v·∇w + shift v w."""
    d = level.coordinates.shape[1]
    by = level.weights[:, None] * torch.tensor([1.0] * d + [shift], dtype=torch.float64)
    matrix = level.fields.scipy
    return scipy.sparse.csr_array(matrix.T @ scipy.sparse.diags_array(by.flatten().numpy()) @ matrix)


def _greens(levels, prolongations, fixed: np.ndarray, volume: float) -> list[Green]:
    """What solves on each level, with some of the finest nodes fixed, (nodes,) bool.

    Coarser nodes are fixed that are nearer to one of these than to any other coarse one: their fields are half as large
    there, or more. The meshes need not have the same boundary, so that a little of others' is cut off. Without any
    fixed, constants have a stiffness of their own.
    """
    d = levels[0].coordinates.shape[1]
    shift = 0.0 if fixed.any() else volume ** (-2 / d)
    held, carry = [fixed], []
    for prolong in prolongations:
        carry.append(SparseOperator.of(scipy.sparse.diags_array((~held[-1]).astype(float)) @ prolong.scipy))
        largest = abs(prolong.scipy[held[-1]]).max(axis=0).toarray().ravel() if held[-1].any() else 0.0
        held.append(np.broadcast_to(largest >= 0.5, prolong.shape[1]))
    found: list[Green] = []
    for k in reversed(range(len(levels))):
        prolong, below = (carry[k], found[0]) if found else (None, None)
        found.insert(0, Green(_stiffness(levels[k], shift), held[k], prolong, below))
    return found
