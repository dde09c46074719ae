# SPDX-License-Identifier: MIT
"""What there is to learn from: solved problems of a cell, as arrays at weighted points."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from spon.constitutive.phase_law import LocalLaws
from spon.reduced.model import Fingerprint

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RVESpace:
    """The finite element space of the displacements of a cell, with N nodes in `dim` dimensions.

    The degrees of freedom of a node stand together: (N, dim) displacements in a row are the (dofs,) of `RVESnapshots`.

    strain_operator: B (P d, dofs), Mandel strains at the data's points in their order. nodes: (N, dim) coordinates.
    phase: (N,) from −1 for nodes of the first phase to 1 for those of the last; where phases meet, the middle of what
    they have (0 for two). period: (dim, dim) lattice vectors; None if its fluctuations are not periodic.
    """

    strain_operator: scipy.sparse.csr_matrix
    nodes: Array
    phase: Array
    period: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class RVESnapshots:
    """n solved problems of a cell with P quadrature points, which stand phase after phase.

    laws: at the points. weights: (P,), the mean of a field over the cell being Σ_p w_p field_p. strain: (n, d) of the
    macroscale. stress: (n, d). tangent: (n, d, d). energy: (n,) [MPa]. local_strain: (n, P, d) of the fluctuation
    alone. local_stress: (n, P, d) [MPa]. fluctuation: (n, dofs) [length]. order: (P,) of the points among cells ×
    points of the RVE. fingerprint: of the RVE, by parts. space: of the fluctuations.
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
    def half_range(self) -> Array:
        """Largest absolute strain of each component (d,).

        Raises:
            ValueError: a component that is zero, up to rounding, in all problems: there is nothing to learn it from.
        """
        half = abs(self.strain).max(axis=0)
        if not (half > 1e-9 * half.max()).all():
            raise ValueError(
                f"the largest strains of the snapshots are {half.tolist()}: need some of every Mandel component"
            )
        return half

    @property
    def tangents_at_zero_strain(self) -> Array:
        """Tangents of the laws at zero strain (P, d, d) [MPa], the metric in which strains are measured by energy.

        Raises:
            ValueError: a law whose tangent at rest is not positive definite.
        """
        rest = torch.zeros(1, self.laws.strain_size, dtype=torch.float64)
        for law in self.laws.laws:
            tangent = law.tangent(rest)[0]
            if not tangent.isfinite().all() or torch.linalg.eigvalsh((tangent + tangent.mT) / 2)[0] <= 0:
                raise ValueError(f"{law.name}: the tangent at rest is {tangent.tolist()}, need a positive definite one")
        return self.laws.tangent(rest.expand(self.laws.size, -1)).numpy()
