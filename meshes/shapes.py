# SPDX-License-Identifier: MIT
"""Inclusions: convex bodies given by a centre and the matrix A of their map from the unit ball, x = centre + A ξ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from .errors import MeshError
from .tagged import INCLUSION

AXES = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True, slots=True)
class Circle:
    """A disc in 2D.

    Args:
        center: (x, y).
        radius: its radius.
        tag: phase; 0 is a void.
    """

    center: tuple[float, float]
    radius: float
    tag: int = INCLUSION

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """A, (2, 2)."""
        return self.radius * np.eye(2)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse in 2D.

    Args:
        center: (x, y).
        semi_axes: half lengths of its axes.
        angle: degrees from the x axis to the first axis, counterclockwise.
        tag: phase; 0 is a void.
    """

    center: tuple[float, float]
    semi_axes: tuple[float, float]
    angle: float = 0.0
    tag: int = INCLUSION

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """A, (2, 2)."""
        c, s = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        return np.array([[c, -s], [s, c]]) @ np.diag(self.semi_axes)


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball in 3D.

    Args:
        center: (x, y, z).
        radius: its radius.
        tag: phase; 0 is a void.
    """

    center: tuple[float, float, float]
    radius: float
    tag: int = INCLUSION

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """A, (3, 3)."""
        return self.radius * np.eye(3)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid in 3D.

    Args:
        center: (x, y, z).
        semi_axes: half lengths of its axes.
        rotation: rotation matrix as three rows; its columns are the directions of the axes.
        tag: phase; 0 is a void.
    """

    center: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    rotation: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    tag: int = INCLUSION

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """A, (3, 3)."""
        return np.asarray(self.rotation, dtype=np.float64) @ np.diag(self.semi_axes)


@dataclass(frozen=True, slots=True)
class Cylinder:
    """A straight fibre in 3D that runs through the whole RVE.

    Args:
        center: a point on its axis, (x, y, z).
        axis: its direction, "x", "y" or "z".
        radius: its radius.
        tag: phase; 0 is a void.
    """

    center: tuple[float, float, float]
    axis: str
    radius: float
    tag: int = INCLUSION

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """A, (3, 3), infinite along the axis."""
        diagonal = np.full(3, self.radius, dtype=np.float64)
        diagonal[AXES[self.axis]] = np.inf
        matrix = np.zeros((3, 3))
        np.fill_diagonal(matrix, diagonal)
        return matrix


Shape = Circle | Ellipse | Sphere | Ellipsoid | Cylinder


def moved(shape: Shape, by: npt.NDArray[np.float64]) -> Shape:
    """The shape, translated by a vector (d,)."""
    return _with(shape, center=tuple(float(x) for x in np.add(shape.center, by)))


def rescaled(shape: Shape, origin: npt.NDArray[np.float64], unit: float) -> Shape:
    """The shape in coordinates that count from ``origin`` (d,) in multiples of ``unit``."""
    center = tuple(float(x) for x in (np.asarray(shape.center, dtype=np.float64) - origin) / unit)
    if isinstance(shape, Ellipse | Ellipsoid):
        return _with(shape, center=center, semi_axes=tuple(a / unit for a in shape.semi_axes))
    return _with(shape, center=center, radius=shape.radius / unit)


def _with(shape: Shape, **changes: Any) -> Shape:
    """`replace`, whose arguments mypy cannot check for a union of classes."""
    return replace(shape, **changes)


def extent(shape: Shape) -> npt.NDArray[np.float64]:
    """Half lengths of the bounding box, (d,): the row norms of A; infinite along a fibre."""
    return np.sqrt(np.sum(shape.matrix**2, axis=1))


def images(
    shape: Shape, lower: npt.NDArray[np.float64], upper: npt.NDArray[np.float64], size: npt.NDArray[np.float64]
) -> Iterator[npt.NDArray[np.float64]]:
    """Periodic images of a shape whose bounding boxes meet the inside of a box.

    Args:
        shape: the inclusion.
        lower: lower corner of the box, (d,); may be infinite.
        upper: upper corner, (d,).
        size: lengths of the RVE, (d,).

    Yields:
        The centres, (d,).
    """
    ranges = []
    for lo, up, c, h, s in zip(lower, upper, shape.center, extent(shape), size):
        # Along a fibre all images are the same body.
        endless = not np.isfinite(lo) or not np.isfinite(h)
        ranges.append([0] if endless else range(int(np.floor((lo - c - h) / s)) + 1, int(np.ceil((up - c + h) / s))))
    for shift in product(*ranges):
        yield np.asarray(shape.center, dtype=np.float64) + np.array(shift) * size


def gap(
    a: Shape, center_a: npt.NDArray[np.float64], b: Shape, center_b: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Distance between two inclusions.

    The contact function of Perram and Wertheim (J. Comput. Phys. 58, 1985, eq. 3.7),
    F = max over 0 < λ < 1 of λ (1 − λ) dᵀ [(1 − λ) A Aᵀ + λ B Bᵀ]⁻¹ d, is below 1 exactly if two ellipsoids overlap;
    scaled by √F they touch, and the normal n there separates them by (√F − 1)(h_A(n) + h_B(n)) with the support
    functions h.

    Args:
        a: a shape.
        center_a: its centre, (d,).
        b: another shape of the same dimension.
        center_b: its centre, (d,).

    Returns:
        The width of the gap along the normal of contact (the distance for circles, spheres and parallel fibres, a lower
        bound of it otherwise; negative if and only if the two overlap), and the middle of the gap, (d,).
    """
    finite = np.isfinite(extent(a)) & np.isfinite(extent(b))  # fibres are compared by their cross-sections
    d = (center_b - center_a)[finite]
    p, q = (m @ m.T for m in (np.where(np.isinf(s.matrix), 0.0, s.matrix)[finite] for s in (a, b)))
    # A shape's image in its own place has d = 0: complete overlap, with any normal.
    if not np.any(d):
        return -float(np.sqrt(p[0, 0]) + np.sqrt(q[0, 0])), np.asarray(center_a, dtype=np.float64)

    def normal(t):
        return np.linalg.solve((1 - t) * p + t * q, d)

    t = scipy.optimize.minimize_scalar(
        lambda t: -t * (1 - t) * d @ normal(t), bounds=(0, 1), method="bounded", options={"xatol": 1e-10}
    ).x
    n = normal(t)
    n /= np.linalg.norm(n)
    h_a, h_b = np.sqrt(n @ p @ n), np.sqrt(n @ q @ n)
    middle = (np.asarray(center_a, dtype=np.float64) + center_b) / 2
    middle[finite] = center_a[finite] + (p @ n / h_a + d - q @ n / h_b) / 2
    return float(n @ d - h_a - h_b), middle


def near_pairs(
    shapes: Sequence[Shape], size: npt.NDArray[np.float64], reach: float
) -> Iterator[tuple[int, int, float, npt.NDArray[np.float64]]]:
    """Pairs of inclusions, periodic images included, whose gap is below ``reach``.

    Args:
        shapes: the inclusions.
        size: lengths of the RVE, (d,).
        reach: upper bound of the gaps.

    Yields:
        (i, j, gap, middle): numbers of the two, width and middle of the gap beside inclusion i; every pair once, and an
        inclusion with its own images.
    """
    for i, a in enumerate(shapes):
        center = np.asarray(a.center, dtype=np.float64)
        room = extent(a) + reach
        for j, b in enumerate(shapes[i:], start=i):
            for image in images(b, center - room, center + room, size):
                # Of the two images on opposite sides of the inclusion itself one is enough.
                if i == j and tuple(image - center) <= (0.0,) * len(center):
                    continue
                width, middle = gap(a, center, b, image)
                if width < reach:
                    yield i, j, width, middle


def refuse_overlaps(shapes: Sequence[Shape], size: npt.NDArray[np.float64]) -> None:
    """Raise if two inclusions, or an inclusion and an image of its own, overlap.

    Raises:
        MeshError: names the two.
    """
    for i, j, width, middle in near_pairs(shapes, size, 0.0):
        where = ", ".join(f"{x:.6g}" for x in middle)
        other = "its own periodic image" if i == j else f"inclusion {j} ({shapes[j]}) or an image of it"
        raise MeshError(
            f"inclusion {i} ({shapes[i]}) overlaps {other} by {-width:.3g} near ({where}); "
            "make them smaller or move them apart"
        )
