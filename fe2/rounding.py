# SPDX-License-Identifier: MIT
"""The rounding of internal forces.

An energy that is a difference of large numbers, such as tr e − ln det(I + 2e)/2 at small strains, has forces with fewer
digits than the tolerance of their equilibrium. The residual then stops falling at the rounding of a stress as large as
the stiffness,

    ‖r‖ ≤ ε ‖ Σⱼ |Kᵢⱼ| (dᵢⱼ + |uⱼ| + |E xⱼ|) ‖,

ε the rounding unit, dᵢⱼ the distance of the nodes: terms of the forces at strain one, and of those at the displacement
u and at its two parts, which cancel where a phase is rigid. (Rounding has random signs, so sums of it are smaller than
the bound: laws with logarithms, exponentials and determinants, at contrasts from 1e-4 to 1e4, leave a thousandth to a
twentieth of it.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from fe2.body import Body

Array = npt.NDArray[np.float64]


def norm(values: Array) -> float:
    """Euclidean norm of any array."""
    return float(np.linalg.norm(values))


def terms_of_forces(body: Body, full: scipy.sparse.bsr_matrix, affine: Array) -> Array:
    """Σⱼ |Kᵢⱼ| (dᵢⱼ + |uⱼ| + |E xⱼ|) for each degree of freedom (dofs,), see the head of this module.

    Args:
        body: at the displacement u.
        full: its stiffness K.
        affine: (dofs,) the part E x of the displacement.
    """
    x: Array = body.V.tabulate_dof_coordinates()
    size = sum(np.linalg.norm(part.reshape(len(x), -1), axis=1) for part in (body.u.x.array, affine))
    rows = np.repeat(np.arange(len(x)), np.diff(full.indptr))
    reach = np.linalg.norm(x[rows] - x[full.indices], axis=1) + size[full.indices]
    blocks = abs(full.data).sum(axis=2) * reach[:, None]
    sums = [np.bincount(rows, column, minlength=len(x)).astype(np.float64, copy=False) for column in blocks.T]
    return np.stack(sums, axis=1).ravel()
