# SPDX-License-Identifier: MIT
"""A DOLFINx mesh with the tags and names of its cells and facets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from .errors import MeshError
from .geometry import cell_volumes, lattice

if TYPE_CHECKING:
    from dolfinx.mesh import Mesh, MeshTags

VOID = 0  # tag of a hole, which is not meshed
MATRIX = 1  # tag of the matrix in the RVEs of this package
INCLUSION = 2  # tag of an inclusion, unless it has one of its own
LARGEST = 2**31 - 1  # tags are int32 in DOLFINx


@dataclass(frozen=True, slots=True)
class TaggedMesh:
    """A mesh with tagged and named phases and boundaries.

    Args:
        mesh: the DOLFINx mesh.
        cell_tags: phase of each cell.
        facet_tags: tagged facets; may be empty.
        names: name of a phase → its tag.
        facet_names: name of a part of the boundary → its tag.
        period: lattice vectors of an RVE, (dim, dim), one a row; None for a structure, and for an RVE whose bounding
            box is its period. Averages refer to the volume of the period, which includes voids.
    """

    mesh: Mesh
    cell_tags: MeshTags
    facet_tags: MeshTags
    names: dict[str, int]
    facet_names: dict[str, int]
    period: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.period is not None:
            object.__setattr__(self, "period", lattice(self.period, self.mesh.geometry.dim))

    @property
    def box(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lower and upper corner of the bounding box, each (d,); collective."""
        x = self.mesh.geometry.x[:, : self.mesh.geometry.dim]
        lower, upper = x.min(axis=0, initial=np.inf), x.max(axis=0, initial=-np.inf)
        self.mesh.comm.Allreduce(MPI.IN_PLACE, lower, op=MPI.MIN)
        self.mesh.comm.Allreduce(MPI.IN_PLACE, upper, op=MPI.MAX)
        return lower, upper

    @property
    def fills_box(self) -> bool:
        """Whether the period is the bounding box of the mesh; collective."""
        lower, upper = self.box
        close = 1e-6 * np.max(upper - lower)
        return self.period is None or bool(np.allclose(self.period, np.diag(upper - lower), rtol=0, atol=close))

    def with_tags(self, tags: npt.NDArray[np.integer]) -> TaggedMesh:
        """The same mesh with other cell tags.

        Args:
            tags: (cells,) tags of the cells of this rank, ghosts included.

        Raises:
            MeshError: a wrong number of tags, or tags outside 0 to 2³¹ − 1.
        """
        from dolfinx.mesh import meshtags

        tdim = self.mesh.topology.dim
        index_map = self.mesh.topology.index_map(tdim)
        count = index_map.size_local + index_map.num_ghosts
        if np.shape(tags) != (count,):
            raise MeshError(f"tags have the shape {np.shape(tags)}, need ({count},)")
        if count and not (np.min(tags) >= 0 and np.max(tags) <= LARGEST):
            raise MeshError(f"tags run from {np.min(tags)} to {np.max(tags)}, need 0 to {LARGEST}")
        cells = np.arange(count, dtype=np.int32)
        return replace(self, cell_tags=meshtags(self.mesh, tdim, cells, np.asarray(tags, dtype=np.int32)))

    def fractions(self) -> dict[int, float]:
        """Volume fraction of each phase in the period, or in the bounding box, voids included; collective.

        Returns:
            Tag → fraction; the sum is 1 without voids and with all cells tagged.
        """
        lower, upper = self.box
        mine = self.cell_tags.indices < self.mesh.topology.index_map(self.mesh.topology.dim).size_local
        cells, values = self.cell_tags.indices[mine], self.cell_tags.values[mine]
        volumes = cell_volumes(self.mesh, cells)
        local = {int(tag): float(volumes[values == tag].sum()) for tag in np.unique(values)}
        parts = self.mesh.comm.allgather(local)
        total = float(np.prod(upper - lower)) if self.period is None else abs(float(np.linalg.det(self.period)))
        return {tag: sum(p.get(tag, 0.0) for p in parts) / total for tag in sorted(set().union(*parts))}

    @classmethod
    def of(
        cls,
        mesh: Mesh,
        cell_tags: MeshTags | None = None,
        facet_tags: MeshTags | None = None,
        *,
        names: Mapping[str, int] | None = None,
        facet_names: Mapping[str, int] | None = None,
        period: npt.ArrayLike | None = None,
    ) -> TaggedMesh:
        """A tagged mesh from a DOLFINx mesh.

        Args:
            mesh: the mesh.
            cell_tags: phase of each cell; all cells are the matrix, with the tag 1, if None.
            facet_tags: parts of the boundary; none if None.
            names: name of a phase → tag; "matrix" for 1 if there are no cell tags.
            facet_names: name of a part of the boundary → tag.
            period: lattice vectors (dim, dim) of an RVE, or lengths (dim,); the bounding box if None.

        Raises:
            TypeError: not a DOLFINx mesh or DOLFINx mesh tags.
            MeshError: tags of another mesh or of entities of another dimension, or an invalid period.
        """
        import dolfinx.mesh

        if not isinstance(mesh, dolfinx.mesh.Mesh):
            raise TypeError(f"mesh is of the type {type(mesh).__name__}, need a dolfinx.mesh.Mesh")
        dim = mesh.topology.dim
        if cell_tags is None:
            index_map = mesh.topology.index_map(dim)
            cells = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
            cell_tags = dolfinx.mesh.meshtags(mesh, dim, cells, np.full(len(cells), MATRIX, dtype=np.int32))
            names = {"matrix": MATRIX} if names is None else names
        if facet_tags is None:
            nothing = np.empty(0, dtype=np.int32)
            facet_tags = dolfinx.mesh.meshtags(mesh, dim - 1, nothing, nothing)
        for argument, tags, of, need in (
            ("cell_tags", cell_tags, "cells", dim),
            ("facet_tags", facet_tags, "facets", dim - 1),
        ):
            if not isinstance(tags, dolfinx.mesh.MeshTags):
                raise TypeError(f"{argument} is of the type {type(tags).__name__}, need dolfinx.mesh.MeshTags")
            if tags.dim != need:
                raise MeshError(f"{argument} has tags of entities of dimension {tags.dim}, {of} have {need}")
            if tags.topology is not mesh.topology._cpp_object:
                raise MeshError(f"{argument} belongs to another mesh")
        vectors = None if period is None else lattice(period, mesh.geometry.dim)
        return cls(mesh, cell_tags, facet_tags, dict(names or {}), dict(facet_names or {}), vectors)
