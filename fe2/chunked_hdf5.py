# SPDX-License-Identifier: MIT
"""Files of rows that many ranks compute: written in parts, merged when all are there, safe against being killed.

The parts of a file lie in a folder beside it until all are there, each under a temporary name until it is complete.
What a part must hold is named by its key; a part with another key belongs to another run.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2.progress import Bar
from fe2.ranks import raise_on_all_ranks

Opened = Callable[[Path], AbstractContextManager[h5py.File]]


def folder(path: Path) -> Path:
    """Where the parts of the file `path` are."""
    return path.with_name(path.name + ".parts")


def count(parts: Path) -> int:
    """Number of finished parts in the folder."""
    return sum(1 for _ in parts.glob("chunk-*.h5"))


def finished(parts: Path, keys: Sequence[str], opened: Opened, what: str, error: type[Exception]) -> set[int]:
    """Numbers of the finished parts; leftovers of unfinished ones are removed.

    Args:
        keys: of all parts. opened: opens a part and refuses what is damaged or belongs to something else, by `error`.
        what: the parts are made from, for messages.

    Raises:
        error: a part that `opened` refuses, or one with another key.
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
    """The file of part `k`, which has its name only when the block is done."""
    with written(_part(parts, k)) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["key"] = key
        yield file


def fill(comm: MPI.Intracomm, parts: Path, pending: Sequence[int], write: Callable[[int], None], progress: Callable):
    """Call `write` for the numbers `pending` of parts, spread over the ranks; an error is raised on all (collective).

    progress: makes the context in which rank 0 works, whose `update` is called after each of its parts, see `Progress`.
    """
    with raise_on_all_ranks(comm):  # whatever happens on one rank, the others finish their parts and learn of it here
        with progress() if comm.rank == 0 else nullcontext() as shown:
            for k in pending[comm.rank :: comm.size]:
                write(k)
                if shown is not None:
                    shown.update()


def merge(path: Path, parts: Path, total: int, opened: Opened, add: Callable[[h5py.File, h5py.File], None]) -> None:
    """Write the file from its parts, behind the rows that it has, and remove them; `add(file, part)` copies rows."""
    with written(path) as temporary:
        if path.exists():
            shutil.copyfile(path, temporary)
        with h5py.File(temporary, "a") as file:
            for k in range(total):
                with opened(_part(parts, k)) as part:
                    add(file, part)
    shutil.rmtree(parts)


def extend(file: h5py.File, name: str, rows: npt.NDArray) -> None:
    """Add rows to a data set, which is made if it is not there."""
    if name not in file:
        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]), chunks=True, fletcher32=True)
        return
    start = len(file[name])
    file[name].resize(start + len(rows), axis=0)
    file[name][start:] = rows


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes `path` once the block is done and the data are on the disk."""
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
    """How many parts there are, from all ranks, shown as a bar on a terminal or in lines."""

    def __init__(self, title: str, total: int, parts: Path, wanted: bool):
        self.title, self.total, self.parts, self.wanted = title, total, parts, wanted
        self.bar = Bar(title, total, wanted)
        self.begin, self.next = time.monotonic(), 0.1

    def __enter__(self):
        self.bar.__enter__()
        return self

    def update(self):
        if not self.wanted:
            return
        done = count(self.parts)
        self.bar.update(done)
        if not self.bar.shown and done >= self.next * self.total:
            seconds = time.monotonic() - self.begin
            print(f"{self.title}: {done} of {self.total} chunks, {seconds:.0f} s", flush=True)
            self.next = np.floor(10 * done / self.total + 1e-9) / 10 + 0.1

    def __exit__(self, *error):
        self.bar.__exit__(*error)
