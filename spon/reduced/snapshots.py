# SPDX-License-Identifier: MIT
"""Solved problems of an RVE as arrays at weighted points, for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import torch

from spon.constitutive.measure import Measure
from spon.constitutive.phase_law import LocalLaws
from spon.reduced.model import Fingerprint

Array = npt.NDArray[np.float64]

# Fraction of the largest strain or stress in the snapshots below which a component is rounding.
_ZERO = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class RVESpace:
    """The finite element space of the displacements of an RVE, with N nodes in `dim` dimensions.

    The degrees of freedom of a node are consecutive: (N, dim) displacements, flattened, are the (dofs,) of
    `RVESnapshots`.

    Args:
        strain_operator: B (P d, dofs), strains at the points of the snapshots, in their order.
        nodes: (N, dim) coordinates.
        phase: (N,) from −1 at nodes of the first phase to 1 at nodes of the last; the mean of both where phases meet.
        period: (dim, dim) lattice vectors; None if the fluctuations are not periodic.
    """

    strain_operator: scipy.sparse.csr_matrix
    nodes: Array
    phase: Array
    period: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class RVESnapshots:
    """n solved problems of an RVE with P quadrature points, which are sorted by phase.

    At finite strain those at stretches: the macroscale strains have no rotation.

    Args:
        laws: at the points.
        weights: (P,), the mean of a field over the RVE is Σ_p w_p field_p.
        strain: (n, d) of the macroscale.
        stress: (n, d) homogenised [MPa].
        tangent: (n, d, d) homogenised [MPa].
        energy: (n,) mean density [MPa].
        local_strain: (n, P, d) of the fluctuation alone.
        local_stress: (n, P, d) [MPa].
        fluctuation: (n, dofs) [length].
        order: (P,) positions of the points among cells × points of the RVE's mesh.
        fingerprint: of the RVE, by parts.
        space: of the fluctuations.
    """

    laws: LocalLaws
    weights: Array
    strain: Array
    stress: Array
    tangent: Array
    energy: Array
    local_strain: Array
    local_stress: Array
    fluctuation: Array
    order: npt.NDArray[np.int64]
    fingerprint: Fingerprint
    space: RVESpace

    @property
    def measure(self) -> Measure:
        """What the laws are given."""
        return self.laws.measure

    @property
    def coordinates(self) -> Array:
        """Coordinates of the macroscale strains (n, s), see `spon.constitutive.measure`."""
        return self.measure.coordinates(torch.from_numpy(self.strain)).numpy()

    @property
    def projected(self) -> tuple[Array, Array]:
        """Homogenised stress (n, s) and tangent (n, s, s) by the coordinates [MPa]."""
        stress, tangent = self.measure.projected(torch.from_numpy(self.stress), torch.from_numpy(self.tangent))
        return stress.numpy(), tangent.numpy()

    @property
    def half_range(self) -> Array:
        """Largest absolute coordinates (s,).

        Raises:
            ValueError: a coordinate that is zero, up to rounding, in all problems.
        """
        half = abs(self.coordinates).max(axis=0)
        if not (half > _ZERO * half.max()).all():
            raise ValueError(f"the largest strains of the snapshots are {half.tolist()}: need some of every component")
        return half

    @property
    def metric(self) -> Array:
        """The metric (P, d, d) [MPa] in which strains are measured by energy, see `PhaseLaw.metric`.

        Raises:
            ValueError: a law whose tangent at zero strain is not positive definite.
        """
        return self.laws.metric().numpy()

    def require_linear_measure(self, what: str) -> None:
        """Raise ValueError for snapshots at finite strain, which `what` does not know."""
        if self.measure.finite:
            name = self.measure.name
            raise ValueError(f"{what} is for strains that are linear in the displacement, not for a {name}")

    def require_no_stress_at_zero_strain(self) -> None:
        """Raise ValueError for a law with stress at zero strain, which the networks cannot represent."""
        largest, zero = abs(self.local_stress).max(), torch.zeros(1, self.laws.strain_size, dtype=torch.float64)
        for law in self.laws.laws:
            stress = law.stress(zero)[0]
            if not (stress.abs() <= _ZERO * largest).all():
                raise ValueError(f"{law.name}: the stress at zero strain is {stress.tolist()} MPa, need none")
