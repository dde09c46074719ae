# SPDX-License-Identifier: MIT
"""Training targets: the coefficients given by the constitutive law, without further solutions of the RVE.

The displacement coefficients make the mean energy of the law stationary (`spon.ReducedModel`), and the stress
coefficients are the projection of the law's stress. These coefficients minimise the mismatch between the stress branch
and the law on the displacement branch. Newton's method computes them, instead of gradient descent through two networks,
and each network is then fitted to the coefficients and their derivatives separately.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from spon.equino.strain_sampling import sobol_strains
from spon.reduced.bases import Bases

_MARGIN = 1.02  # the box to train in, relative to that of the snapshots
_TOWARD_ZERO = 0.5  # fraction of the strains to train at that are scaled towards zero
_LEAST_CHECKED = 16  # strains to validate at, at least; otherwise a quarter of those to train at


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Coefficients at n strains and their derivatives by the strain.

    Args:
        strain: (n, d).
        stress: (n, d) homogenised [MPa].
        tangent: (n, d, d) homogenised [MPa].
        displacement: (n, r) coefficients of the displacement modes.
        d_displacement: (n, r, d).
        self_stress: (n, r − d) coefficients of the stress modes without mean.
        d_self_stress: (n, r − d, d).
    """

    strain: Tensor
    stress: Tensor
    tangent: Tensor
    displacement: Tensor
    d_displacement: Tensor
    self_stress: Tensor
    d_self_stress: Tensor

    def at(self, rows: Tensor) -> "Targets":
        """The targets at some of the strains."""
        return Targets(*(getattr(self, field.name)[rows] for field in fields(self)))


def targets(bases: Bases, strain: Tensor, chunk: int = 128) -> Targets:
    """Solve the reduced model at strains and project its stress.

    Args:
        bases: of the RVE.
        strain: (n, d).
        chunk: strains that are solved at a time.

    Raises:
        ReducedNotConverged: a strain without solution.
    """
    d, modes = strain.shape[1], bases.rve_modes.at_points
    r = modes.strain_modes.shape[2]
    model, parts = bases.reduced, []
    tests = (modes.stress_modes[bases.points, :, d:] * model.weights[:, None, None]).flatten(0, 1)
    for some in strain.split(chunk):
        solution = model.solve(some)
        d_strain = torch.einsum("pdr,nre->npde", model.modes, solution.sensitivities)
        d_strain = torch.eye(d, dtype=strain.dtype) + d_strain
        d_stress = (solution.local_tangent @ d_strain).reshape(len(some), -1, d)
        parts.append(
            (
                some,
                solution.stress,
                solution.tangent,
                solution.coefficients[:, :r],
                solution.sensitivities[:, :r],
                solution.local_stress.reshape(len(some), -1) @ tests,
                torch.einsum("qs,nqe->nse", tests, d_stress),
            )
        )
    return Targets(*(torch.cat(p) for p in zip(*parts, strict=True)))


class TrainingTargets(NamedTuple):
    """Targets to train at and to validate at.

    Args:
        pool: at twice as many strains as are trained at: `NetworkFit` selects those with the largest errors.
        check: to validate at.
    """

    pool: Targets
    check: Targets


def training_targets(bases: Bases, half_range: Tensor, samples: int, seed: int) -> TrainingTargets:
    """Targets at strains in the box of the snapshots.

    Args:
        bases: of the RVE.
        half_range: (d,) of the snapshots.
        samples: number of strains to train at.
        seed: of the strains.

    Raises:
        ReducedNotConverged: a strain without solution.
    """
    strains = sobol_strains(2 * samples, _MARGIN * half_range, seed, _TOWARD_ZERO)
    check = sobol_strains(max(samples // 4, _LEAST_CHECKED), half_range, seed + 1)
    return TrainingTargets(targets(bases, strains), targets(bases, check))
