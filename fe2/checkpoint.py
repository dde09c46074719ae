# SPDX-License-Identifier: MIT
"""Checkpoints: a folder with one file per rank, complete or not there at all."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2.ranks import together


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged or belongs to another run."""


def fingerprint(mesh) -> str:
    """Digest of this rank's part of a mesh: its nodes, and the original numbers of its cells."""
    digest = hashlib.sha256(np.ascontiguousarray(mesh.geometry.x).tobytes())
    digest.update(np.ascontiguousarray(mesh.topology.original_cell_index).tobytes())
    return digest.hexdigest()


def save(folder: Path, comm: MPI.Comm, mesh, arrays: dict[str, npt.NDArray], record: dict[str, Any]) -> None:
    """Write `arrays` (of this rank) and `record` (JSON) as the checkpoint `folder` (collective).

    The new checkpoint is written beside the old one and takes its place by renaming.
    """
    part, old = folder.with_suffix(".part"), folder.with_suffix(".old")
    with together(comm):
        if comm.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
    with together(comm), h5py.File(part / f"rank{comm.rank}.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs["mesh"] = fingerprint(mesh)
        file.attrs["ranks"] = comm.size
        file.attrs["record"] = json.dumps(record)
    with together(comm):
        if comm.rank == 0:
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, comm: MPI.Comm, mesh) -> tuple[dict[str, npt.NDArray], dict[str, Any]] | None:
    """Arrays of this rank and the record of the checkpoint `folder`, or None where there is none (collective).

    Raises:
        CheckpointError: written with another number of ranks or for another mesh, or not readable.
    """
    # A run killed between the two renamings has left the last complete checkpoint under the old name.
    place = next((p for p in (folder, folder.with_suffix(".old")) if p.exists()), None)
    place = comm.bcast(place)
    if place is None:
        return None
    with together(comm):
        path = place / f"rank{comm.rank}.h5"
        try:
            with h5py.File(path, "r") as file:
                arrays = {name: dataset[()] for name, dataset in file.items()}
                attributes = dict(file.attrs)
                record = json.loads(attributes["record"])
        except (OSError, KeyError, ValueError) as error:
            ranks = len(list(place.glob("rank*.h5")))
            raise CheckpointError(
                f"{path} cannot be read ({error}); the checkpoint holds {ranks} ranks, this run has {comm.size}"
            ) from error
        if attributes["ranks"] != comm.size:
            raise CheckpointError(f"{place} was written by {attributes['ranks']} ranks, this run has {comm.size}")
        if attributes["mesh"] != fingerprint(mesh):
            raise CheckpointError(f"{place} belongs to another mesh, or one spread differently over the ranks")
    return arrays, record
