# SPDX-License-Identifier: MIT
"""Structured meshes of the macroscale with named boundaries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mpi4py import MPI

from .arrays import distribute
from .errors import MeshError
from .grid import grid
from .tagged import TaggedMesh

STRUCTURE = {"structure": 1}


def _at(direction: int, value: float):
    """True for points (n, d) of a whole boundary whose coordinate is ``value``."""
    return lambda x: np.abs(x[:, direction] - value) <= 1e-9 * np.ptp(x[:, direction])


def cook(comm: MPI.Intracomm, *, n: int | Sequence[int] = 8, order: int = 1, quads: bool = True) -> TaggedMesh:
    """Cook's membrane: the quadrilateral (0, 0), (48, 44), (48, 60), (0, 44).

    Args:
        comm: communicator of the mesh.
        n: cells per side, or (along, across).
        order: degree of the geometry.
        quads: quadrilaterals; triangles otherwise.

    Returns:
        The membrane; boundaries "left" (clamped in the benchmark), "right" (loaded), "bottom", "top".
    """
    nx, ny = np.broadcast_to(n, (2,))

    def membrane(p):
        along, across = p.T
        return np.column_stack([48 * along, (1 - across) * 44 * along + across * (44 + 16 * along)])

    sides = {"left": _at(0, 0.0), "right": _at(0, 1.0), "bottom": _at(1, 0.0), "top": _at(1, 1.0)}
    axes = [np.linspace(0, 1, nx + 1), np.linspace(0, 1, ny + 1)]
    return distribute(
        comm,
        lambda: grid(
            axes, np.ones((nx, ny), int), order=order, quads=quads, sides=sides, names=STRUCTURE, mapping=membrane
        ),
    )


def l_profile(
    comm: MPI.Intracomm,
    *,
    length: float = 100.0,
    height: float = 100.0,
    thickness: float = 50.0,
    n: int = 4,
    order: int = 1,
    quads: bool = True,
) -> TaggedMesh:
    """L-profile: an upright leg on the left and a foot to the right, with the inner corner at (thickness, thickness).

    Args:
        comm: communicator of the mesh.
        length: length of the foot, from x = 0.
        height: height of the leg, from y = 0.
        thickness: thickness of both, below ``length`` and ``height``.
        n: cells across the thickness; the rest of leg and foot has cells of about that size.
        order: degree of the geometry.
        quads: quadrilaterals; triangles otherwise.

    Returns:
        The profile; boundaries "left", "bottom", "top" (end of the leg), "right" (end of the foot), "inner" (the two
        sides of the inner corner).

    Raises:
        MeshError: the thickness is not below length and height.
    """
    if not 0 < thickness < min(length, height):
        raise MeshError(f"thickness is {thickness}; it must be positive and below length {length} and height {height}")
    axes = []
    for total in (length, height):
        rest = max(1, round(n * (total - thickness) / thickness))
        axes.append(np.concatenate([np.linspace(0, thickness, n + 1), np.linspace(thickness, total, rest + 1)[1:]]))
    tags = np.ones([len(a) - 1 for a in axes], dtype=int)
    tags[n:, n:] = 0
    # The boundary of the profile has only those parts of these two lines that begin at the inner corner.
    inner_x, inner_y = _at(0, thickness), _at(1, thickness)
    sides = {
        "left": _at(0, 0.0),
        "bottom": _at(1, 0.0),
        "right": _at(0, length),
        "top": _at(1, height),
        "inner": lambda x: inner_x(x) | inner_y(x),
    }
    return distribute(comm, lambda: grid(axes, tags, order=order, quads=quads, sides=sides, names=STRUCTURE))


def plate_with_hole(
    comm: MPI.Intracomm,
    *,
    length: float = 1.0,
    height: float = 1.0,
    radius: float = 0.25,
    n: int = 8,
    order: int = 1,
    quads: bool = True,
) -> TaggedMesh:
    """A quarter of a plate with a circular hole around the origin; symmetry planes x = 0 and y = 0.

    Args:
        comm: communicator of the mesh.
        length: extent of the quarter in x.
        height: extent of the quarter in y.
        radius: radius of the hole.
        n: cells along each half of the arc and from the hole outwards.
        order: degree of the geometry; the nodes lie on the arc.
        quads: quadrilaterals; triangles otherwise.

    Returns:
        The quarter; boundaries "left" (x = 0), "bottom" (y = 0), "right", "top", "hole".

    Raises:
        MeshError: the hole does not fit.
    """
    if not 0 < radius < min(length, height):
        raise MeshError(f"radius is {radius}; it must be positive and below length {length} and height {height}")

    def plate(p):
        # around: 0 on the x axis, 1 at the outer corner, 2 on the y axis; out: 0 on the hole, 1 on the outer sides
        around, out = p.T
        angle = around * np.pi / 4
        arc = radius * np.column_stack([np.cos(angle), np.sin(angle)])
        outer = np.column_stack([length * np.minimum(1, 2 - around), height * np.minimum(1, around)])
        points = (1 - out[:, None]) * arc + out[:, None] * outer
        points[around == 0, 1] = points[around == 2, 0] = 0.0  # exactly on the symmetry planes
        return points

    outside = _at(1, 1.0)
    sides = {
        "left": _at(0, 2.0),
        "bottom": _at(0, 0.0),
        "right": lambda x: outside(x) & (x[:, 0] <= 1 + 1e-9),
        "top": lambda x: outside(x) & (x[:, 0] >= 1 - 1e-9),
        "hole": _at(1, 0.0),
    }
    axes = [np.linspace(0, 2, 2 * n + 1), np.linspace(0, 1, n + 1)]
    return distribute(
        comm,
        lambda: grid(
            axes, np.ones((2 * n, n), int), order=order, quads=quads, sides=sides, names=STRUCTURE, mapping=plate
        ),
    )


def bar(
    comm: MPI.Intracomm,
    *,
    size: Sequence[float] = (10.0, 1.0),
    n: Sequence[int] = (20, 2),
    order: int = 1,
    quads: bool = True,
) -> TaggedMesh:
    """A straight bar along x with one corner at the origin.

    Args:
        comm: communicator of the mesh.
        size: (length, height) or (length, width, height).
        n: cells per direction, as many entries as ``size``.
        order: degree of the geometry.
        quads: quadrilaterals or hexahedra; simplices otherwise.

    Returns:
        The bar; boundaries "left", "right" (x), "bottom", "top" (the last direction) and in 3D "front", "back" (y).

    Raises:
        MeshError: ``size`` and ``n`` do not have 2 or 3 positive entries each.
    """
    dim = len(size)
    if dim not in (2, 3) or len(n) != dim or min(n) < 1 or min(size) <= 0:
        raise MeshError(f"size is {tuple(size)} and n {tuple(n)}; both need the same 2 or 3 positive entries")
    last = dim - 1
    sides = {"left": _at(0, 0.0), "right": _at(0, size[0]), "bottom": _at(last, 0.0), "top": _at(last, size[last])}
    if dim == 3:
        sides |= {"front": _at(1, 0.0), "back": _at(1, size[1])}
    axes = [np.linspace(0, length, count + 1) for length, count in zip(size, n)]
    return distribute(
        comm, lambda: grid(axes, np.ones(tuple(n), int), order=order, quads=quads, sides=sides, names=STRUCTURE)
    )
