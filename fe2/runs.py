# SPDX-License-Identifier: MIT
"""The folder of a run: configuration, versions, log, history, results and checkpoint."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from mpi4py import MPI

from fe2.checkpoint import CheckpointError
from fe2.chunked_hdf5 import written
from fe2.macro import MacroProblem, Step
from fe2.ranks import raise_on_all_ranks

_MODULES = ("dolfinx", "basix", "ffcx", "ufl", "petsc4py", "mpi4py", "h5py", "numpy", "scipy", "torch")


class RunFolder:
    """A run that may be stopped, killed and started again until it is complete; a context manager (collective).

        with fe2.RunFolder("results/cook", comm, vars(options)) as run:
            run.solve(problem, steps=20, fields=True)
            run.write("result.json", {"force": problem.history[-1].force})

    The folder holds the checkpoint of the last step and the series of fields (see `MacroProblem.solve`), and

        run.json       the configuration, and of each start the time, ranks, versions and how it ended
        log.txt        every line, with the time
        history.json   every step, with its seconds in law, assembly and solver, after each start that was not killed

    Every file but the log is written under another name and renamed, so that it is complete or absent.

    Args:
        path: of the folder, on a file system that all ranks share; created if necessary.
        comm: the ranks of the run.
        config: defines the run; values that JSON can represent (paths become text), the same on all ranks and in all
            starts of the run.

    Attributes:
        path: as given.
        comm: as given.

    Raises:
        TypeError: a configuration that JSON cannot represent.
        ValueError: one that differs between ranks.
        CheckpointError: the folder belongs to a run with another configuration, or cannot be read. On all ranks, when
            the context is entered.
    """

    def __init__(self, path: str | os.PathLike, comm: MPI.Intracomm, config: Mapping[str, Any]):
        self.path, self.comm = Path(path), comm
        self._given = config
        self._record: dict[str, Any] = {}
        self._file: TextIO | None = None

    def __enter__(self) -> "RunFolder":
        with raise_on_all_ranks(self.comm):
            config = {name: _plain(name, value) for name, value in self._given.items()}
        first = self.comm.bcast(config)
        with raise_on_all_ranks(self.comm):
            if config != first:
                raise ValueError(f"rank {self.comm.rank} differs from rank 0: {_differences(first, config)}")
        # Nothing is written unless all ranks agree.
        with raise_on_all_ranks(self.comm):
            if self.comm.rank == 0:
                self._record = self._known(config)
                self._record["starts"].append(_start(self.comm))
                self.path.mkdir(parents=True, exist_ok=True)
                self._put("run.json", self._record)
                self._file = open(self.path / "log.txt", "a", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not collective: a rank that fails alone must not wait for the others.
        if self._file is not None:
            end = "done" if error is None else f"{type(error).__name__}: {error}"
            # The versions again: modules may have been imported since.
            self._record["starts"][-1] |= {"versions": versions(), "end": end}
            self._put("run.json", self._record)
            self._note(end)
            self._file.close()
            self._file = None

    def log(self, line: str) -> None:
        """Print a line on rank 0, and write it with the time to the log of the run."""
        if self.comm.rank == 0:
            print(line, flush=True)
            self._note(line)

    def solve(self, problem: MacroProblem, **options: Any) -> list[Step]:
        """Solve from the checkpoint, if there is one, and write the history, also after an error (collective).

        Args:
            problem: the problem.
            options: of `MacroProblem.solve`, except folder, restart and log; see there for errors.
        """
        try:
            history = problem.solve(folder=self.path, restart=True, log=self.log, **options)
        except BaseException:
            self._put("history.json", [asdict(step) for step in problem.history])
            raise
        self.write("history.json", [asdict(step) for step in history])
        return history

    def write(self, name: str, value: Any) -> None:
        """Write or replace a JSON file of the folder (collective)."""
        with raise_on_all_ranks(self.comm):
            self._put(name, value)

    def _put(self, name: str, value: Any) -> None:
        if self.comm.rank == 0:
            with written(self.path / name) as temporary:
                temporary.write_text(json.dumps(value, indent=1, default=os.fspath) + "\n", encoding="utf-8")

    def _note(self, line: str) -> None:
        if self._file is not None:
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def _known(self, config: dict[str, Any]) -> dict[str, Any]:
        """The record of the starts before this one."""
        path = self.path / "run.json"
        if not path.exists():
            if (self.path / "checkpoint").exists():
                raise CheckpointError(
                    f"{self.path} has a checkpoint, but no run.json with the configuration of its run"
                )
            return {"configuration": config, "starts": []}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            before = record["configuration"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if before != config:
            raise CheckpointError(
                f"{self.path} belongs to another run: {_differences(before, config)}; use another folder, or remove it"
            )
        return record


def versions() -> dict[str, str]:
    """Version of Python and of the numerical packages that this process has imported, by name."""
    loaded = {name: getattr(sys.modules[name], "__version__", None) for name in _MODULES if name in sys.modules}
    return {"python": platform.python_version()} | {name: str(v) for name, v in loaded.items() if v is not None}


def _plain(name: str, value: Any) -> Any:
    """A value after a round trip through JSON."""
    try:
        return json.loads(json.dumps(value, default=os.fspath))
    except (TypeError, ValueError) as error:
        raise TypeError(f"config[{name!r}] = {value!r}: need numbers, text, paths, or lists of them") from error


def _start(comm: MPI.Intracomm) -> dict[str, Any]:
    host, when = MPI.Get_processor_name(), time.strftime("%Y-%m-%d %H:%M:%S")
    return {"time": when, "ranks": comm.size, "host": host, "versions": versions()}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    def shown(config: dict[str, Any], name: str) -> str:
        return repr(config[name]) if name in config else "not given"

    names = [n for n in {**before, **now} if shown(before, n) != shown(now, n)]
    return ", ".join(f"{n} = {shown(before, n)} there and {shown(now, n)} here" for n in names)
