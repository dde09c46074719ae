# SPDX-License-Identifier: MIT
"""Snapshots of an RVE: solved on all ranks and stored in one HDF5 file; a killed run is continued."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2 import arguments
from fe2.chunked_hdf5 import ChunkedFile
from fe2.fingerprints import Fingerprint, differences, digest, fingerprint
from fe2.ranks import raise_on_all_ranks
from fe2.rve import RVE

__all__ = ["SnapshotError", "Snapshots", "compute", "read"]

Array = npt.NDArray[np.float64]

FORMAT = "fe2 snapshots"
VERSION = 1
_UNITS = "strain: 1; stress, tangent, energy: unit of the moduli, MPa; fluctuation, weights: unit of the mesh"
_SCALAR_UNITS = (
    "strain: potential by length of the mesh; tangent: unit of the conductivities; stress: strain times tangent; "
    "energy: strain times stress; fluctuation: potential; weights: unit of the mesh"
)
# name: number of axes; all but the weights have one row for each snapshot
_AXES = {
    "strain": 2,
    "stress": 2,
    "tangent": 3,
    "energy": 1,
    "fluctuation": 2,
    "local_stress": 4,
    "failed": 1,
    "weights": 2,
}
_ROWS = [name for name in _AXES if name != "weights"]


class SnapshotError(RuntimeError):
    """A snapshot file or part that is damaged or of another RVE, or arguments that differ between ranks."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshots:
    """n solved RVE problems.

    Attributes:
        strain: (n, d) in the components of the RVE's measure.
        stress: (n, d) [MPa].
        tangent: (n, d, d) dS/dE [MPa].
        energy: (n,) mean [MPa], NaN for materials without one.
        fluctuation: (n, dofs) of the displacement space, in the order of `x.array` [length].
        local_stress: (n, cells, points, d) at the quadrature points [MPa].
        failed: (n,) True without convergence; such rows are NaN but for the strain.
        weights: (cells, points) of the quadrature [length^dim].
        fingerprint: of the RVE, see `fe2.fingerprints`.
    """

    strain: Array
    stress: Array
    tangent: Array
    energy: Array
    fluctuation: Array
    local_stress: Array
    failed: npt.NDArray[np.bool_]
    weights: Array
    fingerprint: Fingerprint


def read(path: str | os.PathLike) -> Snapshots:
    """The snapshots of the file `path`.

    Raises:
        FileNotFoundError: the file does not exist.
        SnapshotError: it is damaged or no file of snapshots.
    """
    with _opened(Path(path)) as file:
        return Snapshots(**{name: file[name][:] for name in _AXES}, fingerprint=_mark(file))


def compute(
    rve: RVE,
    strains: npt.ArrayLike,
    path: str | os.PathLike,
    comm: MPI.Intracomm,
    *,
    chunk: int = 8,
    progress: bool = True,
    append: bool = False,
) -> None:
    """Solve the RVE problem at each strain and write the snapshots into one HDF5 file; collective on `comm`.

    Finished chunks of strains are in the folder `<path>.parts` until all are complete: after a crash, call again with
    the same arguments (on any number of ranks), and only the remaining chunks are solved; a complete file is left
    alone. The content of the file does not depend on the number of ranks. Strains without convergence are marked in
    `failed`, their rows are NaN, and rank 0 warns.

    Args:
        rve: the same on all ranks (its mesh on MPI.COMM_SELF).
        strains: (n, d), the same on all ranks; none, (0, d), give a file without snapshots.
        path: of the file, on a file system that all ranks share; see `read`.
        comm: the ranks that share the work.
        chunk: strains that are solved between two writes.
        progress: rank 0 shows a bar on a terminal, a line every ten per cent elsewhere.
        append: add the strains to those of the file, unless it ends with them already; a missing file is created.

    Raises:
        ValueError: strains of wrong shape, not finite or not real; chunk < 1; a material with state, or that
            depends on time.
        SnapshotError: the file or a part is damaged, or belongs to another RVE, other strains or another `chunk`; or
            arguments differ between ranks. An error on one rank is raised on all.
    """
    path = Path(path)
    with raise_on_all_ranks(comm):
        strains = np.array(arguments.strains(np.atleast_2d(strains), rve), order="C")
        if not isinstance(chunk, (int, np.integer)) or chunk < 1:
            raise ValueError(f"chunk = {chunk!r}: need a whole number of at least 1")
        for tag, material in rve.body.materials.items():
            if material.state_size:
                raise ValueError(
                    f"the material of tag {tag}, {type(material).__name__}, has state: its response depends on the "
                    "strain path, and a snapshot has the strain alone; solve paths by `rve.homogenise(strain, state)`"
                )
            if material.rate_dependent:
                raise ValueError(
                    f"the material of tag {tag}, {type(material).__name__}, depends on time, and a snapshot has the "
                    "strain alone; solve steps by `rve.homogenise(strain, state, step=step)`"
                )
        mark = fingerprint(rve)
        mine = {"path": str(path), "chunk": int(chunk), "append": append, "RVE": mark, "strains": digest(strains)}
    first = comm.bcast(mine)
    with raise_on_all_ranks(comm):
        different = [name for name, value in mine.items() if value != first[name]]
        if different:
            raise SnapshotError(f"differs from rank 0 in: {', '.join(different)}")

    pieces = [strains[i : i + chunk] for i in range(0, len(strains), chunk)] or [strains]
    file = ChunkedFile(
        path,
        "snapshots",
        rows=_ROWS,
        keys=[digest(piece) for piece in pieces],
        opened=partial(_opened, mark=mark),
        describe=partial(_describe, mark=mark, rve=rve),
        error=SnapshotError,
    )
    complete = False
    with raise_on_all_ranks(comm):
        if comm.rank == 0:
            complete = _is_complete(file, strains, append)
    if comm.bcast(complete):
        return
    with file.completed(comm, progress) as chunks:
        for k in chunks:
            file.write(k, _solve(rve, pieces[k]))
    failed = 0
    with raise_on_all_ranks(comm):
        if comm.rank == 0:
            with file.opened(path) as merged:
                failed = int(_last(merged["failed"][:], len(strains)).sum())
    if failed:
        warnings.warn(f"{path}: {failed} of {len(strains)} RVE problems did not converge; see `failed`", stacklevel=2)


def _is_complete(file: ChunkedFile, strains: Array, append: bool) -> bool:
    """Whether the file has all strains. Parts left by a run that was killed between its last two lines are removed."""
    if not file.path.exists():
        return False
    file.finished()  # raises if the parts belong to another run, before any are removed
    with file.opened(file.path) as opened:
        known = opened["strain"][:]
    if np.array_equal(_last(known, len(strains)) if append else known, strains):
        shutil.rmtree(file.folder, ignore_errors=True)
        return True
    if not append:
        raise SnapshotError(f"{file.path} holds {len(known)} snapshots of other strains; append, or use another path")
    return False


def _last(rows: npt.NDArray, n: int) -> npt.NDArray:
    """The last n rows, or all if there are fewer."""
    return rows[max(len(rows) - n, 0) :]


def _solve(rve: RVE, strains: Array) -> dict[str, npt.NDArray]:
    """The rows of the snapshots at strains (m, d)."""
    solved = rve.homogenise(strains, fields=True, on_failure="report")
    failed = np.zeros(len(strains), dtype=bool)
    failed[[f.point for f in solved.failures]] = True
    return {
        "strain": strains,
        "stress": solved.stress,
        "tangent": solved.tangent,
        "energy": solved.energy,
        "fluctuation": solved.fluctuation,
        "local_stress": solved.local_stress,
        "failed": failed,
    }


@contextmanager
def _opened(path: Path, mark: Fingerprint | None = None) -> Iterator[h5py.File]:
    """A snapshot file open for reading, of the RVE with the fingerprint `mark` if given.

    Raises:
        FileNotFoundError: the file does not exist.
        SnapshotError: not readable, also inside the block; not of this kind; or of another RVE.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no snapshot file {path}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise SnapshotError(f"{path} is no file of snapshots")
            if file.attrs.get("version") != VERSION:
                raise SnapshotError(f"{path} has version {file.attrs.get('version')}, need {VERSION}")
            missing = [k for k in _AXES if not isinstance(file.get(k), h5py.Dataset) or file[k].ndim != _AXES[k]]
            missing += [k for k in ("fingerprint",) if k not in file.attrs]
            if missing:
                raise SnapshotError(f"{path} is damaged: {', '.join(missing)} missing or of wrong shape")
            lengths = {len(file[k]) for k in _ROWS}
            if len(lengths) > 1:
                raise SnapshotError(f"{path} is damaged: its arrays have {sorted(lengths)} rows")
            if mark is not None and (different := differences(mark, _mark(file))):
                raise SnapshotError(
                    f"{path} belongs to another RVE; differences: {different}. Use another path or remove it to "
                    "start again"
                )
            yield file
    except (OSError, KeyError) as error:
        raise SnapshotError(f"{path} is damaged or no HDF5 file: {error}") from error


def _describe(file: h5py.File, mark: Fingerprint, rve: RVE) -> None:
    text, measure = json.dumps(mark, sort_keys=True), rve.measure
    units = _SCALAR_UNITS if measure.scalar else _UNITS
    about = {"format": FORMAT, "version": VERSION, "fingerprint": text, "units": units, "measure": measure.name}
    for name, value in about.items():
        file.attrs[name] = value
    if "weights" not in file:
        file.create_dataset("weights", data=rve.body.weights, chunks=True, fletcher32=True)


def _mark(file: h5py.File) -> Fingerprint:
    """Fingerprint of the RVE of a file; files of the first format have one hash."""
    text = str(file.attrs["fingerprint"])
    if not text.startswith("{"):
        return {"whole": text}
    try:
        return json.loads(text)
    except ValueError as error:
        raise SnapshotError(f"{file.filename} is damaged: its fingerprint is no record: {error}") from error
