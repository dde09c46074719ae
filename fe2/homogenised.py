# SPDX-License-Identifier: MIT
"""What the homogenisation of RVEs gives: the effective response, and the strains without equilibrium."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Failure:
    """A strain without equilibrium.

    Attributes:
        point: its index.
        strain: (d,).
        attempts: why each of them failed.
    """

    point: int
    strain: Array
    attempts: tuple[str, ...]

    def __str__(self):
        strain = np.array2string(self.strain, precision=6)
        return f"point {self.point}, strain {strain}: " + "; ".join(self.attempts)


class NotConverged(RuntimeError):
    """RVE problems without convergence; `failures` lists them."""

    def __init__(self, failures: list[Failure]):
        self.failures = failures
        shown = "\n  ".join(str(f) for f in failures[:5])
        more = f"\n  and {len(failures) - 5} more" if len(failures) > 5 else ""
        super().__init__(f"{len(failures)} RVE problem(s) did not converge:\n  {shown}{more}")

    def __reduce__(self):
        return NotConverged, (self.failures,)  # pickled with its failures, for other ranks


class UnstableWarning(UserWarning):
    """An equilibrium that is no minimum of the energy."""


@dataclass(frozen=True, slots=True)
class Homogenised:
    """Effective response at n strains; "strain" and "stress" are those of the RVE's measure.

    Attributes:
        stress: (n, d) [MPa].
        tangent: (n, d, d) dS/dE [MPa].
        energy: (n,) mean energy density [MPa].
        state: (n, state_size), see `RVE`; also a guess for nearby strains.
        iterations: (n,) Newton iterations.
        work: (n,) cost in units of one application of the factor.
        residual: (n,) norm of the final residual relative to that of the internal forces; above the tolerance where
            rounding in the material's own terms leaves no more digits.
        unstable: (n,) equilibria that are no minimum of the energy, as in softening materials. They are not unique,
            and the one found depends on the path.
        fluctuation: (n, dofs) of the displacement, in the order of `x.array` [length]; without `fields` no rows.
        local_stress: (n, cells, points, d) at the quadrature points [MPa]; without `fields` no rows.
        failures: points without convergence (their rows are NaN).
    """

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
