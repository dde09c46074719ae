# SPDX-License-Identifier: MIT
"""What is told of RVE problems that have no solution, or one that is not unique."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fe2.control import Control

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Failure:
    """A strain without equilibrium.

    Attributes:
        point: its index.
        strain: (d,).
        attempts: why each of them failed.
        stress: (d,) if some was prescribed; both are then as given, with NaN.
    """

    point: int
    strain: Array
    attempts: tuple[str, ...]
    stress: Array | None = field(default=None, kw_only=True)

    def __str__(self):
        given = f"strain {np.array2string(self.strain, precision=6)}"
        if self.stress is not None:
            given += f", stress {np.array2string(self.stress, precision=6)}"
        return f"point {self.point}, {given}: " + "; ".join(self.attempts)


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


def failure_at(k: int, control: Control, attempts: list[str]) -> Failure:
    """The failure of point `k`, with what was prescribed there."""
    return Failure(k, control.strain.copy(), tuple(attempts), stress=control.stress if len(control.free) else None)
