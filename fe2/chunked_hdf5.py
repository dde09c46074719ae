# SPDX-License-Identifier: MIT
"""HDF5 files of rows that many ranks compute: written in parts, merged when all are complete, safe against a kill.

The parts of a file are in a folder beside it until the merge, each under a temporary name until it is complete. A key
identifies the content of a part; a part with another key belongs to another run.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy.typing as npt
from mpi4py import MPI

from fe2.progress import Bar
from fe2.ranks import raise_on_all_ranks


def count(folder: Path) -> int:
    """Number of finished parts in the folder."""
    return sum(1 for _ in folder.glob("chunk-*.h5"))


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


@dataclass(frozen=True, slots=True, eq=False)
class ChunkedFile:
    """A file to which rows are added in chunks.

        with file.completed(comm) as chunks:
            for k in chunks:
                file.write(k, {"strain": strains[k], "stress": ...})

    Args:
        path: of the file.
        content: what the rows are, such as "snapshots", for messages.
        rows: names of the data sets that have rows.
        keys: of the chunks; each identifies what its rows are computed from.
        opened: opens the file or a part for reading, and raises `error` for one that is damaged or of another kind.
        describe: writes into a file what has no rows, such as its format; also into one that has it already.
        error: type of the errors.
    """

    path: Path
    content: str
    rows: Sequence[str]
    keys: Sequence[str]
    opened: Callable[[Path], AbstractContextManager[h5py.File]]
    describe: Callable[[h5py.File], None]
    error: type[Exception]

    @property
    def folder(self) -> Path:
        """Folder of the parts."""
        return self.path.with_name(self.path.name + ".parts")

    @contextmanager
    def completed(self, comm: MPI.Intracomm, progress: bool = True) -> Iterator[Iterator[int]]:
        """Numbers of the chunks that this rank is to `write` in the block, which must not make collective calls.

        Then all chunks are added to the file. An error on one rank is raised on all, after they have written their
        chunks (collective).

        Args:
            comm: the ranks.
            progress: rank 0 shows a bar on a terminal, a line every ten per cent elsewhere.

        Raises:
            error: a part that `opened` rejects, or one with another key.
        """
        pending: list[int] = []
        with raise_on_all_ranks(comm):
            if comm.rank == 0:
                finished = self.finished()
                pending = [k for k in range(len(self.keys)) if k not in finished]
                self.folder.mkdir(parents=True, exist_ok=True)
        mine = comm.bcast(pending)[comm.rank :: comm.size]
        with raise_on_all_ranks(comm):
            shown = _Progress(self.content, len(self.keys), self.folder, progress) if comm.rank == 0 else nullcontext()
            with shown as bar:
                yield _counted(mine, bar)
        with raise_on_all_ranks(comm):
            if comm.rank == 0:
                self._merge()

    def write(self, k: int, rows: Mapping[str, npt.NDArray]) -> None:
        """Write the part of chunk `k`: name → array, all of the same length."""
        with written(self._part(k)) as temporary, h5py.File(temporary, "w") as part:
            part.attrs["key"] = self.keys[k]
            self.describe(part)
            for name, values in rows.items():
                _extend(part, name, values)

    def _merge(self) -> None:
        """Add the rows of all parts to the file, and remove the parts."""
        with written(self.path) as temporary:
            if self.path.exists():
                shutil.copyfile(self.path, temporary)
            with h5py.File(temporary, "a") as file:
                for k in range(len(self.keys)):
                    with self.opened(self._part(k)) as part:
                        self.describe(file)
                        for name in self.rows:
                            _extend(file, name, part[name][:])
        shutil.rmtree(self.folder)

    def finished(self) -> set[int]:
        """Numbers of the chunks whose part is complete; what is left of other parts is removed.

        Raises:
            error: a part that `opened` rejects, or one with another key.
        """
        numbers = {self._part(k).name: k for k in range(len(self.keys))}
        done = set()
        for path in sorted(self.folder.glob("*")):
            if path.name.startswith("chunk-") and path.name.endswith(".tmp"):
                path.unlink()
                continue
            same = False
            if path.name in numbers:
                try:
                    with self.opened(path) as part:
                        same = part.attrs.get("key") == self.keys[numbers[path.name]]
                except self.error as e:
                    raise self.error(f"{e} (the parts are in {self.folder})") from e
            if not same:
                raise self.error(
                    f"{path} belongs to a run with other {self.content} or another chunk size; remove {self.folder}"
                )
            done.add(numbers[path.name])
        return done

    def _part(self, k: int) -> Path:
        return self.folder / f"chunk-{k:06d}.h5"


def _extend(file: h5py.File, name: str, rows: npt.NDArray) -> None:
    """Append rows to a data set, which is created if it does not exist."""
    if name not in file:
        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]), chunks=True, fletcher32=True)
        return
    start = len(file[name])
    file[name].resize(start + len(rows), axis=0)
    file[name][start:] = rows


def _counted(chunks: Sequence[int], bar: "_Progress | None") -> Iterator[int]:
    """The numbers of the chunks; the bar moves after each."""
    for k in chunks:
        yield k
        if bar is not None:
            bar.update()


class _Progress:
    """Progress of all ranks by the number of parts: a bar on a terminal, else a line for each tenth.

    Args:
        title: of the bar and the lines.
        total: number of parts.
        folder: of the parts.
        wanted: False for neither.
    """

    def __init__(self, title: str, total: int, folder: Path, wanted: bool):
        self.title, self.total, self.folder, self.wanted = title, total, folder, wanted
        self.bar = Bar(title, total, wanted)
        self.begin, self.tenths = time.monotonic(), 0

    def __enter__(self) -> "_Progress":
        self.bar.__enter__()
        return self

    def update(self) -> None:
        if not self.wanted:
            return
        done = count(self.folder)
        self.bar.update(done)
        if not self.bar.shown and 10 * done // self.total > self.tenths:
            seconds = time.monotonic() - self.begin
            print(f"{self.title}: {done} of {self.total} chunks, {seconds:.0f} s", flush=True)
            self.tenths = 10 * done // self.total

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)
