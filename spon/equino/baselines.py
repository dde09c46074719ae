# SPDX-License-Identifier: MIT
"""Baselines of EquiNO on the same snapshots: its published form, and operators trained on data alone.

The reduced model without a network is `spon.ReducedModel`; operators that minimise energies are in
`spon.equino.vpionet`.
"""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.archive import Reader, unpacks, write
from spon.constitutive.measure import Measure
from spon.equino.model import EquiNO
from spon.equino.networks import Branch, SobolevError, Values
from spon.equino.training import Log, sobol_strains
from spon.reduced.bases import pod, rank, unit_mean_stresses, with_unit_mean_stresses
from spon.reduced.model import Fingerprint, Model, fingerprint_from_json, fingerprint_to_json
from spon.reduced.modes import ModesAtPoints, RVEModes
from spon.reduced.snapshots import RVESnapshots
from spon.training import History, TrainingOptions, TrainingResult
from spon.training.deprecated import takes_old_keywords
from spon.training.fit import FULL_BATCH, fit, fit_in_batches

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_KIND = "stress network"
_SUPERVISED = replace(FULL_BATCH, lbfgs=1000)
_PUBLISHED = TrainingOptions(steps=1000, batch=10, rate=1e-3, lbfgs=25000)


def _split(data: RVESnapshots, seed: int) -> tuple[Rows, Rows]:
    """Four fifths of the snapshots to train with and one fifth to validate."""
    if len(data.strain) < 2:
        raise ValueError("one snapshot: need at least 2, one of them for validation")
    order = np.random.default_rng(seed).permutation(len(data.strain))
    cut = max(1, len(order) // 5)
    return order[cut:], order[:cut]


@dataclass(frozen=True, slots=True, eq=False)
class SupervisedTraining:
    """A trained model and the histories of its branches.

    Args:
        model: its cubature is all points.
        histories: of the branches "displacement" and "stress".
    """

    model: EquiNO
    histories: dict[str, History]


@takes_old_keywords
def train_supervised(
    data: RVESnapshots,
    options: TrainingOptions = _SUPERVISED,
    *,
    r: int = 16,
    widths: tuple[int, ...] = (64,) * 4,
    log: Log = None,
) -> SupervisedTraining:
    """POD-DeepONet: branches fitted to the coefficients of the snapshots, without the law (Lu et al., Comput. Methods
    Appl. Mech. Eng. 393, 2022, 114778).

    Bases and form of the local fields are those of EquiNO, so that its stress is in equilibrium too; one branch
    predicts all stress coefficients.

    Args:
        data: solved problems.
        options: of `spon.training.fit.fit`; the seed is that of the weights and of the snapshots to validate with.
        r: number of modes, at most.
        widths: of the hidden layers.
        log: called with lines of progress.

    Raises:
        ValueError: a single snapshot, or an error of `spon.reduced.pod_bases`.
    """
    data.require_linear_measure("POD-DeepONet")
    half, w = torch.from_numpy(data.half_range), data.weights
    strain, stress = pod(data.local_strain, w, r, data.metric), pod(data.local_stress, w, r)
    stress_modes = with_unit_mean_stresses(stress, w)
    d, n = half.numel(), len(data.strain)
    others = np.einsum("p,npd,pdr->nr", w, data.local_stress, stress_modes[..., d:], optimize=True)
    coefficients = {
        "displacement": np.linalg.lstsq(strain.combination, np.eye(n), rcond=None)[0].T,
        "stress": np.hstack([data.stress, others]),
    }
    strains, (train, check) = torch.from_numpy(data.strain), _split(data, options.seed)
    branches, histories = {}, {}
    for k, (name, values) in enumerate(coefficients.items()):
        target = torch.from_numpy(values)
        linear = torch.linalg.lstsq(strains[train], target[train]).solution
        branch = Branch(half, target.std(dim=0) + 1e-12, linear=linear, widths=widths, seed=options.seed + k)

        def loss(rows: Rows, branch: Branch = branch, target: Tensor = target) -> Tensor:
            return ((branch(strains[rows]) - target[rows]) / branch.scale).square().mean()

        histories[name] = fit(branch.parameters(), partial(loss, train), partial(loss, check), options, log=log)
        branches[name] = branch
    at_points = ModesAtPoints.of(data.laws, w, strain.modes, stress_modes, fingerprint=data.fingerprint)
    model = EquiNO(
        branches["displacement"],
        None,
        branches["stress"],
        lower=-half,
        upper=half,
        means=unit_mean_stresses(d, stress_modes.shape[2]),
        cubature=at_points,
        rve_modes=RVEModes(at_points, data.fluctuation.T @ strain.combination, data.order),
    )
    return SupervisedTraining(model, histories)


class StressNetwork(Model):
    """A network from strain to homogenised stress, with its derivative as tangent; it has no local fields.

    Args:
        branch: whose coefficients are the stress [MPa], at finite strain that of the stretch.
        fingerprint: of the RVE; None if unknown.
        measure: of the strain; None for small strain.
    """

    def __init__(self, branch: Branch, fingerprint: Fingerprint | None = None, measure: Measure | None = None):
        super().__init__(-branch.half_range, branch.half_range, fingerprint, measure)
        self.branch = branch

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        return self.measure.respond(self.branch.with_tangent, strain)

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file, see `spon.load`."""
        header: dict[str, Any] = {
            "branch": self.branch.to_json(),
            "fingerprint": fingerprint_to_json(self.fingerprint),
            "measure": [self.measure.name, self.measure.size],
        }
        write(path, _KIND, header, self.state_dict())


@unpacks(_KIND)
def load_stress_network(file: Reader, *, whole: bool = False) -> StressNetwork:
    """The stress network of a file, on the CPU.

    Args:
        file: an open file; callers give its path.
        whole: as for all models; this one has no modes.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds another kind of object.
    """
    state = file.tensors("")
    branch = Branch.from_json(file.header["branch"], state["lower"].numel())
    named = file.header.get("measure")  # older files have none
    model = StressNetwork(branch, fingerprint_from_json(file.header), None if named is None else Measure(*named))
    model.load_state_dict(state)
    return model.requires_grad_(False)


@takes_old_keywords
def train_sobolev(
    data: RVESnapshots,
    options: TrainingOptions = _SUPERVISED,
    *,
    widths: tuple[int, ...] = (128,) * 3,
    log: Log = None,
) -> TrainingResult[StressNetwork]:
    """DNN-FE²: stress and tangent of the snapshots fitted together (Eivazi, Tröger, Wittek, Hartmann & Rausch, Math.
    Comput. Appl. 28, 2023, 91).

    Args:
        data: solved problems.
        options: as in `train_supervised`.
        widths: of the hidden layers.
        log: called with lines of progress.

    Raises:
        ValueError: a single snapshot, or an error of `RVESnapshots.half_range`.
    """
    half, (train, check) = torch.from_numpy(data.half_range), _split(data, options.seed)
    values = Values(*(torch.from_numpy(x) for x in (data.coordinates, *data.projected)))
    branch = Branch(
        half, values.value.std(dim=0), widths=widths, activation="swish", through_zero=False, seed=options.seed
    )
    error = SobolevError(branch.with_tangent, torch.diag(1 / branch.scale), torch.diag(half))
    loss, validation = (partial(error.mean, values.at(rows)) for rows in (train, check))
    history = fit(branch.parameters(), loss, validation, options, log=log)
    return TrainingResult(StressNetwork(branch, data.fingerprint, data.measure), history)


@takes_old_keywords
def train_as_published(
    data: RVESnapshots,
    options: TrainingOptions = _PUBLISHED,
    *,
    r: int = 16,
    strains: int = 100,
    points: int = 1000,
    log: Log = None,
) -> TrainingResult[EquiNO]:
    """EquiNO in the form of its authors' code (github.com/HamidrezaEiv/EquiNO), for comparison.

    Unweighted decompositions of nodal fluctuations and of stresses, one mean and one spread for all coefficients of a
    field, branches of four layers of 64 with swish, and the `published_loss`. The number of strains is not published;
    L-BFGS took up to 50,000 iterations.

    The loss of the authors is evaluated at all points of the RVE. Here it is evaluated at some, drawn once: far fewer
    values overdetermine the 2 r coefficients of a strain, at a fraction of the cost.

    Args:
        data: solved problems.
        options: of `spon.training.fit.fit_in_batches`: Adam uses one batch of strains per step, then L-BFGS all.
            The seed is that of points, strains and weights.
        r: number of modes, at most.
        strains: number of strains to train at.
        points: number of points at which the loss is evaluated, at most.
        log: called with lines of progress.

    Returns:
        The model, whose cubature is all points, and its history.
    """
    data.require_linear_measure("the published EquiNO")
    half, seed = torch.from_numpy(data.half_range), options.seed
    combination, displacement = _published(data.fluctuation, r, half, seed)
    stress_combination, stress = _published(data.local_stress, r, half, seed + 1)
    at_points = ModesAtPoints.of(
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
        means=torch.einsum("p,pdr->dr", at_points.weights, at_points.stress_modes),
        cubature=at_points,
        rve_modes=RVEModes(at_points, data.fluctuation.T @ combination, data.order),
    )
    total = len(data.weights)
    some = np.sort(np.random.default_rng(seed).permutation(total)[:points])
    at = at_points.at(some, torch.full((len(some),), 1 / len(some), dtype=torch.float64))
    history = fit_in_batches(
        model.parameters(),
        lambda strain: published_loss(model, strain, at),
        sobol_strains(strains, half, seed),
        sobol_strains(max(16, strains // 4), half, seed + 1),
        options,
        log=log,
    )
    return TrainingResult(model, history)


def published_loss(model: EquiNO, strain: Tensor, at: ModesAtPoints) -> Tensor:
    """Mean squared difference [MPa²] of the stress branch and the law on the displacement branch.

    Args:
        model: whose branches are compared.
        strain: (n, d).
        at: modes at the points.
    """
    local, stress = model.fields(strain, at)
    return (at.laws.stress(local) - stress).square().mean()


def _published(fields: Array, r: int, half: Tensor, seed: int) -> tuple[Array, Branch]:
    """Combination (n, r) of the snapshots (n, ...) that gives their modes, and the branch of the coefficients."""
    left, singular, _ = np.linalg.svd(fields.reshape(len(fields), -1), full_matrices=False)
    r = min(r, rank(singular))
    coefficients = left * singular  # of all modes, also of those that are truncated
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
