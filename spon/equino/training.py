# SPDX-License-Identifier: MIT
"""Training EquiNO: snapshots → bases → targets → networks → model.

No further RVE problem is solved: the constitutive law gives the targets, see `spon.equino.targets`.
"""

import torch

from spon.equino.certificate import calibrate
from spon.equino.initial_networks import Networks, networks_in_new_modes, new_networks
from spon.equino.model import EquiNO
from spon.equino.network_fit import Log, fit_networks
from spon.equino.options import EquiNOOptions, EquiNOTraining, RefitOptions
from spon.equino.targets import TrainingTargets, training_targets
from spon.reduced.bases import Bases, pod_bases, unit_mean_stresses
from spon.reduced.snapshots import RVESnapshots
from spon.training.deprecated import takes_old_keywords

_ADAM = 300  # steps of Adam before L-BFGS, for networks that start from random weights


@takes_old_keywords
def train(data: RVESnapshots, options: EquiNOOptions = EquiNOOptions(), *, log: Log = None) -> EquiNOTraining:
    """Train EquiNO for an RVE.

    Args:
        data: solved problems, see `coupling.rve_snapshots`; the trained range is the box around their strains.
        options: sizes and length of the training.
        log: called with lines of progress, e.g. a `spon.training.Live`.

    Returns:
        The model, its bases and the histories of its networks. Without an energy of each material the model has no
        certificate, and its calibration is NaN.

    Raises:
        ValueError: a law with stress at zero strain, or an error of `spon.reduced.pod_bases`.
        ReducedNotConverged: a strain in the trained range at which the reduced model has no equilibrium.
    """
    data.require_no_stress_at_zero_strain()
    half_range = torch.from_numpy(data.half_range)
    bases = pod_bases(data, options.r, options.resolved)
    targets = training_targets(bases, half_range, options.samples, options.seed)
    networks = new_networks(bases, targets.pool, half_range, options)
    return _fit(data, bases, targets, networks, _ADAM, options, log)


@takes_old_keywords
def refit(
    model: EquiNO, data: RVESnapshots, options: RefitOptions = RefitOptions(), *, log: Log = None
) -> EquiNOTraining:
    """Train a model further, with more solved problems of the same RVE, e.g. at `coupling.CertifiedLaw.collected`.

    Bases and trained range become those of all the problems. The networks continue from their present state: a branch
    starts with the coefficients, in the new modes, of the fields that it predicts in the old ones.

    Args:
        model: of `train`, with its RVE modes.
        data: old and new problems.
        options: sizes and length of the training.
        log: as in `train`.

    Raises:
        ValueError: a model without potential or RVE modes, or of another RVE, or an error of `train`.
        ReducedNotConverged: as in `train`.
    """
    data.require_no_stress_at_zero_strain()
    if model.potential is None:
        raise ValueError("the model has no potential and cannot be trained further: need a model of `train`")
    model.require(data.fingerprint)
    r = model.rve_modes.at_points.stress_modes.shape[2] if options.r is None else options.r
    bases = pod_bases(data, r, options.resolved)
    targets = training_targets(bases, torch.from_numpy(data.half_range), options.samples, options.seed)
    networks = networks_in_new_modes(model, data, bases, targets.pool)
    return _fit(data, bases, targets, networks, 0, options, log)


def _fit(
    data: RVESnapshots,
    bases: Bases,
    targets: TrainingTargets,
    networks: Networks,
    adam: int,
    options: EquiNOOptions | RefitOptions,
    log: Log,
) -> EquiNOTraining:
    """Fit the networks, construct the model and calibrate its certificate."""
    write = log or (lambda line: None)
    half_range, at_points = torch.from_numpy(data.half_range), bases.rve_modes.at_points
    write(
        f"{len(bases.points)} cubature points of {len(data.weights)}, {at_points.strain_modes.shape[2]} modes of "
        f"strain, {at_points.stress_modes.shape[2]} of stress, {bases.reduced.modes.shape[2]} resolved"
    )
    histories = fit_networks(networks, targets, options.samples, adam, options.lbfgs, log)
    model = EquiNO(
        *networks,
        lower=-half_range,
        upper=half_range,
        means=unit_mean_stresses(half_range.numel(), at_points.stress_modes.shape[2]),
        cubature=bases.cubature,
        rve_modes=bases.rve_modes,
    )
    with torch.no_grad():
        some = targets.check.strain[:16]
        few, everywhere = (100 * model.mismatch(some, at).mean() for at in (None, at_points))
    write(f"stress and law on the displacement differ by {few:.2f} % on the cubature, {everywhere:.2f} % at all points")
    if all(law.energy_program is not None for law in data.laws.laws):
        calibrate(model, torch.from_numpy(data.strain), torch.from_numpy(data.stress))
    return EquiNOTraining(model, histories, bases)
