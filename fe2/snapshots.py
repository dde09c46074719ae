# SPDX-License-Identifier: MIT
"""The file of snapshots: written in parts, merged, and read back only when it is whole and what it claims to be."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from fe2 import parts
from fe2.fingerprints import Fingerprint, differences, digest, fingerprint
from fe2.rve import RVE

__all__ = ["SnapshotError", "Snapshots", "digest", "fingerprint", "merge", "opened", "read", "write_part"]

Array = npt.NDArray[np.float64]

FORMAT = "fe2 snapshots"
VERSION = 1
UNITS = "strain: 1; stress, tangent, energy: unit of the moduli, MPa; fluctuation, weights: unit of the mesh"
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
    """A snapshot file or part that is damaged or belongs to something else, or ranks that differ in what they ask."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshots:
    """n solved RVE problems.

    strain: (n, d) Mandel. stress: (n, d) [MPa]. tangent: (n, d, d) dS/dE [MPa]. energy: (n,) mean [MPa], NaN for
    materials without one. fluctuation: (n, dofs) of the displacement space, in the order of `x.array` [length].
    local_stress: (n, cells, points, d) at the quadrature points [MPa]. weights: (cells, points) [length^dim].
    failed: (n,) True where no equilibrium was found; such rows are NaN but for the strain. fingerprint: of the RVE, see
    `fe2.fingerprints`.
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
    """The snapshots of the file `path`; raises FileNotFoundError, or SnapshotError if it is damaged or no such file."""
    with opened(Path(path)) as file:
        return Snapshots(**{name: file[name][:] for name in _AXES}, fingerprint=_mark(file))


@contextmanager
def opened(path: Path, mark: Fingerprint | None = None) -> Iterator[h5py.File]:
    """A snapshot file open for reading, of the RVE with the fingerprint `mark` if given.

    Raises:
        FileNotFoundError. SnapshotError: not readable, also inside the block; not of this kind; or of another RVE.
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
                    f"{path} belongs to another RVE, of which differ: {different}; take another path or remove it to "
                    "begin anew"
                )
            yield file
    except (OSError, KeyError) as error:
        raise SnapshotError(f"{path} is damaged or no HDF5 file: {error}") from error


def write_part(folder: Path, k: int, rve: RVE, strains: Array, mark: Fingerprint) -> None:
    """Solve for the strains (m, d) of chunk `k` and write its part."""
    solved = rve.homogenise(strains, on_failure="report")
    m, body = len(strains), rve.body
    failed = np.zeros(m, dtype=bool)
    failed[[f.point for f in solved.failures]] = True
    fluctuation = np.full((m, body.u.x.array.size), np.nan)
    local_stress = np.full((m, *body.weights.shape, rve.strain_size), np.nan)
    for i in np.flatnonzero(~failed):
        fluctuation[i] = rve.displacement(solved.state[i], fluctuation=True).x.array
        local_stress[i] = rve.set_state(solved.state[i]).stress()
    arrays = {
        "strain": strains,
        "stress": solved.stress,
        "tangent": solved.tangent,
        "energy": solved.energy,
        "fluctuation": fluctuation,
        "local_stress": local_stress,
        "failed": failed,
        "weights": body.weights,
    }
    with parts.writing(folder, k, digest(strains)) as file:
        _describe(file, mark)
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=True, fletcher32=True)


def merge(path: Path, folder: Path, count: int, mark: Fingerprint) -> int:
    """Write the file from its `count` parts, behind the snapshots that it has; return the failed rows."""
    failed = 0

    def add(file: h5py.File, part: h5py.File) -> None:
        nonlocal failed
        _describe(file, mark)
        for name in _ROWS:
            parts.extend(file, name, part[name][:])
        if "weights" not in file:
            file.create_dataset("weights", data=part["weights"][:], chunks=True, fletcher32=True)
        failed += int(part["failed"][:].sum())

    parts.merge(path, folder, count, lambda part: opened(part, mark), add)
    return failed


def _describe(file: h5py.File, mark: Fingerprint) -> None:
    text = json.dumps(mark, sort_keys=True)
    for name, value in {"format": FORMAT, "version": VERSION, "fingerprint": text, "units": UNITS}.items():
        file.attrs[name] = value


def _mark(file: h5py.File) -> Fingerprint:
    """Of the RVE that a file belongs to; the first files have one hash."""
    text = str(file.attrs["fingerprint"])
    if not text.startswith("{"):
        return {"whole": text}
    try:
        return json.loads(text)
    except ValueError as error:
        raise SnapshotError(f"{file.filename} is damaged: its fingerprint is no record: {error}") from error
