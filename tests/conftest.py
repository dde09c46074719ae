# SPDX-License-Identifier: MIT
"""Running the tests on several ranks: `mpirun -n 2 python3 -m pytest -m mpi tests`.

Only tests marked `mpi` run there, rank 0 alone prints the report, and a failure on any rank ends all ranks: the others
would wait for it in their next collective call for ever.
"""

import functools
import gc
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

try:
    from mpi4py import MPI
except ImportError:  # `spon` is tested on machines without FEniCSx, too
    MPI = None

try:
    import torch
except ImportError:
    torch = None

if torch is None or not torch.cuda.is_available():
    # Where there is no GPU, Triton's kernels are interpreted; it must know before it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

RANK, SIZE = (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size) if MPI else (0, 1)


def pytest_configure(config):
    if RANK > 0:  # called before the terminal reporter takes hold of stdout
        sys.stdout = open(os.devnull, "w")


def pytest_collection_modifyitems(config, items):
    if SIZE > 1:
        serial = [item for item in items if not item.get_closest_marker("mpi")]
        items[:] = [item for item in items if item.get_closest_marker("mpi")]
        config.hook.pytest_deselected(items=serial)


def pytest_runtest_logreport(report):
    if SIZE > 1 and report.failed:
        failure = f"{report.nodeid} failed ({report.when})\n{report.longreprtext}"
        print(f"\nrank {RANK} of {SIZE}: {failure}", file=sys.stderr, flush=True)
        MPI.COMM_WORLD.Abort(1)


@pytest.fixture(autouse=True, scope="module")
def without_garbage():
    """Problems that ended in an error are in circles of references, and MPI has some thousand communicators for all."""
    yield
    gc.collect()


@pytest.fixture
def comm():
    """All ranks of this run."""
    if MPI is None:
        pytest.skip("needs mpi4py")
    return MPI.COMM_WORLD


@pytest.fixture
def mpi_tmp_path(comm):
    """One empty folder seen by all ranks, removed when the last of them is done."""
    path = Path(comm.bcast(tempfile.mkdtemp(prefix="fe2x-") if comm.rank == 0 else None))
    yield path
    comm.barrier()
    if comm.rank == 0:
        shutil.rmtree(path)


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Run a script in a folder of its own and return what it prints; here, as a new process imports for seconds."""

    def run(path, *options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.setattr(sys, "argv", [str(path), *options])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="session")
def trained_folder():
    """Of the models: one for all that `tests/run` starts, which gives it, or else for these ranks."""
    world, shared = MPI.COMM_WORLD, os.environ.get("FE2X_TRAINED")
    folder = shared or world.bcast(tempfile.mkdtemp(prefix="fe2x-") if world.rank == 0 else None)
    yield Path(folder)
    world.barrier()
    if world.rank == 0 and not shared:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def trained(trained_folder):
    """The model at small strain, see `trained.once`."""
    import trained

    return trained.once(trained_folder, MPI.COMM_WORLD)


@pytest.fixture(scope="session")
def trained_cases(trained_folder):
    """Function: name of a case → its model, see `trained.CASES`; collective."""
    import trained

    return functools.cache(lambda name: trained.once(trained_folder, MPI.COMM_WORLD, name))
