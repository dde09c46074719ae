# SPDX-License-Identifier: MIT
"""An RVE of several periods of another one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import scipy  # its parts are imported when they are first used
from mpi4py import MPI

from .arrays import UNTAGGED, Arrays, distribute
from .compat import coordinate_map, geometry_dofmap
from .errors import MeshError
from .period import CLOSE, known_period
from .tagged import TaggedMesh


def tiled(domain: TaggedMesh, counts: Sequence[int]) -> TaggedMesh:
    """The RVE of several periods, each meshed as the given one, so that its equilibrium has the given period too.

    That makes the loss of this period, as in the buckling of a cellular solid, a bifurcation.

    Args:
        domain: an RVE on one rank; its facet tags are not taken over.
        counts: periods along each lattice vector.

    Returns:
        The RVE, around the same centre.

    Raises:
        MeshError: a mesh on several ranks, counts that are not positive integers, or nodes at equal coordinates, such
            as those of a crack.
    """
    mesh = domain.mesh
    dim = mesh.geometry.dim
    if mesh.comm.size > 1:
        raise MeshError(f"the RVE's mesh is spread over {mesh.comm.size} ranks; build it with MPI.COMM_SELF")
    if len(counts) != dim or not all(isinstance(n, int | np.integer) and n > 0 for n in counts):
        raise MeshError(f"counts is {counts}; an RVE in {dim}D needs {dim} positive integers")
    period = known_period(domain)
    x, cells = mesh.geometry.x[:, :dim], np.asarray(geometry_dofmap(mesh), dtype=np.int64)
    close = CLOSE * np.linalg.norm(period, axis=1).max()
    if len(scipy.spatial.cKDTree(x).query_pairs(close)):
        raise MeshError("the RVE has nodes at equal coordinates, such as those of a crack, and is not tiled")
    shifts = [(np.array(k) - (np.array(counts) - 1) / 2) @ period for k in product(*map(range, counts))]
    points = np.concatenate([x + shift for shift in shifts])
    pairs = scipy.spatial.cKDTree(points).query_pairs(close, output_type="ndarray")
    graph = scipy.sparse.coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(len(points),) * 2)
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    _, first = np.unique(label, return_index=True)
    tags = np.full(len(cells), UNTAGGED, dtype=np.int32)
    tags[domain.cell_tags.indices] = domain.cell_tags.values
    arrays = Arrays(
        points[first],
        label[np.concatenate([cells + k * len(x) for k in range(len(shifts))])].astype(np.int64),
        mesh.basix_cell().name,
        coordinate_map(mesh).degree,
        np.tile(tags, len(shifts)),
        names=domain.names,
        period=np.array(counts)[:, None] * period,
    )
    return distribute(MPI.COMM_SELF, lambda: arrays)
