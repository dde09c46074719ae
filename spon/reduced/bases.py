# SPDX-License-Identifier: MIT
"""From snapshots to bases: displacement and stress modes by POD, and their cubature."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from spon.reduced.cubature import empirical_cubature
from spon.reduced.galerkin import ReducedModel
from spon.reduced.modes import ModesAtPoints, RVEModes, with_unit_mean_stresses
from spon.reduced.pod import pod
from spon.reduced.snapshots import RVESnapshots

Array = npt.NDArray[np.float64]

_INTEGRATED = 25  # least number of stress fields that the cubature integrates with all modes, of those available


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """Modes of an RVE and a reduced model in more of them.

    Args:
        rve_modes: r displacement and r stress modes at all points.
        reduced: Galerkin's method in R ≥ r displacement modes on the points of the cubature.
        singular_strain: (n,) singular values of the local strains.
        singular_stress: (n,) singular values of the local stresses.
        points: (m,) numbers of the points of the cubature.
    """

    rve_modes: RVEModes
    reduced: ReducedModel
    singular_strain: Array
    singular_stress: Array
    points: npt.NDArray[np.int64]

    @property
    def cubature(self) -> ModesAtPoints:
        """The r modes on the points of the cubature, with its weights."""
        return self.rve_modes.at_points.at(self.points, self.reduced.weights)


def pod_bases(data: RVESnapshots, r: int = 16, resolved: int = 32, tolerance: float = 3e-4) -> Bases:
    """POD bases of strain and stress fluctuations, with their cubature.

    Args:
        data: solved problems.
        r: number of displacement and of stress modes, at most, see `pod`.
        resolved: R, number of displacement modes of the reduced model, at most; not below r.
        tolerance: relative error of the cubature.

    Raises:
        ValueError: stresses whose means do not span all components, or an error of `RVESnapshots.half_range` or
            `RVESnapshots.tangents_at_zero_strain`.
    """
    w, d, resolved = data.weights, data.strain.shape[1], max(r, resolved)
    # Strains are weighted by their energy, so that the modes resolve those of a stiff phase.
    strain, stress = pod(data.local_strain, w, resolved, data.tangents_at_zero_strain), pod(data.local_stress, w, r)
    stress_modes = with_unit_mean_stresses(stress, w)
    # The cubature integrates some stress fields and their products with all modes.
    some = data.local_stress[:: max(1, len(data.local_stress) // _INTEGRATED)]
    tests = np.concatenate([strain.modes, stress_modes[..., d:]], axis=2)
    products = np.einsum("pdr,npd->prn", tests, some).reshape(len(w), -1)
    integrands = np.concatenate([products, np.hstack(list(some))], 1)
    integrands /= np.sqrt(w @ integrands**2) + 1e-300
    points, weights = empirical_cubature(integrands, w, tolerance)
    reduced = ReducedModel(
        data.laws.subset([int(p) for p in points]),
        torch.from_numpy(strain.modes[points]),
        torch.from_numpy(weights),
        torch.from_numpy(data.half_range),
        data.fingerprint,
    )
    at_points = ModesAtPoints.of(data.laws, w, strain.modes[..., :r], stress_modes, fingerprint=data.fingerprint)
    displacements = data.fluctuation.T @ strain.combination[:, :r]
    rve_modes = RVEModes(at_points, displacements, data.order)
    return Bases(rve_modes, reduced, strain.singular_values, stress.singular_values, points)
