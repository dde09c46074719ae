# SPDX-License-Identifier: MIT
"""Pictures of fields on plane meshes and of curves, with matplotlib, imported at the first picture."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from meshes.compat import geometry_dofmap

# Corners of a cell, as numbered by DOLFINx, in order around it.
_AROUND = {"triangle": [0, 1, 2], "quadrilateral": [0, 1, 3, 2]}


def polygons(mesh, deformation=None) -> npt.NDArray[np.float64]:
    """Corners (cells, 3 or 4, 2) of the local cells of a plane mesh, in order around each; edges drawn straight.

    Args:
        mesh: DOLFINx mesh of triangles or quadrilaterals in the plane.
        deformation: displacement to add, a Lagrange `fem.Function` with two components; None for none.

    Raises:
        ValueError: another kind of mesh or of function.
    """
    kind = mesh.basix_cell().name
    if kind not in _AROUND or mesh.geometry.dim != 2:
        raise ValueError(f"the mesh has cells of type {kind} in {mesh.geometry.dim}D: need a plane mesh")
    cells = mesh.topology.index_map(2).size_local
    # Lagrange nodes and degrees of freedom are numbered from the corners on.
    corners = _AROUND[kind]
    x = mesh.geometry.x[geometry_dofmap(mesh)[:cells][:, corners], :2]
    if deformation is None:
        return x
    space = deformation.function_space
    if space.dofmap.index_map_bs != 2:
        raise ValueError(f"deformation has {space.dofmap.index_map_bs} components: need 2")
    return x + deformation.x.array.reshape(-1, 2)[space.dofmap.list[:cells][:, corners]]


class CellValues(NamedTuple):
    """Cells of all ranks: corners (cells, 3 or 4, 2), see `polygons`, and values (cells, ...)."""

    corners: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


def gather(mesh, values: npt.ArrayLike, deformation=None) -> CellValues:
    """Corners and values of the cells of all ranks, on all ranks, for a picture on one of them (collective).

    Args:
        mesh: plane DOLFINx mesh.
        values: (cells, ...) of the cells of this rank.
        deformation: see `polygons`.
    """
    parts = mesh.comm.allgather((polygons(mesh, deformation), np.asarray(values)))
    corners, values = (np.concatenate(column) for column in zip(*parts))
    return CellValues(corners, values)


def field(
    axes,
    mesh,
    values: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    deformation=None,
    label: str | None = "",
    cmap: str = "viridis",
    limits: tuple[float, float] | None = None,
):
    """Draw a field as one colour per cell.

    Each rank draws its own cells.

    Args:
        axes: matplotlib axes.
        mesh: plane DOLFINx mesh, or the corners (cells, 3 or 4, 2) of its cells, e.g. from `gather`.
        values: (cells,), or (cells, points) at quadrature points, which are averaged.
        weights: (cells, points) of the average, e.g. `Body.weights`; equal ones if None.
        deformation: displacement (Lagrange `fem.Function`) to draw a mesh with; None for the undeformed mesh.
        label: of the colour bar; None for no bar.
        cmap: matplotlib colour map.
        limits: smallest and largest value of the colour bar; those of the field if None.

    Returns:
        The matplotlib collection.

    Raises:
        ValueError: values of the wrong shape, or a mesh that is not plane.
    """
    from matplotlib.collections import PolyCollection

    corners = mesh if isinstance(mesh, np.ndarray) else polygons(mesh, deformation)
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) != len(corners):
        raise ValueError(f"values have shape {values.shape}, need ({len(corners)},) or ({len(corners)}, points)")
    if values.ndim == 2:
        values = np.average(values, axis=1, weights=None if weights is None else np.asarray(weights))
    drawn = PolyCollection(list(corners), array=values, cmap=cmap, edgecolors="face", linewidths=0.2)
    if limits is not None:
        drawn.set_clim(*limits)
    axes.add_collection(drawn)
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()
    if label is not None:
        axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.8)
    return drawn


def curve(axes, x: npt.ArrayLike, y: npt.ArrayLike, *, xlabel: str = "", ylabel: str = "", label: str = "", **style):
    """Draw a curve such as force over displacement: x and y (n,), `style` as in matplotlib; returns the line."""
    style = {"marker": "o", "markersize": 3.5} | style
    (line,) = axes.plot(np.asarray(x), np.asarray(y), label=label or None, **style)
    if xlabel:
        axes.set_xlabel(xlabel)
    if ylabel:
        axes.set_ylabel(ylabel)
    if label:
        axes.legend(frameon=False)
    axes.grid(True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return line


def save(figure, path: str | Path, dpi: int = 150) -> Path:
    """Write a matplotlib figure; the file appears complete or not at all. Folders are made. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=dpi, bbox_inches="tight", format=path.suffix.lstrip(".") or "png")
    part.replace(path)
    return path
