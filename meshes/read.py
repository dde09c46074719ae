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
from .arrays import distribute, facet_vertices
from .blocks import assemble
from .checks import bad_cells, check_cells, raise_bad_cells
from .errors import MeshError, on_root
from .formats import read_gmsh, read_meshio
from .geometry import local_cells
from .period import with_period
from .repeats import POLICIES, coincident_pairs, refuse_coincident, shortest_edge
from .tagged import TaggedMesh


def read(
    path: str | Path,
    comm: MPI.Intracomm,
    *,
    dim: int | None = None,
    sets: Sequence[str] | None = None,
    boundaries: Sequence[str] = (),
    data: str | None = None,
    coincident: str = "error",
    period: npt.ArrayLike | None = None,
) -> TaggedMesh:
    """A mesh from a file: .inp (Abaqus, CalculiX), .msh (gmsh), .xdmf (DOLFINx, meshio), .vtu, .med, all of meshio's.

    Named sets of cells (or physical groups, or MED groups) become tags and keep their names; sets of cells one
    dimension lower become facet tags. Sets keep their number in the file; sets without a number count from 1 in the
    order of the file. Of nested sets the inner one determines the tag. In an Abaqus file with sections, the sets with a
    section become tags. A file without sets takes its tags from the integers on its cells, or from whole numbers if it
    has no integers; 0 is a valid label there. A file without any of these has one phase with tag 1. Cells outside
    all sets have no tag (``check_materials`` finds them). 8-node quadrilaterals and 20-node hexahedra are completed to
    9 and 27 nodes of the same shape.

    Args:
        path: the file; its extension determines the format.
        comm: communicator of the mesh; the file is read on rank 0, or by all ranks if DOLFINx wrote it.
        dim: dimension of the cells, 2 or 3; the highest in the file if None.
        sets: names of the sets (of cells and of facets) that become tags; all if None, one phase with tag 1 if empty.
        boundaries: names of node sets; exterior facets with all vertices in one of them get its tag.
        data: name of the whole numbers on the cells that become tags (in an XDMF file of DOLFINx, of the cell tags).
        coincident: treatment of coincident nodes, at which the cells are not connected: "error", "merge" makes one node
            of them, "keep" leaves them apart (a crack). Nodes coincide if they are closer than 1e-6 of the mesh's size
            and 1 % of its shortest edge.
        period: lattice vectors of an RVE, (dim, dim), one a row, or the lengths (dim,) of a box; if None, the bounding
            box if that is certain. RVEs that are no boxes, or that have voids on their faces, need it.

    Returns:
        The mesh, its cells checked.

    Raises:
        MeshError: a file that is missing, damaged or empty, cells of several types, repeated cells or numbers,
            coincident nodes, sets that overlap partly, labels that are no whole numbers of 31 bits, inverted or flat
            cells, or unsupported keywords of an Abaqus file that change the geometry.
    """
    path = Path(path)
    if coincident not in POLICIES:
        raise MeshError(f"coincident = {coincident!r}: need one of {', '.join(map(repr, POLICIES))}")
    grids, functions = comm.bcast(on_root(comm, lambda: _dolfinx_grids(path)), root=0)
    if grids:
        tagged = _read_dolfinx(path, comm, grids, data, [] if sets is not None else functions)
        _check_places(path, tagged, coincident)
        check_cells(tagged)
        return with_period(tagged, period)

    def build():
        try:
            if path.suffix.lower() == ".msh":
                file = read_gmsh(path)
            elif path.suffix.lower() == ".inp":
                file = read_abaqus(path, sets)
            else:
                file = read_meshio(path, data, sets)
            arrays = assemble(file, dim=dim, sets=sets, boundaries=boundaries, coincident=coincident)
            bad = bad_cells(arrays.points, arrays.cells, arrays.cell, arrays.degree)
            raise_bad_cells(bad, len(arrays.cells), "inverted or flat")
        except Exception as error:
            raise MeshError(f"{path}: {error}") from error
        return arrays

    return with_period(distribute(comm, build), period)


def _dolfinx_grids(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Names and cell types of the grids in an XDMF file of DOLFINx, the mesh first, and its scalar functions on cells.

    Both are empty for any other file.
    """
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    if path.suffix.lower() not in (".xdmf", ".xmf"):
        return [], []
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise MeshError(f"{path}: not an XDMF file, or only a part of one: {error}") from None
    grids = root.findall("Domain/Grid")
    # DOLFINx stores under /Mesh/NAME and /MeshTags/NAME in the HDF5 file, meshio under /data0, /data1, ...
    items = [(item.text or "").strip() for grid in grids for item in grid.iter("DataItem")]
    if not any(":/Mesh/" in text for text in items):
        return [], []
    store = path.parent / next(text for text in items if ":/Mesh/" in text).split(":/")[0]
    if not store.is_file():
        raise MeshError(f"{path}: its data file {store.name} is missing")
    topologies = [grid.find("Topology") for grid in grids]
    found = [(g.get("Name", ""), t.get("TopologyType", "").lower()) for g, t in zip(grids, topologies) if t is not None]
    series = root.findall("Domain/Grid/Grid/Attribute[@Center='Cell'][@AttributeType='Scalar']")
    return found, sorted({attribute.get("Name", "") for attribute in series})


def _read_dolfinx(path, comm, grids, data, functions) -> TaggedMesh:
    """Mesh and mesh tags that DOLFINx wrote, read in parallel; without cell tags, `functions` on cells are rejected."""
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
    if found[tdim] is None and functions:
        raise MeshError(
            f"{path}: the file has the functions {functions} on its cells, but no cell tags; write the phases with "
            "XDMFFile.write_meshtags, or read the mesh as one phase with sets=()"
        )
    if found[tdim] is None:
        cells = np.arange(
            mesh.topology.index_map(tdim).size_local + mesh.topology.index_map(tdim).num_ghosts, dtype=np.int32
        )
        found[tdim] = dolfinx.mesh.meshtags(mesh, tdim, cells, np.ones_like(cells))
    if found[tdim - 1] is None:
        found[tdim - 1] = dolfinx.mesh.meshtags(mesh, tdim - 1, empty, empty)
    return TaggedMesh(mesh, found[tdim], found[tdim - 1], {}, {})


def _check_places(path: Path, tagged: TaggedMesh, coincident: str) -> None:
    """Check for coincident nodes, see `read`, in a mesh that is distributed over ranks."""
    if coincident == "keep":
        return
    mesh = tagged.mesh
    points, nodes, cell, _ = local_cells(mesh)
    vertices = nodes[:, : facet_vertices(cell).max() + 1]
    shortest = mesh.comm.allreduce(shortest_edge(points, vertices), op=MPI.MIN)
    parts = mesh.comm.gather(points[: mesh.geometry.index_map().size_local], root=0)

    def check():
        everywhere = np.concatenate(parts)
        pairs, close = coincident_pairs(everywhere, shortest)
        if len(pairs) and coincident == "merge":
            raise MeshError(
                f"{path}: nodes of a mesh that DOLFINx wrote are not merged; merge them where the mesh is made"
            )
        refuse_coincident(everywhere, pairs, close)

    on_root(mesh.comm, check)
