# SPDX-License-Identifier: MIT
"""Newton's method for the local unknowns of materials, at all quadrature points at once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Largest change, relative to the largest local unknown, at which the local Newton iteration ends; the larger change at
# which it ends if the change no longer decreases, as quadratic convergence ends in rounding; and the most iterations,
# which a power law far from its start needs.
_TOLERANCE, _ROUNDING, ITERATIONS = 1e-13, 1e-9, 60


class LocalSolution(NamedTuple):
    """Outcome of `newton_local`: cells (cells,) without convergence, and the last change."""

    failed: npt.NDArray[np.bool_]
    change: float


def newton_local(
    local: Array, cells: npt.NDArray[np.int32], correction: Callable[[], Array], unit: float = 0.0
) -> LocalSolution:
    """Newton's method at the quadrature points of `cells`.

    Args:
        local: (all cells, points, unknowns), solved for in place.
        cells: the cells to solve in.
        correction: Newton corrections (cells, points, unknowns) at the present `local`.
        unit: least size of the unknowns next to which changes are small; 1 at finite strain, where materials are
            functions of I + H.
    """
    step = np.inf
    for _ in range(ITERATIONS):
        change = correction()
        local[cells] -= change
        previous, step = step, abs(change).max(initial=0.0)
        largest = abs(local[cells]).max(initial=unit)
        if step <= _TOLERANCE * largest or (step <= _ROUNDING * largest and step >= previous):
            return LocalSolution(np.zeros(len(cells), dtype=bool), step)
        if not np.isfinite(step):
            return LocalSolution(~np.asarray(np.isfinite(change).all(axis=(1, 2))), step)
    return LocalSolution(np.asarray((abs(change) > _TOLERANCE * largest).any(axis=(1, 2))), step)
