# SPDX-License-Identifier: MIT
"""Training EquiNO: snapshots → bases → targets → networks → model.

No further problem of the RVE is solved: the constitutive law gives the targets, see `spon.equino.targets`.
"""

import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from spon.equino.certificate import calibrate
from spon.equino.model import EquiNO
from spon.equino.network_fit import Log, NetworkFit
from spon.equino.networks import Branch, Potential
from spon.equino.options import EquiNOOptions, EquiNOTraining, RefitOptions
from spon.equino.strain_sampling import sobol_strains
from spon.equino.targets import Targets, targets
from spon.reduced.bases import Bases, pod_bases
from spon.reduced.modes import ModesAtPoints, unit_mean_stresses
from spon.reduced.snapshots import RVESnapshots
from spon.training.deprecated import takes_old_keywords

_ADAM = 300  # steps of Adam before L-BFGS, for networks that start from random weights
_MARGIN = 1.02  # the box to train in, relative to that of the snapshots
_TOWARD_ZERO = 0.5  # fraction of the strains to train at that are scaled towards zero
# The stress of a law at zero strain, relative to the largest one in the snapshots, that is rounding.
_NO_STRESS = 1e-9


class _Networks(NamedTuple):
    displacement: Branch
    potential: Potential
    self_stress: Branch


@takes_old_keywords
def train(data: RVESnapshots, options: EquiNOOptions = EquiNOOptions(), *, log: Log = None) -> EquiNOTraining:
    """Train EquiNO for an RVE.

    Args:
        data: solved problems, see `coupling.rve_snapshots`; the trained range is the box around their strains.
        options: see there.
        log: takes a line now and then, e.g. a `spon.training.Live`.

    Returns:
        The model, its bases and the histories of its networks. Without an energy of each material the model has no
        certificate, and its calibration is NaN.

    Raises:
        ValueError: a law with stress at zero strain, or what `spon.reduced.pod_bases` refuses.
        ReducedNotConverged: a strain in the trained range at which the reduced model has no equilibrium.
    """
    _require_no_stress_at_zero_strain(data)
    modes = pod_bases(data, options.r, options.resolved)
    pool = _pool(modes, data, options)
    networks = _new_networks(modes, pool, torch.from_numpy(data.half_range), options)
    return _fit(data, modes, pool, networks, _ADAM, options, log)


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
        options: see there.
        log: as in `train`.

    Raises:
        ValueError: a model without potential or RVE modes, or of another RVE, or what `train` refuses.
        ReducedNotConverged: as in `train`.
    """
    _require_no_stress_at_zero_strain(data)
    if model.potential is None:
        raise ValueError("the model has no potential, so that it cannot be trained further: need a model of `train`")
    model.require(data.fingerprint)
    before = model.rve_modes.at_points
    modes = pod_bases(data, before.stress_modes.shape[2] if options.r is None else options.r, options.resolved)
    pool = _pool(modes, data, options)
    networks = _networks_in_new_modes(model, model.potential, data, modes.rve_modes.at_points, pool)
    return _fit(data, modes, pool, networks, 0, options, log)


def mismatch(model: EquiNO, strain: Tensor, at: ModesAtPoints | None = None) -> Tensor:
    """Root mean square over the RVE of stress branch minus law on the displacement branch, relative to the latter (n,).

    Args:
        model: whose branches are compared.
        strain: (n, d).
        at: modes at the points; None for the points of the cubature.
    """
    at = model.cubature if at is None else at
    epsilon, sigma = model.fields(strain, at)
    law = at.laws.stress(epsilon)
    return (((law - sigma).square().sum(-1) @ at.weights) / (law.square().sum(-1) @ at.weights)).sqrt()


def _require_no_stress_at_zero_strain(data: RVESnapshots) -> None:
    largest, zero = abs(data.local_stress).max(), torch.zeros(1, data.laws.strain_size, dtype=torch.float64)
    for law in data.laws.laws:
        stress = law.stress(zero)[0]
        if not (stress.abs() <= _NO_STRESS * largest).all():
            raise ValueError(f"{law.name}: the stress at zero strain is {stress.tolist()} MPa, need none")


def _pool(modes: Bases, data: RVESnapshots, options: EquiNOOptions | RefitOptions) -> Targets:
    """Targets at twice as many strains as will be trained at: `NetworkFit` chooses those with the largest errors."""
    half = torch.from_numpy(data.half_range)
    return targets(modes, sobol_strains(2 * options.samples, _MARGIN * half, options.seed, _TOWARD_ZERO))


def _new_networks(modes: Bases, pool: Targets, half: Tensor, options: EquiNOOptions) -> _Networks:
    """Networks with random weights, scaled by the targets."""
    at_zero_strain = modes.reduced.solve(torch.zeros(1, half.numel(), dtype=torch.float64))
    stiffness = (at_zero_strain.tangent[0] + at_zero_strain.tangent[0].T) / 2
    nonlinear = (pool.stress - pool.strain @ stiffness).norm(dim=1).mean() * half.mean()
    energy = max(float(nonlinear), 1e-12 * float(stiffness.norm()))
    # A component with a narrow range is not stretched to the range of the others: the response is nearly linear in it,
    # and the contribution of random weights would be divided by the narrow range, twice in the tangent.
    unit = half.clamp(min=0.5 * float(half.max()))
    displacement, self_stress = (
        Branch(unit, _spread(value), widths=options.widths, norms=options.norms, seed=options.seed + k)
        for k, value in ((1, pool.displacement), (2, pool.self_stress))
    )
    for branch, value in ((displacement, pool.displacement), (self_stress, pool.self_stress)):
        branch.start_linear(pool.strain, value)
    potential = Potential(stiffness, unit, energy, width=options.width, norms=options.norms, seed=options.seed)
    return _Networks(displacement, potential, self_stress)


def _networks_in_new_modes(
    model: EquiNO, potential: Potential, data: RVESnapshots, new: ModesAtPoints, pool: Targets
) -> _Networks:
    """The networks of a model, their fields projected to new modes."""
    before, w, d = model.rve_modes.at_points, new.weights, data.strain.shape[1]
    metric = torch.from_numpy(data.tangents_at_zero_strain)
    displacement = model.displacement.in_modes(
        torch.einsum("p,pdr,pde,pes->rs", w, new.strain_modes, metric, before.strain_modes),
        _spread(pool.displacement),
    )
    # The first d modes, whose coefficients are the stress, contribute to the others next to nothing, linear in the
    # stress; the fit finds it.
    self_stress = model.stress.in_modes(
        torch.einsum("p,pdr,pds->rs", w, new.stress_modes[..., d:], before.stress_modes[..., d:]),
        _spread(pool.self_stress),
    )
    return _Networks(displacement, copy.deepcopy(potential).requires_grad_(), self_stress)


def _spread(coefficients: Tensor) -> Tensor:
    """Standard deviations (r,) of coefficients (n, r), above zero."""
    deviations = (coefficients - coefficients.mean(dim=0)).square().mean(dim=0).sqrt()
    return deviations + 1e-12 * coefficients.norm() + torch.finfo(torch.float64).tiny


def _fit(
    data: RVESnapshots,
    modes: Bases,
    pool: Targets,
    networks: _Networks,
    adam: int,
    options: EquiNOOptions | RefitOptions,
    log: Log,
) -> EquiNOTraining:
    """Fit the networks, put the model together and calibrate its certificate."""
    write = log or (lambda line: None)
    at_points, half = modes.rve_modes.at_points, torch.from_numpy(data.half_range)
    write(
        f"{len(modes.points)} cubature points of {len(data.weights)}, {at_points.strain_modes.shape[2]} modes of "
        f"strain, {at_points.stress_modes.shape[2]} of stress, {modes.reduced.modes.shape[2]} resolved"
    )
    samples = options.samples
    check = targets(modes, sobol_strains(max(samples // 4, 16), half, options.seed + 1))
    histories = {
        name: fit.run(pool, check, samples, adam, options.lbfgs, None if log is None else partial(_named, log, name))
        for name, fit in _fits(networks).items()
    }
    model = EquiNO(
        networks.displacement,
        networks.potential,
        networks.self_stress,
        lower=-half,
        upper=half,
        means=unit_mean_stresses(half.numel(), at_points.stress_modes.shape[2]),
        cubature=modes.cubature,
        rve_modes=modes.rve_modes,
    )
    if all(law.energy_program is not None for law in data.laws.laws):
        calibrate(model, torch.from_numpy(data.strain), torch.from_numpy(data.stress))
    with torch.no_grad():
        few, everywhere = (100 * mismatch(model, check.strain[:16], at).mean() for at in (None, at_points))
    write(f"stress and law on the displacement differ by {few:.2f} % on the cubature, {everywhere:.2f} % at all points")
    return EquiNOTraining(model, histories, modes)


def _fits(networks: _Networks) -> dict[str, NetworkFit]:
    """What each network is fitted to, and in which norm."""
    displacement, potential, self_stress = networks
    # Stresses and strains are measured by energy: a stiff direction, such as a dilatation where the matrix is nearly
    # incompressible, would hide all errors of the others, in which structures mostly deform.
    root = torch.linalg.inv(torch.linalg.cholesky(potential.stiffness))
    # The smaller modes of self-stress matter to small stress components, such as the shear stress.
    equal, balanced = torch.diag(torch.ones_like(displacement.scale)), torch.diag(self_stress.scale**-0.5)
    return {
        "potential": NetworkFit(potential, potential, "stress", "tangent", root, root.mT),
        "displacement": NetworkFit(
            displacement, displacement.with_tangent, "displacement", "d_displacement", equal, root.mT
        ),
        "self-stress": NetworkFit(
            self_stress, self_stress.with_tangent, "self_stress", "d_self_stress", balanced, root.mT
        ),
    }


def _named(log: Log, name: str, line: str) -> None:
    assert log is not None
    log(f"{name}: {line}")
