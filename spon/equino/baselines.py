# SPDX-License-Identifier: MIT
"""What EquiNO is compared with, on the same snapshots: its published form, and operators that learn from data alone.

The reduced model without a network is `spon.ReducedModel`; what minimises energies is in `spon.equino.vpionet`.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spon.equino.model import EquiNO
from spon.equino.networks import Branch
from spon.equino.rve_snapshots import RVESnapshots
from spon.equino.training import Array, Log, sample, sobolev
from spon.reduced.model import Fingerprint, Model
from spon.reduced.modes import ModesAtPoints, RVEModes, unit_mean_stresses, with_unit_mean_stresses
from spon.reduced.pod import pod, rank
from spon.training.fit import FULL_BATCH, fit, fit_in_batches
from spon.training.options import TrainingOptions
from spon.training.result import History


def _split(data: RVESnapshots, seed: int) -> tuple[Array, Array]:
    """Four fifths of the snapshots to learn from and one fifth to validate."""
    if len(data.strain) < 2:
        raise ValueError("there is one snapshot: need others to validate with")
    order = np.random.default_rng(seed).permutation(len(data.strain))
    cut = max(1, len(order) // 5)
    return order[cut:], order[:cut]


def train_supervised(
    data: RVESnapshots,
    *,
    r: int = 16,
    widths: tuple[int, ...] = (64,) * 4,
    lbfgs: int = 1000,
    seed: int = 0,
    log: Log = None,
) -> tuple[EquiNO, dict[str, History]]:
    """POD-DeepONet: branches fitted to the coefficients of the snapshots, without the law (Lu et al., Comput. Methods
    Appl. Mech. Eng. 393, 2022, 114778).

    Bases and form of the local fields are those of EquiNO, so that its stress is in equilibrium too; all stress
    coefficients come from one branch.

    Args:
        data: solved problems. r: modes, at most. widths: of the hidden layers. lbfgs: iterations at most. seed: of
        weights and of the choice of snapshots to validate with. log: takes lines on the way.

    Returns:
        The model (its cubature is all points), and how the branches were fitted.
    """
    half, w = torch.from_numpy(data.half_range), data.weights
    strain, stress = pod(data.local_strain, w, r, data.tangents_at_zero_strain), pod(data.local_stress, w, r)
    stress_modes = with_unit_mean_stresses(stress, w)
    d, n = half.numel(), len(data.strain)
    others = np.einsum("p,npd,pdr->nr", w, data.local_stress, stress_modes[..., d:], optimize=True)
    coefficients = {
        "displacement": np.linalg.lstsq(strain.combination, np.eye(n), rcond=None)[0].T,
        "stress": np.hstack([data.stress, others]),
    }
    strains, (learn, check) = torch.from_numpy(data.strain), _split(data, seed)
    branches, histories, options = {}, {}, replace(FULL_BATCH, lbfgs=lbfgs)
    for k, (name, values) in enumerate(coefficients.items()):
        right = torch.from_numpy(values)
        branch = Branch(half, right.std(dim=0) + 1e-12, widths=widths, seed=seed + k)
        branch.start_linear(strains[learn], right[learn])

        def loss(rows: Array, branch: Branch = branch, right: Tensor = right) -> Tensor:
            return ((branch(strains[rows]) - right[rows]) / branch.scale).square().mean()

        histories[name] = fit(branch.parameters(), partial(loss, learn), partial(loss, check), options, log=log)
        branches[name] = branch
    fields = ModesAtPoints.of(data.laws, w, strain.modes, stress_modes, fingerprint=data.fingerprint)
    rve_modes = RVEModes(fields, data.fluctuation.T @ strain.combination, data.order)
    model = EquiNO(
        branches["displacement"],
        None,
        branches["stress"],
        lower=-half,
        upper=half,
        means=unit_mean_stresses(d, stress_modes.shape[2]),
        cubature=fields,
        rve_modes=rve_modes,
    )
    return model, histories


class StressNetwork(Model):
    """A network from strain to homogenised stress, with its derivative as tangent; there are no fields."""

    def __init__(self, branch: Branch, fingerprint: Fingerprint | None = None):
        super().__init__(-branch.half_range, branch.half_range, fingerprint)
        self.branch = branch

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        return self.branch.with_tangent(strain)


def train_sobolev(
    data: RVESnapshots, *, widths: tuple[int, ...] = (128,) * 3, lbfgs: int = 1000, seed: int = 0, log: Log = None
) -> tuple[StressNetwork, History]:
    """DNN-FE²: stress and tangent of the snapshots fitted together (Eivazi, Tröger, Wittek, Hartmann & Rausch, Math.
    Comput. Appl. 28, 2023, 91). Arguments as for `train_supervised`; returns the model and how it was fitted."""
    half, strains = torch.from_numpy(data.half_range), torch.from_numpy(data.strain)
    stress, tangent = torch.from_numpy(data.stress), torch.from_numpy(data.tangent)
    learn, check = _split(data, seed)
    branch = Branch(half, stress.std(dim=0), widths=widths, activation="swish", through_zero=False, seed=seed)

    size, unit = torch.diag(1 / branch.scale), torch.diag(half)

    def loss(rows: Array) -> Tensor:
        return sobolev(*branch.with_tangent(strains[rows]), stress[rows], tangent[rows], size, unit).mean()

    options = replace(FULL_BATCH, lbfgs=lbfgs)
    history = fit(branch.parameters(), lambda: loss(learn), lambda: loss(check), options, log=log)
    return StressNetwork(branch, data.fingerprint), history


def train_as_published(
    data: RVESnapshots,
    *,
    r: int = 16,
    strains: int = 100,
    points: int = 1000,
    adam: int = 1000,
    batch: int = 10,
    lbfgs: int = 25000,
    seed: int = 0,
    log: Log = None,
) -> tuple[EquiNO, History]:
    """EquiNO in the form of its authors' code (github.com/HamidrezaEiv/EquiNO), to compare with.

    Unweighted decompositions of nodal fluctuations and of stresses, one mean and one spread for all coefficients of a
    field, branches of four layers of 64 with swish, and the `mismatch` in MPa². Adam takes one batch of strains a step,
    then L-BFGS takes all. How many strains were used is not published; L-BFGS went on for up to 50,000 iterations.

    The authors' loss takes all points of the cell. Here it takes some, drawn once: a strain's 2 r coefficients are
    overdetermined by far fewer values than the cell has, at a small part of the cost.

    Args:
        data: solved problems. r: modes, at most. strains: to learn at. points: at most, where the loss is evaluated.
        adam, lbfgs: iterations. batch: strains in a step of Adam. seed: of points, strains and weights.
        log: takes lines on the way.

    Returns:
        The model (its cubature is all points), and how it was fitted.
    """
    half = torch.from_numpy(data.half_range)
    combination, displacement = _published(data.fluctuation, r, half, seed)
    stress_combination, stress = _published(data.local_stress, r, half, seed + 1)
    fields = ModesAtPoints.of(
        data.laws,
        data.weights,
        np.einsum("npd,nr->pdr", data.local_strain, combination, optimize=True),
        np.einsum("npd,nr->pdr", data.local_stress, stress_combination, optimize=True),
        fingerprint=data.fingerprint,
    )
    model = EquiNO(
        displacement,
        None,
        stress,
        lower=-half,
        upper=half,
        means=torch.einsum("p,pdr->dr", fields.weights, fields.stress_modes),
        cubature=fields,
        rve_modes=RVEModes(fields, data.fluctuation.T @ combination, data.order),
    )
    total = len(data.weights)
    some = np.sort(np.random.default_rng(seed).permutation(total)[:points])
    at = fields.at(some, torch.full((len(some),), 1 / len(some), dtype=torch.float64))
    history = fit_in_batches(
        model.parameters(),
        lambda strain: mismatch(model, strain, at),
        sample(strains, half, seed),
        sample(max(16, strains // 4), half, seed + 1),
        TrainingOptions(steps=adam, batch=batch, rate=1e-3, lbfgs=lbfgs, seed=seed),
        log=log,
    )
    return model, history


def mismatch(model: EquiNO, strain: Tensor, at: ModesAtPoints) -> Tensor:
    """Mean squared difference [MPa²] of the law on the displacement branch and the stress branch, at strains (n, d)."""
    local, stress = model.fields(strain, at)
    return (at.laws.stress(local) - stress).square().mean()


def _published(fields: Array, r: int, half: Tensor, seed: int) -> tuple[Array, Branch]:
    """Combination (n, r) of the snapshots (n, ...) that gives their modes, and the branch of the coefficients."""
    left, singular, _ = np.linalg.svd(fields.reshape(len(fields), -1), full_matrices=False)
    r = min(r, rank(singular))
    coefficients = left * singular  # of all modes, not only of those that are kept
    ones = torch.ones(r, dtype=torch.float64)
    branch = Branch(
        half,
        coefficients.std() * ones,
        mean=coefficients.mean() * ones,
        widths=(64,) * 4,
        activation="swish",
        through_zero=False,
        seed=seed,
    )
    return left[:, :r] / singular[:r], branch
