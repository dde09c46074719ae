# SPDX-License-Identifier: MIT
"""Proper orthogonal decomposition of fields given at weighted points."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Modes of n fields, each a linear combination of the fields.

    Args:
        modes: (P, d, r), orthonormal in the inner product of `pod`.
        singular_values: (n,), descending.
        combination: (n, r), modes = Σ_k fields_k combination_k. Linear functions of the fields, such as the
            displacements of strains, have modes with the same combination.
    """

    modes: Array
    singular_values: Array
    combination: Array


# Relative accuracy of fields from an iterative solver: smaller singular values are errors of the solver.
_ROUNDING = 1e-9


def rank(singular_values: Array) -> int:
    """Number of modes above rounding."""
    return int((singular_values > _ROUNDING * singular_values[0]).sum())


def pod(fields: Array, weights: Array, r: int, metric: Array | None = None) -> Basis:
    """The r modes that best approximate all fields in the mean square of Σ_p w_p φ_p·M_p φ_p.

    The rank of the fields limits r: an RVE of linear phases has d independent fields, a laminate few more.

    Args:
        fields: (n, P, d) at P points.
        weights: (P,) of the points, positive; ones for the unweighted decomposition.
        r: number of modes, at most.
        metric: M (P, d, d), symmetric positive definite, such as stiffnesses, which weight strains by their energy;
            None for the identity.

    Raises:
        ValueError: r below one, or a field or weight that is not finite.
    """
    if r < 1:
        raise ValueError(f"r = {r}: need at least one mode")
    n = len(fields)
    # w M = F Fᵀ, and F is applied to the fields.
    factor = np.eye(fields.shape[2]) if metric is None else np.linalg.cholesky(metric)
    factor = np.sqrt(weights)[:, None, None] * factor
    scaled = np.einsum("npd,pde->npe", fields, factor, optimize=True).reshape(n, -1)
    if not np.isfinite(scaled).all():
        raise ValueError("the fields or weights hold values that are not finite")
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    r = min(r, rank(singular))
    combination = left[:, :r] / singular[:r]
    return Basis(np.einsum("npd,nr->pdr", fields, combination, optimize=True), singular, combination)
