# SPDX-License-Identifier: MIT
"""The initial networks of a training of EquiNO: random ones, or those of a model in new modes."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from spon.equino.model import EquiNO
from spon.equino.networks import Branch, Potential
from spon.equino.options import EquiNOOptions
from spon.equino.targets import Targets
from spon.reduced.bases import Bases
from spon.reduced.snapshots import RVESnapshots


class Networks(NamedTuple):
    """The networks of an `EquiNO`."""

    displacement: Branch
    potential: Potential
    self_stress: Branch


def new_networks(bases: Bases, pool: Targets, half_range: Tensor, options: EquiNOOptions) -> Networks:
    """Networks with random weights, scaled by the targets.

    Args:
        bases: of the RVE.
        pool: targets to train at.
        half_range: (d,) of the snapshots.
        options: sizes of the networks and seed.
    """
    at_zero_strain = bases.reduced.solve(torch.zeros(1, half_range.numel(), dtype=torch.float64))
    stiffness = (at_zero_strain.tangent[0] + at_zero_strain.tangent[0].T) / 2
    nonlinear = (pool.stress - pool.strain @ stiffness).norm(dim=1).mean() * half_range.mean()
    energy = max(float(nonlinear), 1e-12 * float(stiffness.norm()))
    # A component with a narrow range is not stretched to the range of the others: the response is nearly linear in it,
    # and the contribution of random weights would be divided by the narrow range, twice in the tangent.
    unit = half_range.clamp(min=0.5 * float(half_range.max()))
    displacement, self_stress = (
        Branch(unit, _spread(value), widths=options.widths, norms=options.norms, seed=options.seed + k)
        for k, value in ((1, pool.displacement), (2, pool.self_stress))
    )
    for branch, value in ((displacement, pool.displacement), (self_stress, pool.self_stress)):
        branch.start_linear(pool.strain, value)
    potential = Potential(stiffness, unit, energy, width=options.width, norms=options.norms, seed=options.seed)
    return Networks(displacement, potential, self_stress)


def networks_in_new_modes(model: EquiNO, data: RVESnapshots, bases: Bases, pool: Targets) -> Networks:
    """The networks of a model, their fields projected to new modes.

    Args:
        model: with potential and RVE modes.
        data: solved problems.
        bases: the new ones.
        pool: targets to train at.

    Raises:
        ValueError: a model without RVE modes.
    """
    assert model.potential is not None
    before, new, d = model.rve_modes.at_points, bases.rve_modes.at_points, data.strain.shape[1]
    w = new.weights
    metric = torch.from_numpy(data.tangents_at_zero_strain)
    displacement = model.displacement.in_modes(
        torch.einsum("p,pdr,pde,pes->rs", w, new.strain_modes, metric, before.strain_modes),
        _spread(pool.displacement),
    )
    # The first d modes, whose coefficients are the stress, contribute almost nothing to the others, and linearly in
    # the stress; the fit adds this.
    self_stress = model.stress.in_modes(
        torch.einsum("p,pdr,pds->rs", w, new.stress_modes[..., d:], before.stress_modes[..., d:]),
        _spread(pool.self_stress),
    )
    return Networks(displacement, copy.deepcopy(model.potential).requires_grad_(), self_stress)


def _spread(coefficients: Tensor) -> Tensor:
    """Standard deviations (r,) of coefficients (n, r), above zero."""
    deviations = (coefficients - coefficients.mean(dim=0)).square().mean(dim=0).sqrt()
    return deviations + 1e-12 * coefficients.norm() + torch.finfo(torch.float64).tiny
