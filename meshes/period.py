# SPDX-License-Identifier: MIT
"""The period of an RVE: its lattice vectors, given or taken from the bounding box."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import dolfinx.mesh
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from .deprecation import renamed_arguments
from .errors import MeshError
from .geometry import cell_volumes, facet_areas, facet_corners, lattice

if TYPE_CHECKING:
    from .tagged import TaggedMesh

# Largest distance of two images of one point, relative to the longest lattice vector.
CLOSE = 1e-8
# Largest rounding of coordinates, relative to the shortest side of the RVE.
COARSEST = 1e-9
GIVE = "Give the lattice vectors, one a row: period=[[...], ...] of meshes.read or meshes.TaggedMesh"


class PeriodWarning(UserWarning):
    """The period was taken from the bounding box without certainty, or the solid does not touch its translates."""


@renamed_arguments(cell="rve")
def known_period(rve: TaggedMesh) -> npt.NDArray[np.float64]:
    """Lattice vectors (dim, dim) of an RVE: as given, else those of the bounding box if that is certain (collective).

    Warns with `PeriodWarning` on rank 0 if voids cut a face of the box, since the true period may then be longer.

    Args:
        rve: the RVE.

    Raises:
        MeshError: no period was given and a face of the bounding box has no facet on it.
    """
    if rve.period is not None:
        return rve.period
    mesh = rve.mesh
    lower, upper = rve.box
    size = upper - lower
    mesh.topology.create_connectivity(mesh.geometry.dim - 1, mesh.geometry.dim)
    corners = facet_corners(mesh, dolfinx.mesh.exterior_facet_indices(mesh.topology))
    areas = facet_areas(corners)
    covered = np.empty((2, len(size)))
    for row, wall in zip(covered, (lower, upper)):
        on = (np.abs(corners - wall) <= CLOSE * size.max()).all(axis=1)  # (f, dim)
        row[:] = areas @ on
    mesh.comm.Allreduce(MPI.IN_PLACE, covered, op=MPI.SUM)
    covered /= np.prod(size) / size
    for axis, share in enumerate(covered.min(axis=0)):
        if share == 0:
            raise MeshError(
                "the period is not certain from the bounding box: no facet lies on one of its faces across "
                f"{'xyz'[axis]}. {GIVE}"
            )
    if covered.min() < 1 - 1e-6 and mesh.comm.rank == 0:
        axis = int(covered.min(axis=0).argmin())
        warnings.warn(
            f"the faces of the bounding box across {'xyz'[axis]} are solid to {covered[:, axis].min():.0%}; the period "
            f"is taken to be the box, {size.tolist()}. {GIVE}",
            PeriodWarning,
            stacklevel=3,
        )
    return np.diag(size)


def with_period(rve: TaggedMesh, period: npt.ArrayLike | None) -> TaggedMesh:
    """The RVE with the given period, see `TaggedMesh`; unchanged if None (collective).

    Warns with `PeriodWarning` on rank 0 if the solid does not span the period.

    Args:
        rve: the RVE.
        period: lattice vectors (dim, dim), or the lengths (dim,) of a box.

    Raises:
        MeshError: invalid lattice vectors, or a mesh that is larger than the period.
    """
    if period is None:
        return rve
    vectors = lattice(period, rve.mesh.geometry.dim)
    rve = replace(rve, period=vectors)
    refuse_wrong_volume(rve, vectors, closed=False)
    x = rve.mesh.geometry.x[:, : len(vectors)] @ np.linalg.inv(vectors)
    lower, upper = x.min(axis=0, initial=np.inf), x.max(axis=0, initial=-np.inf)
    rve.mesh.comm.Allreduce(MPI.IN_PLACE, lower, op=MPI.MIN)
    rve.mesh.comm.Allreduce(MPI.IN_PLACE, upper, op=MPI.MAX)
    spans = upper - lower
    if np.any(spans < 1 - CLOSE) and rve.mesh.comm.rank == 0:
        axis = int(spans.argmin())
        warnings.warn(
            f"the solid spans {spans[axis]:.6g} of the period along lattice vector {axis}, {vectors[axis].tolist()}: "
            "it does not touch its translates there and carries no load in that direction",
            PeriodWarning,
            stacklevel=3,
        )
    return rve


def refuse_coarse(rve: TaggedMesh) -> None:
    """Raise MeshError if an RVE is so far from the origin that its coordinates are not accurate (collective)."""
    lower, upper = rve.box
    size = float(np.min(upper - lower))
    farthest = float(np.max(np.abs([lower, upper])))
    if not farthest * np.finfo(np.float64).eps <= COARSEST * size:
        raise MeshError(
            f"the RVE has the size {size:.3g} and lies {farthest:.3g} from the origin, where coordinates are rounded "
            f"to {farthest * np.finfo(np.float64).eps:.1e}: move it to the origin before it is written or meshed"
        )


def refuse_wrong_volume(rve: TaggedMesh, period: npt.NDArray[np.float64], *, closed: bool) -> None:
    """Raise MeshError if a mesh is larger than its period, or smaller without a free surface (collective)."""
    mesh = rve.mesh
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    solid = mesh.comm.allreduce(float(cell_volumes(mesh, cells).sum()))
    volume = abs(float(np.linalg.det(period)))
    if solid > volume * (1 + 1e-8) or (closed and solid < volume * (1 - 1e-8)):
        raise MeshError(
            f"the mesh has the volume {solid:.9g}, the period {period.tolist()} has {volume:.9g}: "
            + ("the mesh overlaps its translates" if solid > volume else "the period is a multiple of the mesh's")
        )
