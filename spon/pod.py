# SPDX-License-Identifier: MIT
"""Proper orthogonal decomposition of fields given at weighted points."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Modes of a set of fields, each a combination of them.

    modes: (P, d, r), orthonormal in Σ_p w_p φ_p·ψ_p. singular_values: (n,) of all n fields, falling.
    combination: (n, r), modes = Σ_k fields_k · combination_k, so that what belongs to the fields linearly (the
    displacements of strains, say) has the modes Σ_k ·_k combination_k.
    """

    modes: Array
    singular_values: Array
    combination: Array

    def project(self, fields: Array, weights: Array) -> Array:
        """Coefficients (n, r) of the best approximation to fields (n, P, d)."""
        return np.einsum("p,npd,pdr->nr", weights, fields, self.modes, optimize=True)

    def combine(self, coefficients: Array) -> Array:
        """Fields (n, P, d) of coefficients (n, r)."""
        return np.einsum("pdr,nr->npd", self.modes, coefficients, optimize=True)


def pod(fields: Array, weights: Array, r: int) -> Basis:
    """The r modes that best approximate all fields in the weighted mean square sense.

    Args:
        fields: (n, P, d) at P points. weights: (P,) of the points, positive; ones for the unweighted decomposition.
        r: number of modes.

    Raises:
        ValueError: r above the number of independent fields, or a field or weight that is not finite.
    """
    n = len(fields)
    scaled = (fields * np.sqrt(weights)[:, None]).reshape(n, -1)
    if not np.isfinite(scaled).all():
        raise ValueError("the fields or weights hold values that are not finite")
    left, singular, right = np.linalg.svd(scaled, full_matrices=False)
    rank = int((singular > singular[0] * n * np.finfo(float).eps).sum())
    if not 1 <= r <= rank:
        raise ValueError(f"r = {r}: the {n} fields have {rank} independent ones, so 1 to {rank} modes")
    modes = (right[:r].reshape(r, *fields.shape[1:]) / np.sqrt(weights)[:, None]).transpose(1, 2, 0)
    return Basis(np.ascontiguousarray(modes), singular, left[:, :r] / singular[:r])
