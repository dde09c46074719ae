# SPDX-License-Identifier: MIT
"""A mesh as plain arrays on one rank, and its distribution as a tagged DOLFINx mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import basix
import basix.ufl
import dolfinx.graph
import dolfinx.io.utils
import dolfinx.mesh
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from . import compat
from .errors import MeshError, on_root
from .tagged import TaggedMesh

UNTAGGED = -1  # labels in a file are 0 and larger


@dataclass(frozen=True, slots=True)
class Arrays:
    """A whole mesh on one rank.

    Args:
        points: (n, d) node coordinates.
        cells: (m, k) nodes of the cells, in DOLFINx order.
        cell: name of the reference cell, for example "triangle".
        degree: degree of the geometry.
        cell_values: (m,) tags; ``UNTAGGED`` for a cell without one.
        facets: (f, v) vertices of the tagged facets, or None for no tagged facets.
        facet_values: (f,) tags of these facets.
        names: name of a cell tag → tag.
        facet_names: name of a facet tag → tag.
        period: (d, d) lattice vectors of an RVE, or None, see `TaggedMesh`.
    """

    points: npt.NDArray[np.float64]
    cells: npt.NDArray[np.int64]
    cell: str
    degree: int
    cell_values: npt.NDArray[np.int32]
    facets: npt.NDArray[np.int64] | None = None
    facet_values: npt.NDArray[np.int32] | None = None
    names: Mapping[str, int] = field(default_factory=dict)
    facet_names: Mapping[str, int] = field(default_factory=dict)
    period: npt.NDArray[np.float64] | None = None


def facet_vertices(cell: str) -> npt.NDArray[np.int64]:
    """Local vertices of each facet of a reference cell, (facets, vertices)."""
    topology = basix.topology(basix.CellType[cell])
    return np.array(topology[-2], dtype=np.int64)


def exterior_facets(cells: npt.NDArray[np.int64], cell: str) -> npt.NDArray[np.int64]:
    """Vertices of the facets that belong to one cell only, (facets, vertices)."""
    facets = cells[:, facet_vertices(cell)].reshape(-1, facet_vertices(cell).shape[1])
    _, first, count = np.unique(np.sort(facets, axis=1), axis=0, return_index=True, return_counts=True)
    return facets[first[count == 1]]


def distribute(comm: MPI.Intracomm, build: Callable[[], Arrays]) -> TaggedMesh:
    """Build arrays on rank 0 and distribute them over ``comm`` as a tagged mesh.

    Args:
        comm: communicator of the mesh; the call is collective.
        build: makes the arrays; called on rank 0 only.

    Returns:
        The tagged mesh; cells with value ``UNTAGGED`` have no tag.

    Raises:
        MeshError: ``build`` failed, or made a mesh without cells.
    """
    arrays = on_root(comm, lambda: _without_unused_nodes(build()))
    about = (
        None
        if arrays is None
        else (
            arrays.cell,
            arrays.degree,
            arrays.points.shape[1],
            arrays.cells.shape[1],
            dict(arrays.names),
            dict(arrays.facet_names),
            arrays.period,
        )
    )
    cell, degree, gdim, nodes, names, facet_names, period = comm.bcast(about, root=0)
    if arrays is None:  # the other ranks pass empty arrays to the collective calls
        points, cells = np.empty((0, gdim)), np.empty((0, nodes), dtype=np.int64)
        values: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        facets: npt.NDArray[np.int64] | None = None
        facet_values: npt.NDArray[np.int32] | None = None
    else:
        points, cells, values = arrays.points, arrays.cells, arrays.cell_values
        facets, facet_values = arrays.facets, arrays.facet_values
    if facets is None or facet_values is None:
        facets = np.empty((0, facet_vertices(cell).shape[1]), dtype=np.int64)
        facet_values = np.empty(0, dtype=np.int32)

    element = basix.ufl.element(
        "Lagrange", cell, degree, lagrange_variant=basix.LagrangeVariant.equispaced, shape=(gdim,)
    )
    mesh = compat.create_mesh(comm, cells, np.ascontiguousarray(points, dtype=np.float64), element)
    tdim = mesh.topology.dim
    tagged = values != UNTAGGED
    return TaggedMesh(
        mesh,
        _tags(mesh, tdim, cells[tagged], values[tagged], "cell_tags"),
        _tags(mesh, tdim - 1, facets, facet_values, "facet_tags"),
        names,
        facet_names,
        period,
    )


def _tags(mesh, dim, entities, values, name):
    """MeshTags from entities given on rank 0 by their nodes in the numbering of the input."""
    mesh.topology.create_connectivity(dim, 0)
    mesh.topology.create_connectivity(dim, mesh.topology.dim)
    entities, values = dolfinx.io.utils.distribute_entity_data(
        mesh, dim, np.ascontiguousarray(entities, dtype=np.int64), np.ascontiguousarray(values, dtype=np.int32)
    )
    adjacency = dolfinx.graph.adjacencylist(np.asarray(entities, dtype=np.int32))
    tags = dolfinx.mesh.meshtags_from_entities(mesh, dim, adjacency, np.asarray(values, dtype=np.int32))
    tags.name = name
    return tags


def _without_unused_nodes(arrays: Arrays) -> Arrays:
    """Drop nodes that no cell uses: DOLFINx would keep them as nodes of no cell."""
    if len(arrays.cells) == 0:
        raise MeshError("the mesh has no cells")
    used, cells = np.unique(arrays.cells, return_inverse=True)
    number = np.full(len(arrays.points), -1, dtype=np.int64)
    number[used] = np.arange(len(used))
    facets = None if arrays.facets is None else number[arrays.facets]
    if facets is not None and np.any(facets < 0):
        raise MeshError(f"{np.sum(np.any(facets < 0, axis=1))} tagged facets have nodes that belong to no cell")
    return replace(arrays, points=arrays.points[used], cells=cells.reshape(arrays.cells.shape), facets=facets)
