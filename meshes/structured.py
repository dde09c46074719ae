# SPDX-License-Identifier: MIT
"""Structured RVEs: laminates, arrays of labels and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from .arrays import distribute
from .errors import MeshError, on_root
from .grid import grid
from .tagged import LARGEST, TaggedMesh


def laminate(
    fractions: Sequence[float],
    comm: MPI.Intracomm,
    *,
    cells: Sequence[int],
    normal: int = 0,
    size: Sequence[float] | None = None,
    center: Sequence[float] | None = None,
    order: int = 1,
    quads: bool = True,
) -> TaggedMesh:
    """Laminate whose interfaces lie on facets of the mesh.

    Args:
        fractions: volume fraction of each layer, in the order of the coordinate ``normal``; their tags are 1, 2, ...
        comm: communicator of the mesh.
        cells: boxes per direction, (nx, ny) or (nx, ny, nz); sets the dimension. Along ``normal`` each layer has a
            proportional number of them, at least one, so that the total there may differ slightly.
        normal: direction across the layers, 0, 1 or 2.
        size: lengths of the RVE; 1 in every direction if None.
        center: centre of the RVE; the origin if None.
        order: degree of the geometry.
        quads: quadrilaterals or hexahedra; simplices otherwise.

    Returns:
        The RVE; phases are named "layer 1", "layer 2", ...

    Raises:
        MeshError: fractions that are not positive or do not sum to 1, or an invalid direction.
    """
    dim = len(cells)
    share = np.asarray(fractions, dtype=np.float64)
    if share.ndim != 1 or len(share) == 0 or np.any(share <= 0) or not np.isclose(share.sum(), 1.0, atol=1e-10):
        raise MeshError(f"fractions are {list(fractions)}; they must be positive and sum to 1, not {share.sum():.12g}")
    if dim not in (2, 3) or not 0 <= normal < dim:
        raise MeshError(
            f"cells is {tuple(cells)} and normal is {normal}; give 2 or 3 counts and normal below their number"
        )
    lower, upper, center = box_corners(size or (1.0,) * dim, center)
    axes = [np.linspace(a, b, n + 1) for a, b, n in zip(lower, upper, cells)]
    interfaces = lower[normal] + (upper[normal] - lower[normal]) * np.concatenate([[0.0], np.cumsum(share)])
    interfaces[-1] = upper[normal]
    counts = np.maximum(1, np.rint(share * cells[normal]).astype(int))
    axes[normal] = np.concatenate(
        [[lower[normal]]] + [np.linspace(a, b, n + 1)[1:] for a, b, n in zip(interfaces, interfaces[1:], counts)]
    )
    along = np.repeat(np.arange(1, len(share) + 1), counts).reshape([-1 if i == normal else 1 for i in range(dim)])
    tags = np.broadcast_to(along, [len(a) - 1 for a in axes])
    names = {f"layer {i}": i for i in range(1, len(share) + 1)}
    return distribute(comm, lambda: grid(axes, tags, order=order, quads=quads, names=names, center=center))


def from_labels(
    labels: npt.ArrayLike,
    comm: MPI.Intracomm,
    *,
    spacing: float | Sequence[float] | None = None,
    center: Sequence[float] | None = None,
    order: int = 1,
    quads: bool = True,
    names: Mapping[str, int] | None = None,
) -> TaggedMesh:
    """RVE with one box per entry of an array of labels.

    Args:
        labels: integers, (nx, ny) or (nx, ny, nz): ``labels[i, j]`` is the box at the i-th place in x and the j-th in
            y, both counted from the lower corner. A label ≥ 1 becomes the tag, 0 is void and is not meshed.
        comm: communicator of the mesh; only rank 0's labels are used.
        spacing: edge lengths of a box, one for all directions or one each; 1/nx if None, so that the RVE has length 1
            in x.
        center: centre of the array; the origin if None.
        order: degree of the geometry.
        quads: quadrilaterals or hexahedra; simplices otherwise.
        names: name of a phase → tag.

    Returns:
        The RVE.

    Raises:
        MeshError: labels that are not integers, are negative, are all void or have another number of directions.
    """

    def build():
        array = np.asarray(labels)
        if array.ndim not in (2, 3) or array.size == 0:
            raise MeshError(f"labels has shape {array.shape}; it must be (nx, ny) or (nx, ny, nz), not empty")
        if not np.issubdtype(array.dtype, np.integer):
            raise MeshError(f"labels has type {array.dtype}; it must hold integers")
        if array.min() < 0 or array.max() == 0 or array.max() > LARGEST:
            raise MeshError(
                f"labels run from {array.min()} to {array.max()}; 0 is void, phases are 1, 2, ... up to {LARGEST}, one "
                "at least"
            )
        steps = np.broadcast_to(1.0 / array.shape[0] if spacing is None else spacing, (array.ndim,)).astype(float)
        lower, upper, middle = box_corners(steps * array.shape, center)
        axes = [np.linspace(a, b, n + 1) for a, b, n in zip(lower, upper, array.shape)]
        return grid(axes, array, order=order, quads=quads, names=names, center=middle)

    return distribute(comm, build)


def from_image(
    path: str | Path,
    comm: MPI.Intracomm,
    *,
    thresholds: Sequence[float] | None = None,
    levels: Mapping[int, int] | None = None,
    spacing: float | Sequence[float] | None = None,
    center: Sequence[float] | None = None,
    order: int = 1,
    quads: bool = True,
    names: Mapping[str, int] | None = None,
) -> TaggedMesh:
    """RVE with one box per pixel (or voxel) of an image or a saved array.

    Args:
        path: an image (PNG, TIFF, ...; a stack of pages is 3D), converted to grey values, or .npy, or .npz with one
            array. The top row of an image has the largest y, the first page of a stack the smallest z. Saved arrays are
            indexed ``[x, y]`` or ``[x, y, z]`` as in ``from_labels``.
        comm: communicator of the mesh; the file is read on rank 0.
        thresholds: increasing grey values; below the first is tag 1, from the first on tag 2, and so on.
        levels: grey value → tag (0 for void), for every grey value that occurs. Without thresholds and levels the
            values are the tags.
        spacing: edge lengths of a box, as in ``from_labels``.
        center: centre of the image; the origin if None.
        order: degree of the geometry.
        quads: quadrilaterals or hexahedra; simplices otherwise.
        names: name of a phase → tag.

    Returns:
        The RVE.

    Raises:
        MeshError: a missing file, a file that is not an image, or a grey value without a level.
    """
    if thresholds is not None and levels is not None:
        raise MeshError("give thresholds or levels, not both")

    def labels():
        values = _pixels(Path(path))
        if thresholds is not None:
            return 1 + np.digitize(values, np.asarray(thresholds, dtype=float))
        if levels is not None:
            present, position = np.unique(values, return_inverse=True)
            unknown = [v.item() for v in present if v.item() not in levels]
            if unknown:
                raise MeshError(
                    f"{path}: grey values {unknown[:8]} have no entry in levels, which has {sorted(levels)}"
                )
            return np.array([levels[v.item()] for v in present])[position].reshape(values.shape)
        return values

    array = on_root(comm, labels)  # None on the other ranks, which need none
    return from_labels(
        () if array is None else array, comm, spacing=spacing, center=center, order=order, quads=quads, names=names
    )


def _pixels(path: Path) -> npt.NDArray:
    """Values of an image or a saved array, indexed [x, y] or [x, y, z]."""
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as saved:
            if len(saved.files) != 1:
                raise MeshError(f"{path}: has the arrays {saved.files}; it must have one")
            return saved[saved.files[0]]
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            # Pillow converts 16-bit images to 8 bits by clipping, so only colours and palettes are converted.
            pages = [
                np.array(p.convert("L") if p.mode not in ("I", "F", "I;16") else p)
                for p in ImageSequence.Iterator(picture)
            ]
    except UnidentifiedImageError:
        raise MeshError(f"{path}: not an image that Pillow reads, nor .npy or .npz") from None
    volume = np.stack([page[::-1].T for page in pages], axis=-1)
    return volume[:, :, 0] if len(pages) == 1 else volume


def box_corners(size: Sequence[float], center: Sequence[float] | None):
    """Lower and upper corner of a box around the origin, where coordinates are accurate, and its centre; each (d,)."""
    size = np.asarray(size, dtype=np.float64)
    middle = np.zeros(len(size)) if center is None else np.asarray(center, dtype=np.float64)
    if len(size) not in (2, 3) or not np.all(size > 0) or middle.shape != size.shape or not np.isfinite(middle).all():
        raise MeshError(
            f"size is {size.tolist()} and center {middle.tolist()}; both need 2 or 3 entries, size positive ones"
        )
    return -size / 2, size / 2, middle
