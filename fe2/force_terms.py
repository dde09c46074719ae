# SPDX-License-Identifier: MIT
"""The size of the terms of internal forces, of which they may be a small difference; see `fe2.micro_newton`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from fe2.body import Body

Array = npt.NDArray[np.float64]


def force_terms(body: Body, full: scipy.sparse.bsr_matrix, affine: Array) -> Array:
    """Σⱼ |Kᵢⱼ| (dᵢⱼ + |uⱼ| + |E xⱼ|) for each degree of freedom (dofs,), dᵢⱼ the distance of the nodes.

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
