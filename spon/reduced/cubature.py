# SPDX-License-Identifier: MIT
"""Cubature: few points that integrate given functions to a tolerance."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize

Array = npt.NDArray[np.float64]
Points = npt.NDArray[np.int64]


class Cubature(NamedTuple):
    """Some of the points of a quadrature with weights of their own.

    Args:
        points: (m,) numbers of the points, ascending.
        weights: (m,), positive.
    """

    points: Points
    weights: Array


def empirical_cubature(integrands: Array, weights: Array, tolerance: float = 1e-6) -> Cubature:
    """Points and positive weights that integrate given functions to a relative tolerance.

    Points are added a few at a time, first those whose function values are most aligned with the residual of the
    integrals. The weights are the non-negative least squares solution, and points with zero weight are removed (after
    the empirical cubature of Hernández, Caicedo & Ferrer, Comput. Methods Appl. Mech. Eng. 313, 2017, 687–722).

    Args:
        integrands: (P, f) values of f functions at all points; the constant is added to them.
        weights: (P,) of the full quadrature, positive.
        tolerance: relative error of the integrals of an orthonormal basis of the functions, and of the basis.
    """
    root = np.sqrt(weights)
    constant = np.full(len(weights), np.sqrt(np.mean(integrands**2)) or 1.0)
    scaled = np.column_stack([integrands, constant]) * root[:, None]
    # An orthonormal basis of the functions, truncated; by the small Gram matrix, since P is large.
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    keep = values > max(tolerance**2, 1e-14) * values[-1]
    basis = scaled @ (vectors[:, keep] / np.sqrt(values[keep]))
    basis = np.linalg.qr(np.column_stack([root, basis]))[0]
    target = basis.T @ root
    direction = basis / np.maximum(np.linalg.norm(basis, axis=1, keepdims=True), 1e-300)
    chosen: list[int] = []
    x: Array = np.zeros(0)
    residual = target
    for _ in range(2 * basis.shape[1]):
        gain = direction @ residual
        gain[chosen] = -np.inf
        joining = max(1, len(chosen) // 10)
        chosen += [int(p) for p in np.argpartition(gain, -joining)[-joining:]]
        x, _ = scipy.optimize.nnls(basis[chosen].T, target)
        chosen, x = [p for p, v in zip(chosen, x, strict=True) if v > 0], x[x > 0]
        residual = target - basis[chosen].T @ x
        if np.linalg.norm(residual) <= tolerance * np.linalg.norm(target):
            break
    order = np.argsort(chosen)
    points = np.array(chosen, dtype=np.int64)[order]
    return Cubature(points, x[order] * root[points])
