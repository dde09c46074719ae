# SPDX-License-Identifier: MIT
"""Checkpoints: a folder with one file per rank, complete or absent.

Everything is stored cell by cell, with the number of each cell when the mesh was passed to DOLFINx, so that a run on
another number of ranks finds its cells in any file. (adios4dolfinx stores functions, but no state rows of laws.)
"""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2.ranks import raise_on_all_ranks
from meshes.compat import geometry_dofmap

# Name → local cells that this rank owns, and a row of values for each of them.
Tables = dict[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]]


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged or belongs to another run."""


def save(folder: Path, comm: MPI.Comm, mesh, tables: Tables, record: dict[str, Any]) -> None:
    """Write `tables` and `record` (JSON) as the checkpoint `folder` (collective).

    The new checkpoint is written beside the old one and replaces it by renaming.
    """
    part, old = folder.with_suffix(".part"), folder.with_suffix(".old")
    with raise_on_all_ranks(comm):
        if comm.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
    with raise_on_all_ranks(comm), h5py.File(part / f"rank{comm.rank}.h5", "w") as file:
        for name, (cells, rows) in (tables | _mesh(mesh)).items():
            file[f"{name}/cells"] = mesh.topology.original_cell_index[cells]
            file[f"{name}/rows"] = rows
        file.attrs["cells"] = mesh.topology.index_map(mesh.topology.dim).size_global
        file.attrs["record"] = json.dumps(record)
    with raise_on_all_ranks(comm):
        if comm.rank == 0:
            # If a kill between the renamings has left only the old one, it stays until there is another.
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path, comm: MPI.Comm, mesh, tables: Tables
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, Any]] | None:
    """Rows for the cells of `tables`, and the record of the checkpoint `folder`; None if there is none (collective).

    Raises:
        CheckpointError: written for another mesh or with rows of other lengths than `tables`, or not readable.
    """
    # A run killed between the two renamings has left the last complete checkpoint under the old name.
    place = next((p for p in (folder, folder.with_suffix(".old")) if p.exists()), None)
    place = comm.bcast(place)
    if place is None:
        return None
    with raise_on_all_ranks(comm):
        # This rank's own file first: on the same number of ranks it has all that is needed.
        files = sorted(place.glob("rank*.h5"), key=lambda path: path.name != f"rank{comm.rank}.h5")
        try:
            with h5py.File(place / "rank0.h5", "r") as file:
                count, record = int(file.attrs["cells"]), json.loads(file.attrs["record"])
            found = {
                name: _find(files, name, mesh.topology.original_cell_index[cells], rows.shape)
                for name, (cells, rows) in (_mesh(mesh) | tables).items()
            }
        except (OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{place} cannot be read: {error}") from error
        _, nodes = _mesh(mesh)["mesh"]
        if count != mesh.topology.index_map(mesh.topology.dim).size_global or not np.array_equal(found["mesh"], nodes):
            raise CheckpointError(f"{place} belongs to another mesh")
    return found, record


def _mesh(mesh) -> Tables:
    """Coordinates of the nodes of each cell, which identify the mesh."""
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    nodes = geometry_dofmap(mesh)[cells]
    return {"mesh": (cells, mesh.geometry.x[nodes].reshape(len(cells), 3 * nodes.shape[1]))}


def _find(
    files: list[Path], name: str, wanted: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Rows of a table for cells by their original numbers, from as many files as necessary."""
    rows, missing = np.empty(shape), np.ones(len(wanted), dtype=bool)
    for path in files:
        if not missing.any():
            break
        with h5py.File(path, "r") as file:
            if name not in file:
                raise CheckpointError(f"{path} has no {name}: it was written with other laws")
            table = file[name]
            numbers = table["cells"][()]
            order = np.argsort(numbers)
            at = np.searchsorted(numbers, wanted, sorter=order)
            here = np.flatnonzero(missing & (at < len(numbers)))
            here = here[numbers[order[at[here]]] == wanted[here]]
            if table["rows"].shape[1] != shape[1]:
                raise CheckpointError(
                    f"{path}: {name} has {table['rows'].shape[1]} numbers per cell, the laws and the degree of this "
                    f"run need {shape[1]}"
                )
            rows[here] = table["rows"][()][order[at[here]]]
            missing[here] = False
    if missing.any():
        raise CheckpointError(
            f"{files[0].parent} has no {name} for {missing.sum()} of {len(missing)} cells: it belongs to another mesh "
            "or to other regions, or files are missing"
        )
    return rows
