# SPDX-License-Identifier: MIT
"""Operators that minimise the energy of an RVE: VPIONet for all strains of a range, VPINN for one.

A trunk, a network of the coordinates with a periodic first layer, gives displacements at the nodes of the RVE's finite
element space; VPIONet combines r of them with coefficients from a branch, a network of the strain. Strains are those of
the elements and stresses those of the laws: no solution is used (Eivazi, Tröger, Wittek, Hartmann & Rausch, arXiv
2504.07976; the first layer after Dong & Ni, J. Comput. Phys. 435, 2021, 110242).

The loss is the mean of the potential ψ(ε) or, as published, of ½ σ:ε, which is no potential of a nonlinear law and has
another minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn

from spon.constitutive.phase_law import LocalLaws
from spon.equino.displacement_operator import DisplacementOperator
from spon.equino.networks import Branch, layers
from spon.equino.training import Log, sobol_strains
from spon.reduced.modes import ModesAtPoints, RVEModes
from spon.reduced.snapshots import RVESnapshots, RVESpace
from spon.training import History, TrainingOptions, TrainingResult
from spon.training.deprecated import takes_old_keywords
from spon.training.fit import fit_in_batches

Array = npt.NDArray[np.float64]
Loss = Literal["potential", "half work"]

_POINTS = 2**17  # points whose laws are evaluated at a time: some MB
_PUBLISHED = TrainingOptions(steps=1000, batch=10, rate=1e-3, lbfgs=2000)


def _potential(laws: LocalLaws, strain: Tensor) -> tuple[Tensor, Tensor]:
    return laws.energy(strain), laws.stress(strain)


def _half_work(laws: LocalLaws, strain: Tensor) -> tuple[Tensor, Tensor]:
    stress = laws.stress(strain)
    d_stress = torch.einsum("npcd,npc->npd", laws.tangent(strain), strain)
    return 0.5 * (stress * strain).sum(-1), 0.5 * (stress + d_stress)


# Densities (n, P) [MPa] and their derivatives (n, P, d) at local strains (n, P, d).
_DENSITIES: dict[str, Callable[[LocalLaws, Tensor], tuple[Tensor, Tensor]]] = {
    "potential": _potential,
    "half work": _half_work,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The functional to minimise.

    Args:
        operator: B (P d, dofs), strains at the points of displacements.
        laws: at the points.
        weights: (P,) of the points.
        density: see `_DENSITIES`.
    """

    operator: scipy.sparse.csr_matrix
    laws: LocalLaws
    weights: Tensor
    density: Callable[[LocalLaws, Tensor], tuple[Tensor, Tensor]]
    transposed: scipy.sparse.csr_matrix = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "transposed", self.operator.T.tocsr())

    @classmethod
    def of(cls, data: RVESnapshots, loss: str) -> _Problem:
        if loss not in _DENSITIES:
            raise ValueError(f"loss = {loss!r}: need one of {', '.join(map(repr, _DENSITIES))}")
        return cls(data.space.strain_operator, data.laws, torch.from_numpy(data.weights), _DENSITIES[loss])


class _MeanDensity(torch.autograd.Function):
    """Mean over RVE and strains of a density of the strain E + B t b: a scalar [MPa].

    The forward pass computes the derivatives too, so that no graph of the laws is kept and strains come in chunks.
    """

    @staticmethod
    def forward(ctx, modes: Tensor, coefficients: Tensor, strain: Tensor, problem: _Problem) -> Tensor:
        """Value; saves the derivatives.

        Args:
            ctx: of autograd.
            modes: t (dofs, r).
            coefficients: b (n, r).
            strain: E (n, d).
            problem: the functional.
        """
        strain_modes = torch.from_numpy(problem.operator @ modes.numpy())
        d_modes, d_coefficients, value = torch.zeros_like(strain_modes), [], 0.0
        n, d, points = len(strain), strain.shape[1], len(problem.weights)
        chunk = max(1, _POINTS // points)
        for e, b in zip(strain.split(chunk), coefficients.split(chunk), strict=True):
            local = e[:, None] + (b @ strain_modes.T).reshape(-1, points, d)
            density, derivative = problem.density(problem.laws, local)
            value += float((density @ problem.weights).sum()) / n
            derivative = (derivative * (problem.weights / n)[:, None]).reshape(len(e), -1)
            d_modes.addmm_(derivative.T, b)
            d_coefficients.append(derivative @ strain_modes)
        ctx.save_for_backward(torch.from_numpy(problem.transposed @ d_modes.numpy()), torch.cat(d_coefficients))
        return strain.new_tensor(value)

    @staticmethod
    def backward(ctx, d_value: Tensor):
        d_modes, d_coefficients = ctx.saved_tensors
        return d_value * d_modes, d_value * d_coefficients, None, None


class Trunk(nn.Module):
    """r displacements at the nodes of an RVE, periodic and zero at the first node.

    The first layer is Σ_k tanh(A_k cos(2π x_k / L_k + φ_k) + c_k) + tanh(A m + c) with the phase indicator m of the
    node; five layers of tanh and a linear one follow.

    Args:
        space: of the RVE.
        r: number of displacements.
        unit: displacement of the network's output one [length].
        width: of all layers.
        seed: of the initial weights.

    Raises:
        ValueError: an RVE whose fluctuations are not periodic.
    """

    angles: Tensor
    phase: Tensor

    def __init__(self, space: RVESpace, r: int, unit: float, *, width: int = 64, seed: int = 0):
        super().__init__()
        if space.period is None:
            raise ValueError("the fluctuations of the RVE are not periodic, but the trunk is: need boundary='periodic'")
        dim, generator = space.nodes.shape[1], torch.Generator().manual_seed(seed)

        def uniform(rows: int, size: float) -> nn.Parameter:
            return nn.Parameter(size * (2 * torch.rand(rows, width, generator=generator, dtype=torch.float64) - 1))

        self.amplitudes, self.offsets = uniform(dim + 1, 1.0), uniform(dim + 1, 0.5)
        self.shifts = uniform(dim, np.pi)
        components = space.strain_operator.shape[1] // len(space.nodes)  # one for conduction
        self.weights, self.biases = layers([*[width] * 6, components * r], generator)
        self.unit, self.r = unit, r
        # Rounded, so that opposite nodes have exactly the same angles.
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


@takes_old_keywords
def train_vpionet(
    data: RVESnapshots,
    options: TrainingOptions = _PUBLISHED,
    *,
    loss: Loss = "potential",
    r: int = 16,
    log: Log = None,
) -> TrainingResult[DisplacementOperator]:
    """VPIONet of an RVE, trained at as many strains as the data have snapshots; the snapshots themselves are not used.

    Args:
        data: of the RVE.
        options: of `spon.training.fit.fit_in_batches`; the seed is that of strains and weights.
        loss: "potential", or "half work" as published.
        r: number of displacements of the trunk.
        log: called with lines of progress.

    Returns:
        The operator, in which the trunk has become modes at the points, and its history.

    Raises:
        ValueError: another loss, a material without energy for "potential", or an RVE that is not periodic.
    """
    seed = options.seed
    data.require_linear_measure("VPIONet")
    problem, half = _Problem.of(data, loss), torch.from_numpy(data.half_range)
    trunk = Trunk(data.space, r, _unit(data), seed=seed)
    ones = torch.ones(r, dtype=torch.float64)
    branch = Branch(half, ones, widths=(64,) * 4, activation="swish", through_zero=False, seed=seed + 1)

    def energy(strain: Tensor) -> Tensor:
        return _MeanDensity.apply(trunk(), branch(strain), strain, problem)

    strains = sobol_strains(len(data.strain), half, seed)
    check = sobol_strains(max(16, len(data.strain) // 4), half, seed + 1)
    parameters = [*trunk.parameters(), *branch.parameters()]
    history = fit_in_batches(parameters, energy, strains, check, options, log=log)
    modes = trunk().detach().numpy()
    strain_modes = (problem.operator @ modes).reshape(len(data.weights), -1, r)
    no_stress = strain_modes[..., :0]
    at_points = ModesAtPoints.of(data.laws, data.weights, strain_modes, no_stress, fingerprint=data.fingerprint)
    return TrainingResult(DisplacementOperator(branch, RVEModes(at_points, modes, data.order)), history)


@dataclass(frozen=True, slots=True, eq=False)
class RVESolution:
    """The fields of an RVE at one strain.

    Args:
        strain: (d,) of the macroscale.
        fluctuation: (dofs,) [length].
        local_strain: (P, d) at all points.
        local_stress: (P, d) at all points [MPa].
        stress: (d,) homogenised [MPa].
        energy: mean density [MPa].
    """

    strain: Array
    fluctuation: Array
    local_strain: Array
    local_stress: Array
    stress: Array
    energy: float


@dataclass(frozen=True, slots=True, eq=False)
class VPINNTraining:
    """A trained displacement and its history.

    Args:
        solution: at the strain.
        history: of the losses.
    """

    solution: RVESolution
    history: History


@takes_old_keywords
def train_vpinn(
    data: RVESnapshots,
    strain: npt.ArrayLike,
    options: TrainingOptions = _PUBLISHED,
    *,
    loss: Loss = "potential",
    log: Log = None,
) -> VPINNTraining:
    """VPINN: the displacement of the RVE at one strain as a network of the coordinates, a trunk alone.

    Args:
        data: of the RVE.
        strain: (d,).
        options: as in `train_vpionet`; there is one strain in a batch.
        loss: as in `train_vpionet`.
        log: called with lines of progress.

    Raises:
        ValueError: a strain of another shape, or an error of `train_vpionet`.
    """
    problem, one = _Problem.of(data, loss), torch.as_tensor(strain, dtype=torch.float64)[None]
    if one.shape != (1, data.laws.strain_size):
        raise ValueError(f"strain has shape {tuple(one.shape[1:])}, need ({data.laws.strain_size},)")
    trunk, ones = Trunk(data.space, 1, _unit(data), seed=options.seed), torch.ones(1, 1, dtype=torch.float64)

    def energy(strain: Tensor) -> Tensor:
        return _MeanDensity.apply(trunk(), ones, strain, problem)

    history = fit_in_batches(trunk.parameters(), energy, one, one, options, log=log)
    fluctuation = trunk().detach().numpy()[:, 0]
    local = one + torch.from_numpy(problem.operator @ fluctuation).reshape(-1, one.shape[1])
    stress = data.laws.stress(local)
    solution = RVESolution(
        one[0].numpy(),
        fluctuation,
        local.numpy(),
        stress.numpy(),
        (problem.weights @ stress).numpy(),
        float(data.laws.energy(local) @ problem.weights),
    )
    return VPINNTraining(solution, history)


def _unit(data: RVESnapshots) -> float:
    """Unit of the trunk's displacements [length]: a hundredth of the largest affine displacement."""
    return 1e-2 * float(data.half_range.max() * np.ptp(data.space.nodes, axis=0).max())
