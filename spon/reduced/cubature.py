# SPDX-License-Identifier: MIT
"""Few points with which fields of a known kind are integrated as with all of them."""

import numpy as np
import numpy.typing as npt
import scipy.optimize

Array = npt.NDArray[np.float64]
Points = npt.NDArray[np.int64]


def empirical_cubature(integrands: Array, weights: Array, tolerance: float = 1e-6) -> tuple[Points, Array]:
    """Points and positive weights that integrate given functions to a relative tolerance.

    Points join a few at a time, those first whose values of the functions point most along what is still missing of
    the integrals; the weights are the non-negative least squares solution, and a point whose weight is zero leaves
    (after the empirical cubature of Hernández, Caicedo & Ferrer, Comput. Methods Appl. Mech. Eng. 313, 2017, 687–722).

    Args:
        integrands: (P, f) values of f functions at all points; the constant, i.e. the volume, is added to them.
        weights: (P,) of the full quadrature, positive.
        tolerance: of the integrals of the functions' orthonormal basis, which also bounds what is dropped from it.

    Returns:
        Points (m,), rising, and their weights (m,).
    """
    root = np.sqrt(weights)
    constant = np.full(len(weights), np.sqrt(np.mean(integrands**2)) or 1.0)
    scaled = np.column_stack([integrands, constant]) * root[:, None]
    # Orthonormal functions, those that matter: from the small Gram matrix, since P is large.
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    keep = values > max(tolerance**2, 1e-14) * values[-1]
    basis = scaled @ (vectors[:, keep] / np.sqrt(values[keep]))
    basis = np.linalg.qr(np.column_stack([root, basis]))[0]
    target = basis.T @ root
    direction = basis / np.maximum(np.linalg.norm(basis, axis=1, keepdims=True), 1e-300)
    chosen: list[int] = []
    x, missing = np.zeros(0), target
    for _ in range(2 * basis.shape[1]):
        gain = direction @ missing
        gain[chosen] = -np.inf
        joining = max(1, len(chosen) // 10)
        chosen += np.argpartition(gain, -joining)[-joining:].tolist()
        x, _ = scipy.optimize.nnls(basis[chosen].T, target)
        chosen, x = [p for p, v in zip(chosen, x, strict=True) if v > 0], x[x > 0]
        missing = target - basis[chosen].T @ x
        if np.linalg.norm(missing) <= tolerance * np.linalg.norm(target):
            break
    order = np.argsort(chosen)
    points = np.array(chosen, dtype=np.int64)[order]
    return points, x[order] * root[points]
