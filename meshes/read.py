# SPDX-License-Identifier: MIT
"""Meshes from files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import dolfinx.io
import dolfinx.mesh
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from .abaqus import read_abaqus
from .arrays import distribute
from .blocks import assemble
from .checks import bad_cells, check_cells, raise_bad_cells
from .errors import MeshError, on_root
from .formats import read_gmsh, read_meshio
from .periodic import with_period
from .tagged import TaggedMesh


def read(
    path: str | Path,
    comm: MPI.Intracomm,
    *,
    dim: int | None = None,
    sets: Sequence[str] | None = None,
    boundaries: Sequence[str] = (),
    data: str | None = None,
    period: npt.ArrayLike | None = None,
) -> TaggedMesh:
    """A mesh from a file: .inp (Abaqus), .msh (gmsh), .xdmf (DOLFINx, meshio), .vtu, .med, all that meshio reads.

    Named sets of cells (or physical groups, or MED groups) become tags and keep their names; sets of cells one
    dimension lower become facet tags. Sets with a number in the file keep it, others count from 1 in the order of the
    file. Of nested sets the inner one counts. A file without sets takes its tags from the integers that it has on the
    cells; one without these either is one phase with tag 1. Cells that are in no set have no tag (``check_materials``
    finds them). 8-node quadrilaterals and 20-node hexahedra are completed to 9 and 27 nodes; their shape is the same.

    Args:
        path: the file; its extension tells the format.
        comm: communicator of the mesh; the file is read on rank 0, or by all ranks if DOLFINx wrote it.
        dim: dimension of the cells that are wanted, 2 or 3; the highest in the file if None.
        sets: names of the sets (of cells and of facets) that become tags, where some overlap in part or only some are
            wanted; all if None.
        boundaries: names of node sets; exterior facets with all vertices in one of these get its tag.
        data: name of the integers on the cells that become tags (in an XDMF file of DOLFINx, of the cell tags).
        period: lattice vectors of a periodic cell, (dim, dim), one a row, or the lengths (dim,) of a box; if None, an RVE
            takes the bounding box where that is certain. Cells that are no boxes, and cells with voids on their faces,
            need it.

    Returns:
        The mesh, its cells checked.

    Raises:
        MeshError: a file that is missing, damaged or empty, cells of several types, sets that overlap in part, or
            inverted or flat cells.
    """
    path = Path(path)
    grids = on_root(comm, lambda: _dolfinx_grids(path))
    grids = comm.bcast(grids, root=0)
    if grids:
        tagged = _read_dolfinx(path, comm, grids, data)
        check_cells(tagged)
        return with_period(tagged, period)

    def build():
        try:
            if path.suffix == ".msh":
                file = read_gmsh(path)
            elif path.suffix == ".inp":
                file = read_abaqus(path)
            else:
                file = read_meshio(path, data)
            arrays = assemble(file, dim=dim, sets=sets, boundaries=boundaries)
            bad = bad_cells(arrays.points, arrays.cells, arrays.cell, arrays.degree)
            raise_bad_cells(bad, len(arrays.cells), "inverted or flat")
        except Exception as error:
            raise MeshError(f"{path}: {error}") from error
        return arrays

    return with_period(distribute(comm, build), period)


def _dolfinx_grids(path: Path) -> list[tuple[str, str]]:
    """Names and cell types of the grids in an XDMF file of DOLFINx, the mesh first; empty for any other file."""
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    if path.suffix not in (".xdmf", ".xmf"):
        return []
    try:
        grids = ElementTree.parse(path).getroot().findall("Domain/Grid")
    except ElementTree.ParseError as error:
        raise MeshError(f"{path}: not an XDMF file, or only a part of one: {error}") from None
    # DOLFINx stores under /Mesh/NAME and /MeshTags/NAME in the HDF5 file, meshio under /data0, /data1, ...
    items = [(item.text or "").strip() for grid in grids for item in grid.iter("DataItem")]
    if not any(":/Mesh/" in text for text in items):
        return []
    store = path.parent / next(text for text in items if ":/Mesh/" in text).split(":/")[0]
    if not store.is_file():
        raise MeshError(f"{path}: its data file {store.name} is missing")
    topologies = [grid.find("Topology") for grid in grids]
    return [(g.get("Name", ""), t.get("TopologyType", "").lower()) for g, t in zip(grids, topologies) if t is not None]


def _read_dolfinx(path, comm, grids, data) -> TaggedMesh:
    """Mesh and mesh tags that DOLFINx wrote, read in parallel."""
    (mesh_name, mesh_type), *others = grids
    try:
        with dolfinx.io.XDMFFile(comm, str(path), "r") as file:
            mesh = file.read_mesh(name=mesh_name)
            tdim = mesh.topology.dim
            for d in range(tdim):
                mesh.topology.create_connectivity(d, tdim)
            found = {}
            for d in (tdim, tdim - 1):
                names = [n for n, kind in others if (kind == mesh_type) == (d == tdim)]
                names = [n for n in names if n == data] if data is not None and d == tdim else names
                if len(names) > 1:
                    raise MeshError(f"several mesh tags of dimension {d}, {names}; choose the cell tags with data=")
                found[d] = file.read_meshtags(mesh, names[0]) if names else None
    except RuntimeError as error:  # of the reader in C++, the same on all ranks
        raise MeshError(f"{path}: {error}") from None
    if mesh.geometry.dim != tdim:
        raise MeshError(f"{path}: cells of dimension {tdim} in {mesh.geometry.dim} dimensions; no shells are read")
    empty = np.empty(0, dtype=np.int32)
    if found[tdim] is None:
        cells = np.arange(
            mesh.topology.index_map(tdim).size_local + mesh.topology.index_map(tdim).num_ghosts, dtype=np.int32
        )
        found[tdim] = dolfinx.mesh.meshtags(mesh, tdim, cells, np.ones_like(cells))
    if found[tdim - 1] is None:
        found[tdim - 1] = dolfinx.mesh.meshtags(mesh, tdim - 1, empty, empty)
    return TaggedMesh(mesh, found[tdim], found[tdim - 1], {}, {})
