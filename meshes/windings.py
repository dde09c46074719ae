# SPDX-License-Identifier: MIT
"""Whether points are inside a closed surface, by the solid angle of the surface."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def simplices(corners) -> list[list[int]]:
    """Local vertices of the simplices of facets (f, v, dim); a quadrilateral is two triangles."""
    return {2: [[0, 1]], 3: [[0, 1, 2]], 4: [[0, 1, 2], [3, 2, 1]]}[corners.shape[1]]


def oriented(corners, inner) -> npt.NDArray[np.float64]:
    """Simplices (s, dim, dim) of facets (f, v, dim), oriented with the points `inner` (f, dim) behind them."""
    parts = []
    for simplex in simplices(corners):
        part = corners[:, simplex].copy()
        behind = np.linalg.det(part - inner[:, None]) < 0
        part[behind] = part[behind][:, [1, 0, *range(2, len(simplex))]]
        parts.append(part)
    return np.concatenate(parts)


def windings(points, simplices) -> npt.NDArray[np.float64]:
    """Solid angle (n,) of a closed surface of simplices (s, dim, dim) at points (n, dim), over the full one.

    In 3D by A. van Oosterom and J. Strackee, IEEE Trans. Biomed. Eng. 30, 1983, eq. 8.
    """
    found = np.zeros(len(points))
    for k, point in enumerate(points):
        a = simplices - point
        length = np.linalg.norm(a, axis=2)
        if a.shape[2] == 2:
            cosine = np.einsum("si,si->s", a[:, 0], a[:, 1])
            found[k] = np.arctan2(np.linalg.det(a), cosine).sum() / (2 * np.pi)
            continue
        dots = [np.einsum("si,si->s", a[:, i], a[:, j]) * length[:, 3 - i - j] for i, j in ((0, 1), (0, 2), (1, 2))]
        found[k] = 2 * np.arctan2(np.linalg.det(a), length.prod(axis=1) + sum(dots)).sum() / (4 * np.pi)
    return found
