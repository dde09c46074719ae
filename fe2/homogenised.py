# SPDX-License-Identifier: MIT
"""What the homogenisation of RVEs gives."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fe2.failures import Failure

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Homogenised:
    """Effective response at n strains; "strain" and "stress" are those of the RVE's measure.

    Attributes:
        strain: (n, d) as prescribed, or found where the stress is prescribed.
        stress: (n, d) [MPa].
        tangent: (n, d, d) dS/dE [MPa].
        energy: (n,) mean energy density [MPa].
        state: (n, state_size), see `RVE`; also a guess for nearby strains.
        iterations: (n,) Newton iterations.
        work: (n,) cost in units of one application of the factor.
        residual: (n,) norm of the final residual relative to that of the internal forces, or that of prescribed
            stresses if it is larger; above the tolerance where rounding in the material's own terms leaves no more
            digits.
        unstable: (n,) equilibria that are no minimum of the energy, as in softening materials. They are not unique,
            and the one found depends on the path.
        fluctuation: (n, dofs) of the displacement, in the order of `x.array` [length]; without `fields` no rows.
        local_stress: (n, cells, points, d) at the quadrature points [MPa]; without `fields` no rows.
        failures: points without convergence (their rows are NaN).
    """

    strain: Array
    stress: Array
    tangent: Array
    energy: Array
    state: Array
    iterations: npt.NDArray[np.int64]
    work: Array
    residual: Array
    unstable: npt.NDArray[np.bool_]
    fluctuation: Array
    local_stress: Array
    failures: list[Failure] = field(default_factory=list)
