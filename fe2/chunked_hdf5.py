# SPDX-License-Identifier: MIT
"""HDF5 files of rows that many ranks compute: written in parts, merged when all are complete, safe against a kill.

The parts of a file are in a folder beside it until the merge, each under a temporary name until it is complete. A key
identifies the content of a part; a part with another key belongs to another run.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import h5py
import numpy.typing as npt
from mpi4py import MPI

from fe2.progress import Bar
from fe2.ranks import raise_on_all_ranks

Opened = Callable[[Path], AbstractContextManager[h5py.File]]


def folder(path: Path) -> Path:
    """Folder of the parts of the file `path`."""
    return path.with_name(path.name + ".parts")


def count(parts: Path) -> int:
    """Number of finished parts in the folder."""
    return sum(1 for _ in parts.glob("chunk-*.h5"))


def finished(parts: Path, keys: Sequence[str], opened: Opened, what: str, error: type[Exception]) -> set[int]:
    """Numbers of the finished parts; leftovers of unfinished ones are removed.

    Args:
        parts: the folder.
        keys: of all parts.
        opened: opens a part, and raises `error` for one that is damaged or of another kind.
        what: name of the input of the parts, for messages.
        error: type of the errors.

    Raises:
        error: a part that `opened` rejects, or one with another key.
    """
    names = {_part(parts, k).name: k for k in range(len(keys))}
    done = set()
    for path in sorted(parts.glob("*")):
        if path.name.startswith("chunk-") and path.name.endswith(".tmp"):
            path.unlink()
            continue
        same = False
        if path.name in names:
            try:
                with opened(path) as file:
                    same = file.attrs.get("key") == keys[names[path.name]]
            except error as e:
                raise error(f"{e} (the parts are in {parts})") from e
        if not same:
            raise error(f"{path} belongs to a run with other {what} or another chunk size; remove {parts}")
        done.add(names[path.name])
    return done


@contextmanager
def writing(parts: Path, k: int, key: str) -> Iterator[h5py.File]:
    """The file of part `k`, which gets its name at the end of the block."""
    with written(_part(parts, k)) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["key"] = key
        yield file


def fill(comm: MPI.Intracomm, parts: Path, pending: Sequence[int], write: Callable[[int], None], progress: Callable):
    """Write the pending parts, spread over the ranks; an error is raised on all (collective).

    Args:
        comm: the ranks.
        parts: the folder.
        pending: numbers of the parts.
        write: writes the part of a number.
        progress: makes the `Progress` of rank 0.
    """
    with raise_on_all_ranks(comm):  # after an error on one rank, the others finish their parts first
        with progress() if comm.rank == 0 else nullcontext() as shown:
            for k in pending[comm.rank :: comm.size]:
                write(k)
                if shown is not None:
                    shown.update()


def merge(path: Path, parts: Path, total: int, opened: Opened, add: Callable[[h5py.File, h5py.File], None]) -> None:
    """Append the parts to the file and remove them; `add(file, part)` copies the rows of one."""
    with written(path) as temporary:
        if path.exists():
            shutil.copyfile(path, temporary)
        with h5py.File(temporary, "a") as file:
            for k in range(total):
                with opened(_part(parts, k)) as part:
                    add(file, part)
    shutil.rmtree(parts)


def extend(file: h5py.File, name: str, rows: npt.NDArray) -> None:
    """Append rows to a data set, which is created if it does not exist."""
    if name not in file:
        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]), chunks=True, fletcher32=True)
        return
    start = len(file[name])
    file[name].resize(start + len(rows), axis=0)
    file[name][start:] = rows


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` after the block, once the data are on the disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _part(parts: Path, k: int) -> Path:
    return parts / f"chunk-{k:06d}.h5"


class Progress:
    """Progress of all ranks by the number of parts: a bar on a terminal, else a line for each tenth.

    Args:
        title: of the bar and the lines.
        total: number of parts.
        parts: the folder.
        wanted: False for neither.
    """

    def __init__(self, title: str, total: int, parts: Path, wanted: bool):
        self.title, self.total, self.parts, self.wanted = title, total, parts, wanted
        self.bar = Bar(title, total, wanted)
        self.begin, self.tenths = time.monotonic(), 0

    def __enter__(self):
        self.bar.__enter__()
        return self

    def update(self):
        if not self.wanted:
            return
        done = count(self.parts)
        self.bar.update(done)
        if not self.bar.shown and 10 * done // self.total > self.tenths:
            seconds = time.monotonic() - self.begin
            print(f"{self.title}: {done} of {self.total} chunks, {seconds:.0f} s", flush=True)
            self.tenths = 10 * done // self.total

    def __exit__(self, *error):
        self.bar.__exit__(*error)
