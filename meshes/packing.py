# SPDX-License-Identifier: MIT
"""Random periodic packings of equal circles or spheres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are first used

from .errors import MeshError
from .shapes import Circle, Sphere
from .tagged import INCLUSION

ATTEMPTS = 200  # random places for one inclusion before the packing is relaxed
SWEEPS = 4000  # relaxation steps


def packing(
    fraction: float,
    *,
    dim: int = 2,
    radius: float | None = None,
    count: int | None = None,
    seed: int = 0,
    min_gap: float = 0.0,
    size: Sequence[float] | None = None,
    tag: int = INCLUSION,
) -> list[Circle | Sphere]:
    """Circles or spheres at random places that overlap neither each other nor their periodic images.

    Inclusions are placed one after the other without overlap (random sequential addition); when no free place is found,
    the remaining ones are placed at random and all overlapping pairs are pushed apart until none overlaps. The RVE is
    centred at the origin.

    Args:
        fraction: volume fraction; with ``radius`` rounded to a whole number of inclusions, with ``count`` exact.
        dim: 2 or 3.
        radius: radius of an inclusion; give this or ``count``.
        count: number of inclusions.
        seed: the same seed gives the same packing.
        min_gap: smallest distance between two surfaces.
        size: lengths of the RVE; 1 in every direction if None.
        tag: phase of the inclusions; 0 is a void.

    Returns:
        The inclusions, for ``meshes.rve``.

    Raises:
        MeshError: no packing was found; the message has the fraction that was reached.
    """
    size = np.ones(dim) if size is None else np.asarray(size, dtype=np.float64)
    if dim not in (2, 3) or size.shape != (dim,) or (radius is None) == (count is None):
        raise MeshError(
            f"dim is {dim} (2 or 3), size {size.tolist()} (dim entries); radius {radius} or count {count}: give one"
        )
    if not 0 < fraction < 1 or min_gap < 0:
        raise MeshError(f"fraction is {fraction} (between 0 and 1), min_gap {min_gap} (not negative)")
    unit = np.pi if dim == 2 else 4 / 3 * np.pi  # volume of the unit ball
    room = float(np.prod(size))
    if radius is not None:
        count = max(1, round(fraction * room / (unit * radius**dim)))
    else:
        assert count is not None
        radius = (fraction * room / (unit * count)) ** (1 / dim)
    distance = 2 * radius + min_gap
    if distance > size.min():
        raise MeshError(
            f"radius {radius:.6g} and min_gap {min_gap:.6g} do not fit an RVE of size {size.tolist()}: use more"
        )

    rng = np.random.default_rng(seed)
    centers, placed = _sequential(rng, count, distance, size)
    if placed < count and not _relaxed(rng, centers, distance, size):
        reached = placed * unit * radius**dim / room
        raise MeshError(
            f"{count} inclusions of radius {radius:.6g} with min_gap {min_gap:.6g} (fraction {fraction}) do not fit; "
            f"{placed} did, fraction {reached:.4f}. Use a smaller fraction or min_gap, or another seed"
        )
    kind = Circle if dim == 2 else Sphere
    return [kind(tuple(c), float(radius), tag) for c in (centers - size / 2).tolist()]


def _sequential(rng, count, distance, size):
    """Centres in [0, size), (count, d), and the number of those, from the first, that keep their distance."""
    centers = np.empty((count, len(size)))
    for placed in range(count):
        for place in rng.random((ATTEMPTS, len(size))) * size:
            apart = centers[:placed] - place
            apart -= size * np.rint(apart / size)
            if np.all(np.einsum("ij,ij->i", apart, apart) >= distance**2):
                centers[placed] = place
                break
        else:
            centers[placed:] = rng.random((count - placed, len(size))) * size
            return centers, placed
    return centers, count


def _relaxed(rng, centers, distance, size) -> bool:
    """Push overlapping pairs apart, in place, until none is left; False if some remain.

    All pairs nearer than ``distance`` are moved to slightly more than it at once; small random steps, which decay, free
    jammed inclusions.
    """
    target = distance * (1 + 1e-3)
    for sweep in range(SWEEPS):
        pairs = scipy.spatial.cKDTree(centers, boxsize=size).query_pairs(distance, output_type="ndarray")
        if len(pairs) == 0:
            return True
        apart = centers[pairs[:, 0]] - centers[pairs[:, 1]]
        apart -= size * np.rint(apart / size)
        length = np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12 * distance)
        push = 0.5 * (target - length) * apart / length
        np.add.at(centers, pairs[:, 0], push)
        np.add.at(centers, pairs[:, 1], -push)
        centers += (
            0.02 * distance * max(0.0, 1 - 2 * sweep / SWEEPS) ** 2 * rng.normal(size=centers.shape) * (sweep % 10 == 0)
        )
        centers[:] = centers % size
        centers[centers >= size] = 0.0  # the remainder of a tiny negative number rounds to size itself
    return False
