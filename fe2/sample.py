# SPDX-License-Identifier: MIT
"""Strains to learn from, and the snapshots of an RVE at them, solved on all ranks and safe against being killed."""

import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.stats import qmc

from fe2 import mandel
from fe2 import snapshots as files
from fe2.progress import Bar
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
        ValueError: strains of wrong shape, none, not finite; chunk < 1. SnapshotError: the file or a part is damaged,
        or belongs to another RVE, other strains or another `chunk`; ranks that differ in their arguments; or an error
        on another rank (an error of its own is raised as it is). No rank is left waiting.
    """
    path = Path(path)
    with _Together(comm):
        strains = np.array(strains, dtype=np.float64, order="C", ndmin=2)
        if strains.ndim != 2 or strains.shape[1] != rve.strain_size or not len(strains):
            raise ValueError(f"strains have shape {strains.shape}, need (n, {rve.strain_size}) with n > 0")
        if not np.isfinite(strains).all():
            bad = np.flatnonzero(~np.isfinite(strains).all(axis=1))[0]
            raise ValueError(f"strain {bad} is {strains[bad]}: all components must be finite")
        if not isinstance(chunk, (int, np.integer)) or chunk < 1:
            raise ValueError(f"chunk = {chunk!r}: need a whole number of at least 1")
        mark = files.fingerprint(rve)
        mine = {"path": str(path), "chunk": int(chunk), "append": append, "RVE": mark, "strains": files.digest(strains)}
    first = comm.bcast(mine)
    with _Together(comm):
        different = [name for name, value in mine.items() if value != first[name]]
        if different:
            raise SnapshotError(f"differs from rank 0 in: {', '.join(different)}")

    parts = path.with_name(path.name + ".parts")
    pieces = [strains[i : i + chunk] for i in range(0, len(strains), chunk)]
    pending = None
    with _Together(comm):
        if comm.rank == 0:
            pending = _pending(path, parts, mark, strains, pieces, append)
    pending = comm.bcast(pending)
    if pending is None:
        return
    with _Together(comm):  # whatever happens on one rank, the others finish their chunks and learn of it here
        if comm.rank == 0:
            with _Progress(len(pieces), parts, progress) as shown:
                for k in pending[:: comm.size]:
                    files.write_part(parts, k, rve, pieces[k], mark)
                    shown.update()
        else:
            for k in pending[comm.rank :: comm.size]:
                files.write_part(parts, k, rve, pieces[k], mark)
    failed = 0
    with _Together(comm):
        if comm.rank == 0:
            failed = files.merge(path, parts, len(pieces), mark)
            shutil.rmtree(parts)
    if failed:
        warnings.warn(f"{path}: {failed} of {len(strains)} RVE problems did not converge; see `failed`", stacklevel=2)


def _pending(path: Path, parts: Path, mark: str, strains: Array, pieces: list[Array], append: bool) -> list[int] | None:
    """Numbers of the chunks still to be solved; None if the file has all strains. Makes the folder of the parts."""
    done = files.check_parts(parts, pieces, mark)
    if path.exists():
        with files.opened(path, mark) as file:
            known = file["strain"][:]
        if np.array_equal(known[-len(strains) :] if append else known, strains):
            shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed between its last two lines
            return None
        if not append:
            raise SnapshotError(f"{path} holds {len(known)} snapshots of other strains; append or take another path")
    parts.mkdir(parents=True, exist_ok=True)
    return [k for k in range(len(pieces)) if k not in done]


class _Together:
    """Raises on all ranks at the end of the block if one of them raised in it."""

    def __init__(self, comm: MPI.Intracomm):
        self.comm = comm

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and not issubclass(kind, Exception):
            return  # an interrupt: leave at once
        errors = self.comm.allgather(None if error is None else f"{kind.__name__}: {error}")
        if error is None and any(errors):
            raise SnapshotError("; ".join(f"rank {r}: {e}" for r, e in enumerate(errors) if e))


class _Progress:
    """How many parts there are, from all ranks, shown as a bar on a terminal or in lines."""

    def __init__(self, total: int, parts: Path, wanted: bool):
        self.total, self.parts, self.wanted = total, parts, wanted
        self.bar = Bar("snapshots", total, wanted)
        self.begin, self.next = time.monotonic(), 0.1

    def __enter__(self):
        self.bar.__enter__()
        return self

    def update(self):
        if not self.wanted:
            return
        done = files.count_parts(self.parts)
        self.bar.update(done)
        if not self.bar.shown and done >= self.next * self.total:
            seconds = time.monotonic() - self.begin
            print(f"snapshots: {done} of {self.total} chunks, {seconds:.0f} s", flush=True)
            self.next = np.floor(10 * done / self.total + 1e-9) / 10 + 0.1

    def __exit__(self, *error):
        self.bar.__exit__(*error)
