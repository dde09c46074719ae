# SPDX-License-Identifier: MIT
"""Training EquiNO: snapshots → bases → targets → networks → model.

No further RVE problem is solved: the constitutive law gives the training targets. The displacement coefficients make
the mean energy of the law stationary (`spon.ReducedModel`), and the stress coefficients are the projection of the law's
stress. These coefficients minimise the mismatch between the stress branch and the law on the displacement branch.
Newton's method computes them, instead of gradient descent through two networks, and each network is then fitted to the
coefficients and their derivatives separately.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn

from spon.equino.certificate import calibrate
from spon.equino.model import EquiNO
from spon.equino.networks import Branch, Potential, SobolevError, Values
from spon.equino.options import EquiNOOptions, EquiNOTraining, RefitOptions
from spon.reduced.bases import Bases, pod_bases, unit_mean_stresses
from spon.reduced.snapshots import RVESnapshots
from spon.training import History
from spon.training.deprecated import takes_old_keywords
from spon.training.fit import FULL_BATCH, fit

Log = Callable[[str], None] | None

_ADAM = 300  # steps of Adam before L-BFGS, for networks that start from random weights
_MARGIN = 1.02  # the box to train in, relative to that of the snapshots
_TOWARD_ZERO = 0.5  # fraction of the strains to train at that are scaled towards zero
_LEAST_CHECKED = 16  # strains to validate at, at least; otherwise a quarter of those to train at


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
    bases = pod_bases(data, options.r, options.resolved)
    targets = _training_targets(bases, options.samples, options.seed)
    networks = _new_networks(bases, targets.pool, options)
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
    targets = _training_targets(bases, options.samples, options.seed)
    networks = _networks_in_new_modes(model, data, bases, targets.pool)
    return _fit(data, bases, targets, networks, 0, options, log)


def _fit(
    data: RVESnapshots,
    bases: Bases,
    targets: "_TrainingTargets",
    networks: "_Networks",
    adam: int,
    options: EquiNOOptions | RefitOptions,
    log: Log,
) -> EquiNOTraining:
    """Fit the networks, construct the model and calibrate its certificate."""
    write = log or (lambda line: None)
    half_range, at_points = bases.reduced.upper, bases.rve_modes.at_points
    write(
        f"{len(bases.points)} cubature points of {len(data.weights)}, {at_points.strain_modes.shape[2]} modes of "
        f"strain, {at_points.stress_modes.shape[2]} of stress, {bases.reduced.modes.shape[2]} resolved"
    )
    histories = _fit_networks(networks, targets, options.samples, adam, options.lbfgs, log)
    model = EquiNO(
        *networks,
        lower=-half_range,
        upper=half_range,
        means=unit_mean_stresses(*at_points.stress_modes.shape[1:]),
        cubature=bases.cubature,
        rve_modes=bases.rve_modes,
    )
    with torch.no_grad():
        some = model.measure.strain(targets.check.stress.strain[:16])
        few, everywhere = (100 * model.mismatch(some, at).mean() for at in (None, at_points))
    write(f"stress and law on the displacement differ by {few:.2f} % on the cubature, {everywhere:.2f} % at all points")
    if all(law.energy_program is not None for law in data.laws.laws):
        calibrate(model, *(torch.from_numpy(x) for x in (data.strain, data.stress, data.energy)))
    return EquiNOTraining(model, histories, bases)


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the networks are fitted to, at n strains without rotation: values and their derivatives by coordinates.

    Args:
        stress: homogenised stress (n, s) and tangent (n, s, s) by the coordinates [MPa].
        displacement: coefficients (n, r) of the displacement modes.
        self_stress: coefficients (n, r − d) of the stress modes without mean.
    """

    stress: Values
    displacement: Values
    self_stress: Values


def targets(bases: Bases, strain: Tensor, chunk: int = 128) -> Targets:
    """Solve the reduced model at strains and project its stress.

    Args:
        bases: of the RVE.
        strain: (n, s) coordinates.
        chunk: strains that are solved at a time.

    Raises:
        ReducedNotConverged: a strain without solution.
    """
    model, parts, modes = bases.reduced, [], bases.rve_modes.at_points
    d, r = modes.strain_modes.shape[1:]
    embedding = model.measure.embedding(strain)
    tests = (modes.stress_modes[bases.points, :, d:] * model.weights[:, None, None]).flatten(0, 1)
    for some in strain.split(chunk):
        solution = model.solve(model.measure.strain(some))
        sensitivities = solution.sensitivities @ embedding.mT
        d_strain = embedding.mT + torch.einsum("pdr,nre->npde", model.modes, sensitivities)
        d_stress = (solution.local_tangent @ d_strain).reshape(len(some), -1, strain.shape[1])
        parts.append(
            (
                *model.measure.projected(solution.stress, solution.tangent),
                solution.coefficients[:, :r],
                sensitivities[:, :r],
                solution.local_stress.reshape(len(some), -1) @ tests,
                torch.einsum("qs,nqe->nse", tests, d_stress),
            )
        )
    stress, tangent, b, d_b, c, d_c = (torch.cat(p) for p in zip(*parts, strict=True))
    return Targets(Values(strain, stress, tangent), Values(strain, b, d_b), Values(strain, c, d_c))


class _TrainingTargets(NamedTuple):
    """Targets to choose from, at twice as many strains as are trained at, and targets to validate with."""

    pool: Targets
    check: Targets


def _training_targets(bases: Bases, samples: int, seed: int) -> _TrainingTargets:
    """Targets at strains in the box of the snapshots."""
    half_range = bases.reduced.upper
    strains = sobol_strains(2 * samples, _MARGIN * half_range, seed, _TOWARD_ZERO)
    check = sobol_strains(max(samples // 4, _LEAST_CHECKED), half_range, seed + 1)
    return _TrainingTargets(targets(bases, strains), targets(bases, check))


def sobol_strains(n: int, half_range: Tensor, seed: int, toward_zero: float = 0.0) -> Tensor:
    """n strains (n, d), or coordinates, of a scrambled Sobol sequence in the box of ±`half_range`.

    Args:
        n: number of strains.
        half_range: (d,) largest strains.
        seed: of the scrambling.
        toward_zero: fraction of the strains that are scaled towards zero by factors uniform in (0, 1). In many
            dimensions nearly all of a box is far from its centre, where loading starts.
    """
    d = half_range.numel()
    sequence = scipy.stats.qmc.Sobol(d + 1, seed=np.random.default_rng(seed)).random_base2((n - 1).bit_length())[:n]
    factor = np.minimum(1.0, sequence[:, d:] / toward_zero) if toward_zero else 1.0
    return half_range * torch.from_numpy((2 * sequence[:, :d] - 1) * factor)


class _Networks(NamedTuple):
    """The networks of an `EquiNO`."""

    displacement: Branch
    potential: Potential
    self_stress: Branch


def _new_networks(bases: Bases, pool: Targets, options: EquiNOOptions) -> _Networks:
    """Networks with random weights, scaled by the targets; the branches have the best linear part."""
    half_range, (strain, stress, _) = bases.reduced.upper, pool.stress
    measure = bases.reduced.measure
    at_zero_strain = bases.reduced.solve(torch.zeros(1, measure.size, dtype=torch.float64))
    _, (tangent,) = measure.projected(at_zero_strain.stress, at_zero_strain.tangent)
    stiffness = (tangent + tangent.T) / 2
    nonlinear = (stress - strain @ stiffness).norm(dim=1).mean() * half_range.mean()
    energy = max(float(nonlinear), 1e-12 * float(stiffness.norm()))
    # A component with a narrow range is not stretched to the range of the others: the response is nearly linear in it,
    # and the contribution of random weights would be divided by the narrow range, twice in the tangent.
    unit = half_range.clamp(min=0.5 * float(half_range.max()))
    displacement, self_stress = (
        Branch(
            unit,
            _spread(value),
            linear=torch.linalg.lstsq(strain, value).solution,
            widths=options.widths,
            norms=options.norms,
            seed=options.seed + k,
        )
        for k, value in ((1, pool.displacement.value), (2, pool.self_stress.value))
    )
    potential = Potential(stiffness, unit, energy, width=options.width, norms=options.norms, seed=options.seed)
    return _Networks(displacement, potential, self_stress)


def _networks_in_new_modes(model: EquiNO, data: RVESnapshots, bases: Bases, pool: Targets) -> _Networks:
    """The networks of a model, their fields projected to new modes."""
    assert model.potential is not None
    before, new, d = model.rve_modes.at_points, bases.rve_modes.at_points, data.strain.shape[1]
    w = new.weights
    metric = torch.from_numpy(data.metric)
    displacement = model.displacement.in_modes(
        torch.einsum("p,pdr,pde,pes->rs", w, new.strain_modes, metric, before.strain_modes),
        _spread(pool.displacement.value),
    )
    # The first d modes, whose coefficients are the stress, contribute almost nothing to the others, and linearly in
    # the stress; the fit adds this.
    self_stress = model.stress.in_modes(
        torch.einsum("p,pdr,pds->rs", w, new.stress_modes[..., d:], before.stress_modes[..., d:]),
        _spread(pool.self_stress.value),
    )
    return _Networks(displacement, copy.deepcopy(model.potential).requires_grad_(), self_stress)


def _spread(coefficients: Tensor) -> Tensor:
    """Standard deviations (r,) of coefficients (n, r), above zero."""
    deviations = (coefficients - coefficients.mean(dim=0)).square().mean(dim=0).sqrt()
    return deviations + 1e-12 * coefficients.norm() + torch.finfo(torch.float64).tiny


def _fit_networks(
    networks: _Networks, targets: _TrainingTargets, samples: int, adam: int, lbfgs: int, log: Log
) -> dict[str, History]:
    """Fit each network on its own, values and derivatives together; returns the histories by the network's name."""
    displacement, potential, self_stress = networks
    # Stresses and strains are measured by energy: a stiff direction, such as a dilatation where the matrix is nearly
    # incompressible, would hide all errors of the others, in which structures mostly deform.
    root = torch.linalg.inv(torch.linalg.cholesky(potential.stiffness))
    # The smaller modes of self-stress matter to small stress components, such as the shear stress.
    equal, balanced = torch.diag(torch.ones_like(displacement.scale)), torch.diag(self_stress.scale**-0.5)
    of_potential = SobolevError(potential, root, root.mT)
    of_displacement = SobolevError(displacement.with_tangent, equal, root.mT)
    of_self_stress = SobolevError(self_stress.with_tangent, balanced, root.mT)
    pool, check = targets
    fits = {
        "potential": (potential, of_potential, pool.stress, check.stress),
        "displacement": (displacement, of_displacement, pool.displacement, check.displacement),
        "self-stress": (self_stress, of_self_stress, pool.self_stress, check.self_stress),
    }
    return {
        name: _fit_network(*fit, samples, adam, lbfgs, None if log is None else partial(_named, log, name))
        for name, fit in fits.items()
    }


def _fit_network(
    network: nn.Module, error: SobolevError, pool: Values, check: Values, samples: int, adam: int, lbfgs: int, log: Log
) -> History:
    """Fit to three quarters of the samples, then to all; the last quarter have the largest errors in the pool."""
    if not pool.value.numel():
        return History(stopped="nothing to fit")

    def run(train: Values, adam: int, lbfgs: int) -> History:
        options = replace(FULL_BATCH, steps=adam, lbfgs=lbfgs)
        return fit(network.parameters(), partial(error.mean, train), partial(error.mean, check), options, log=log)

    first = torch.arange(samples - samples // 4)
    history = run(pool.at(first), adam, lbfgs)
    with torch.no_grad():
        errors = error(pool)
    errors[first] = 0
    worst = errors.topk(samples // 4).indices
    return history.then(run(pool.at(torch.cat([first, worst])), 0, max(lbfgs // 2, 1)))


def _named(log: Callable[[str], None], name: str, line: str) -> None:
    log(f"{name}: {line}")
