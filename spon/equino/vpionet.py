# SPDX-License-Identifier: MIT
"""Operators that minimise the energy of a cell: VPIONet for all strains of a range, VPINN for one.

A trunk, a network of the place with a periodic first layer, gives displacements at the nodes of the cell's own finite
element space; VPIONet combines r of them with coefficients from a branch, a network of the strain. Strains are those of
the elements and stresses those of the laws, so that nothing is learnt from solutions (Eivazi, Tröger, Wittek, Hartmann
& Rausch, arXiv 2504.07976; the first layer after Dong & Ni, J. Comput. Phys. 435, 2021, 110242).

What is minimised is the mean of the potential ψ(ε) or, as published, of ½ σ:ε, which is no potential of a nonlinear law
and has its minimum elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor, nn

from spon.constitutive.phase_law import LocalLaws
from spon.equino.networks import Branch, layers
from spon.equino.rve_snapshots import RVESnapshots, RVESpace
from spon.equino.training import Log, sample
from spon.reduced.model import Model
from spon.training.fit import fit_in_batches
from spon.training.options import TrainingOptions
from spon.training.result import History

Array = npt.NDArray[np.float64]
Loss = Literal["potential", "half work"]

# Points whose laws are evaluated at a time: some MB.
_POINTS = 2**17


def _potential(laws: LocalLaws, strain: Tensor) -> tuple[Tensor, Tensor]:
    return laws.energy(strain), laws.stress(strain)


def _half_work(laws: LocalLaws, strain: Tensor) -> tuple[Tensor, Tensor]:
    stress = laws.stress(strain)
    slope = torch.einsum("npcd,npc->npd", laws.tangent(strain), strain)
    return 0.5 * (stress * strain).sum(-1), 0.5 * (stress + slope)


# Densities (n, P) [MPa] and their derivatives (n, P, d) at local strains (n, P, d).
_DENSITIES: dict[str, Callable[[LocalLaws, Tensor], tuple[Tensor, Tensor]]] = {
    "potential": _potential,
    "half work": _half_work,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What to minimise, apart from the displacements: B (P d, dofs), laws, weights (P,), density."""

    operator: scipy.sparse.csr_matrix
    laws: LocalLaws
    weights: Tensor
    density: Callable[[LocalLaws, Tensor], tuple[Tensor, Tensor]]
    transposed: scipy.sparse.csr_matrix = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "transposed", self.operator.T.tocsr())

    @classmethod
    def of(cls, data: RVESnapshots, loss: str) -> "_Problem":
        if loss not in _DENSITIES:
            raise ValueError(f"loss = {loss!r}: need one of {', '.join(map(repr, _DENSITIES))}")
        return cls(data.space.strain_operator, data.laws, torch.from_numpy(data.weights), _DENSITIES[loss])


class _MeanDensity(torch.autograd.Function):
    """Mean over cell and strains of a density of the strain E + B t b: a scalar [MPa].

    Its derivative is known at once, so that no graph of the laws is kept and strains are visited in chunks.
    """

    @staticmethod
    def forward(ctx, modes: Tensor, coefficients: Tensor, strain: Tensor, problem: _Problem) -> Tensor:
        """modes: t (dofs, r). coefficients: b (n, r). strain: E (n, d)."""
        strain_modes = torch.from_numpy(problem.operator @ modes.numpy())
        d_modes, d_coefficients, value = torch.zeros_like(strain_modes), [], 0.0
        n, d, points = len(strain), strain.shape[1], len(problem.weights)
        chunk = max(1, _POINTS // points)
        for e, b in zip(strain.split(chunk), coefficients.split(chunk), strict=True):
            local = e[:, None] + (b @ strain_modes.T).reshape(-1, points, d)
            density, slope = problem.density(problem.laws, local)
            value += float((density @ problem.weights).sum()) / n
            slope = (slope * (problem.weights / n)[:, None]).reshape(len(e), -1)
            d_modes.addmm_(slope.T, b)
            d_coefficients.append(slope @ strain_modes)
        ctx.save_for_backward(torch.from_numpy(problem.transposed @ d_modes.numpy()), torch.cat(d_coefficients))
        return strain.new_tensor(value)

    @staticmethod
    def backward(ctx, slope: Tensor):
        d_modes, d_coefficients = ctx.saved_tensors
        return slope * d_modes, slope * d_coefficients, None, None


class Trunk(nn.Module):
    """Displacements at the nodes of a cell, r for each: periodic, and zero at the first node, which is held.

    The first layer is Σ_k tanh(A_k cos(2π x_k / L_k + φ_k) + c_k) + tanh(A m + c) with the phase indicator m of the
    node; five layers of tanh and a linear one follow.

    Args:
        space: of the cell. r: displacements. unit: [length] of an output of one. width: of all layers. seed: of the
        initial weights.

    Raises:
        ValueError: a cell whose fluctuations are not periodic.
    """

    angles: Tensor
    phase: Tensor

    def __init__(self, space: RVESpace, r: int, unit: float, *, width: int = 64, seed: int = 0):
        super().__init__()
        if space.period is None:
            raise ValueError("the cell's fluctuations are not periodic, as the trunk is")
        dim, generator = space.nodes.shape[1], torch.Generator().manual_seed(seed)

        def uniform(rows: int, size: float) -> nn.Parameter:
            return nn.Parameter(size * (2 * torch.rand(rows, width, generator=generator, dtype=torch.float64) - 1))

        self.amplitudes, self.offsets = uniform(dim + 1, 1.0), uniform(dim + 1, 0.5)
        self.shifts = uniform(dim, np.pi)
        self.weights, self.biases = layers([*[width] * 6, dim * r], generator)
        self.unit, self.r = unit, r
        # Rounded, so that opposite nodes have the same angles to the last bit.
        turns = ((space.nodes - space.nodes.min(axis=0)) @ np.linalg.inv(space.period)).round(12) % 1.0
        self.register_buffer("angles", torch.from_numpy(2 * np.pi * turns))
        self.register_buffer("phase", torch.from_numpy(space.phase))

    def forward(self) -> Tensor:
        """Displacements (dofs, r) [length]."""
        waves = (self.angles[..., None] + self.shifts).cos()
        inputs = torch.cat([waves, self.phase[:, None, None].expand(-1, 1, waves.shape[2])], dim=1)
        x = (self.amplitudes * inputs + self.offsets).tanh().sum(1)
        for a, c in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = (x @ a + c).tanh()
        x = x @ self.weights[-1]
        return self.unit * (x - x[:1]).reshape(-1, self.r)


class DisplacementOperator(Model):
    """Strain → displacement → stress by the law: kinematically admissible, whatever the network says.

    For a convex potential its mean energy is an upper bound on that of the finite element solution.

    Args:
        displacement: branch of the coefficients. cell: fields at all points, without stress modes.
    """

    modes: Tensor
    weights: Tensor

    def __init__(self, displacement: Branch, rve_modes: RVEModes):
        super().__init__(-displacement.half_range, displacement.half_range, rve_modes.fingerprint)
        self.displacement, self.rve_modes = displacement, rve_modes
        self.register_buffer("modes", rve_modes.at_points.strain_modes)
        self.register_buffer("weights", rve_modes.at_points.weights)

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa], the mean of the law's and its exact derivative."""
        laws, unit, parts = self.rve_modes.at_points.laws, torch.eye(strain.shape[1]).to(strain), []
        for e in strain.split(max(1, _POINTS // len(self.weights))):
            b, slopes = self.displacement.with_tangent(e)
            local = e[:, None] + torch.einsum("pdr,nr->npd", self.modes, b)
            d_local = unit + torch.einsum("pdr,nre->npde", self.modes, slopes)
            stress = torch.einsum("p,npd->nd", self.weights, laws.stress(local))
            parts.append((stress, torch.einsum("p,npde->nde", self.weights, laws.tangent(local) @ d_local)))
        stress, tangent = (torch.cat(p) for p in zip(*parts, strict=True))
        return stress, tangent

    def fields(self, strain: Tensor, at: ModesAtPoints | None = None) -> tuple[Tensor, Tensor]:
        """Local strain, kinematically admissible, and the law's stress: (n, m, d) both; `at`: by default all points."""
        at = self.rve_modes.at_points if at is None else at
        local = strain[:, None] + torch.einsum("pdr,nr->npd", at.strain_modes, self.displacement(strain))
        return local, at.laws.stress(local)


def train_vpionet(
    data: RVESnapshots,
    *,
    loss: Loss = "potential",
    r: int = 16,
    adam: int = 1000,
    batch: int = 10,
    lbfgs: int = 2000,
    seed: int = 0,
    log: Log = None,
) -> tuple[DisplacementOperator, History]:
    """VPIONet of a cell, at as many strains as there are snapshots, which are not used themselves.

    Args:
        data: of the cell. loss: "half work" is the published one. r: displacements of the trunk. adam, lbfgs:
        iterations. batch: strains in a step of Adam. seed: of strains and weights. log: takes lines on the way.

    Returns:
        The operator, whose trunk has become modes at the points, and how it was fitted.

    Raises:
        ValueError: another loss, a material without energy for "potential", or a cell that is not periodic.
    """
    problem, half = _Problem.of(data, loss), torch.from_numpy(data.half_range)
    trunk = Trunk(data.space, r, _unit(data), seed=seed)
    ones = torch.ones(r, dtype=torch.float64)
    branch = Branch(half, ones, widths=(64,) * 4, activation="swish", through_zero=False, seed=seed + 1)

    def energy(strain: Tensor) -> Tensor:
        return _MeanDensity.apply(trunk(), branch(strain), strain, problem)

    strains, check = sample(len(data.strain), half, seed), sample(max(16, len(data.strain) // 4), half, seed + 1)
    parameters = [*trunk.parameters(), *branch.parameters()]
    options = TrainingOptions(steps=adam, batch=batch, rate=1e-3, lbfgs=lbfgs, seed=seed)
    history = fit_in_batches(parameters, energy, strains, check, options, log=log)
    modes = trunk().detach().numpy()
    strain_modes = (problem.operator @ modes).reshape(len(data.weights), -1, r)
    fields = ModesAtPoints.of(
        data.laws, data.weights, strain_modes, strain_modes[..., :0], fingerprint=data.fingerprint
    )
    return DisplacementOperator(branch, RVEModes(fields, modes, data.order)), history


@dataclass(frozen=True, slots=True, eq=False)
class RVESolution:
    """A cell at one strain (d,). fluctuation: (dofs,) [length]. local_strain, local_stress: (P, d) at all points.
    stress: (d,) homogenised. energy: mean density [MPa]."""

    strain: Array
    fluctuation: Array
    local_strain: Array
    local_stress: Array
    stress: Array
    energy: float


def train_vpinn(
    data: RVESnapshots,
    strain: npt.ArrayLike,
    *,
    loss: Loss = "potential",
    adam: int = 1000,
    lbfgs: int = 2000,
    seed: int = 0,
    log: Log = None,
) -> tuple[RVESolution, History]:
    """VPINN: the displacement of the cell at one strain (d,) as a network of the place, a trunk alone.

    Other arguments as for `train_vpionet`, and errors too; returns the solution and how it was fitted.
    """
    problem, one = _Problem.of(data, loss), torch.as_tensor(strain, dtype=torch.float64)[None]
    if one.shape != (1, data.laws.strain_size):
        raise ValueError(f"strain has shape {tuple(one.shape[1:])}, need ({data.laws.strain_size},)")
    trunk, ones = Trunk(data.space, 1, _unit(data), seed=seed), torch.ones(1, 1, dtype=torch.float64)

    def energy(strain: Tensor) -> Tensor:
        return _MeanDensity.apply(trunk(), ones, strain, problem)

    options = TrainingOptions(steps=adam, batch=1, rate=1e-3, lbfgs=lbfgs, seed=seed)
    history = fit_in_batches(trunk.parameters(), energy, one, one, options, log=log)
    fluctuation = trunk().detach().numpy()[:, 0]
    local = one + torch.from_numpy(problem.operator @ fluctuation).reshape(-1, one.shape[1])
    stress = data.laws.stress(local)
    return RVESolution(
        one[0].numpy(),
        fluctuation,
        local.numpy(),
        stress.numpy(),
        (problem.weights @ stress).numpy(),
        float(data.laws.energy(local) @ problem.weights),
    ), history


def _unit(data: RVESnapshots) -> float:
    """What the trunk's outputs are measured in [length]: a hundredth of the largest affine displacement."""
    return 1e-2 * float(data.half_range.max() * np.ptp(data.space.nodes, axis=0).max())
