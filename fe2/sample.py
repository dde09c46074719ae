# SPDX-License-Identifier: MIT
"""Strains to learn from, and the snapshots of an RVE at them, solved on all ranks and safe against being killed."""

import os
import shutil
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.stats import qmc

from fe2 import arguments, mandel, parts
from fe2 import snapshots as files
from fe2.fingerprints import Fingerprint
from fe2.ranks import raise_on_all_ranks
from fe2.rve import RVE
from fe2.snapshots import SnapshotError, Snapshots, read

__all__ = ["SnapshotError", "Snapshots", "box", "latin_hypercube", "radial", "read", "snapshots", "sobol"]

Array = npt.NDArray[np.float64]


def box(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int) -> Array:
    """Independent, uniformly distributed Mandel strains (n, d).

    Args:
        n: number of strains.
        dim: space dimension.
        amplitude: half the side of the box around zero, one number or one for each Mandel component (d,).
        seed: of the random numbers; equal seeds give equal strains.

    Raises:
        ValueError: n < 1, dim other than 1, 2, 3, or an amplitude that is not positive, finite and of that shape.
    """
    half = _amplitudes(dim, amplitude, n=n)
    return half * np.random.default_rng(seed).uniform(-1.0, 1.0, (n, half.size))


def latin_hypercube(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int) -> Array:
    """Latin hypercube of Mandel strains (n, d): each component has one value in each nth of its range; see `box`."""
    half = _amplitudes(dim, amplitude, n=n)
    return half * (2.0 * qmc.LatinHypercube(half.size, seed=np.random.default_rng(seed)).random(n) - 1.0)


def sobol(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int) -> Array:
    """The first n points (n, d) of a scrambled Sobol sequence of Mandel strains, any n; see `box`."""
    half = _amplitudes(dim, amplitude, n=n)
    sequence = qmc.Sobol(half.size, seed=np.random.default_rng(seed))
    return half * (2.0 * sequence.random_base2((n - 1).bit_length())[:n] - 1.0)


def radial(directions: int, steps: int, dim: int, amplitude: float, *, seed: int) -> Array:
    """Mandel strains (directions * steps, d) along straight paths from zero, path by path, growing along each.

    Args:
        directions: number of paths, whose directions are uniformly distributed over the unit sphere of Mandel vectors.
        steps: strains on each path, at equal distances.
        dim: space dimension.
        amplitude: Mandel norm of the last strain of each path.
        seed: of the random numbers.

    Raises:
        ValueError: see `box`.
    """
    if np.ndim(amplitude) != 0:
        raise ValueError(f"amplitude = {amplitude!r}: need one number, the norm of the largest strains")
    d = _amplitudes(dim, amplitude, directions=directions, steps=steps).size
    unit = np.random.default_rng(seed).standard_normal((directions, d))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return (float(amplitude) * np.arange(1, steps + 1)[None, :, None] / steps * unit[:, None, :]).reshape(-1, d)


def _amplitudes(dim: int, amplitude: npt.ArrayLike, **counts: int) -> Array:
    """Amplitudes of all Mandel components (d,), the arguments checked."""
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} = {value!r}: need a whole number of at least 1")
    if dim not in (1, 2, 3):
        raise ValueError(f"dim = {dim!r}: need 1, 2 or 3")
    half = np.asarray(amplitude, dtype=np.float64)
    d = mandel.size(dim)
    if half.shape not in ((), (d,)) or not (np.isfinite(half).all() and (half > 0).all()):
        raise ValueError(f"amplitude = {amplitude!r}: need one positive number, or {d} of them")
    return np.broadcast_to(half, (d,))


def snapshots(
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

    Finished chunks of strains lie in the folder `<path>.parts` until all are there: after a crash, call again with the
    same arguments (any number of ranks) and only the chunks that are missing are solved. If all is in the file already,
    nothing is done. The content of the file does not depend on the number of ranks. Strains without solution are
    marked in `failed`, their rows are NaN, and rank 0 warns.

    Args:
        rve: the cell, one on each rank (its mesh on MPI.COMM_SELF), the same on all.
        strains: Mandel strains (n, d), the same on all ranks.
        path: of the file, in a folder that all ranks see; read it with `read`.
        comm: the ranks that share the work.
        chunk: strains that are solved between two writes.
        progress: rank 0 shows how far it is: a bar on a terminal, a line every ten per cent elsewhere.
        append: add the strains to those that the file has; strains that it ends with are not added again. Without a
            file, begin one.

    Raises:
        ValueError: strains of wrong shape, none, not finite or not real; chunk < 1; a material with state.
        SnapshotError: the file or a part is damaged, or belongs to another RVE, other strains or another `chunk`; ranks
        that differ in their arguments. An error on one rank is raised on all; no rank is left waiting.
    """
    path = Path(path)
    with raise_on_all_ranks(comm):
        strains = np.array(arguments.strains(np.atleast_2d(strains), rve.strain_size), order="C")
        if not len(strains):
            raise ValueError("there are no strains: need one at least")
        if not isinstance(chunk, (int, np.integer)) or chunk < 1:
            raise ValueError(f"chunk = {chunk!r}: need a whole number of at least 1")
        for tag, material in rve.body.materials.items():
            if material.state_size:
                raise ValueError(
                    f"the material of tag {tag}, {type(material).__name__}, has state: its answer depends on the way "
                    "to a strain, and a snapshot holds the strain alone; solve paths by `rve.homogenise(strain, state)`"
                )
        mark = files.fingerprint(rve)
        mine = {"path": str(path), "chunk": int(chunk), "append": append, "RVE": mark, "strains": files.digest(strains)}
    first = comm.bcast(mine)
    with raise_on_all_ranks(comm):
        different = [name for name, value in mine.items() if value != first[name]]
        if different:
            raise SnapshotError(f"differs from rank 0 in: {', '.join(different)}")

    folder = parts.folder(path)
    pieces = [strains[i : i + chunk] for i in range(0, len(strains), chunk)]
    pending = None
    with raise_on_all_ranks(comm):
        if comm.rank == 0:
            pending = _pending(path, folder, mark, strains, pieces, append)
    pending = comm.bcast(pending)
    if pending is None:
        return
    parts.fill(
        comm,
        folder,
        pending,
        lambda k: files.write_part(folder, k, rve, pieces[k], mark),
        partial(parts.Progress, "snapshots", len(pieces), folder, progress),
    )
    failed = 0
    with raise_on_all_ranks(comm):
        if comm.rank == 0:
            failed = files.merge(path, folder, len(pieces), mark)
    if failed:
        warnings.warn(f"{path}: {failed} of {len(strains)} RVE problems did not converge; see `failed`", stacklevel=2)


def _pending(
    path: Path, folder: Path, mark: Fingerprint, strains: Array, pieces: list[Array], append: bool
) -> list[int] | None:
    """Numbers of the chunks still to be solved; None if the file has all strains. Makes the folder of the parts."""
    keys = [files.digest(piece) for piece in pieces]
    done = parts.finished(folder, keys, lambda part: files.opened(part, mark), "strains", SnapshotError)
    if path.exists():
        with files.opened(path, mark) as file:
            known = file["strain"][:]
        if np.array_equal(known[-len(strains) :] if append else known, strains):
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed between its last two lines
            return None
        if not append:
            raise SnapshotError(f"{path} holds {len(known)} snapshots of other strains; append or take another path")
    folder.mkdir(parents=True, exist_ok=True)
    return [k for k in range(len(pieces)) if k not in done]
