# SPDX-License-Identifier: MIT
"""Runs in their folders: what is kept, what is refused, and ten kills at random moments that change nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from launch import outside_mpi

import fe2
import meshes
from fe2 import checkpoint

STEEL = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)


def structure(comm):
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), fe2.UFLLaw(STEEL))
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.08, None))
    problem.record("right")
    return problem


@pytest.mark.mpi
def test_a_run_says_in_its_folder_what_it_was(comm, mpi_tmp_path, capfd):
    problem, path = structure(comm), mpi_tmp_path / "runs" / "one"
    with fe2.RunFolder(path, comm, {"steps": 2, "mesh": mpi_tmp_path}) as run:
        run.solve(problem, steps=2, until=0.5)
    comm.barrier()
    again = structure(comm)
    with fe2.RunFolder(path, comm, {"mesh": mpi_tmp_path, "steps": 2}) as run:
        run.solve(again, steps=2)
        run.write("result.json", {"force": again.history[-1].force})
    comm.barrier()

    record = json.loads((path / "run.json").read_text())
    assert record["configuration"] == {"steps": 2, "mesh": str(mpi_tmp_path)}
    assert [(start["ranks"], start["end"]) for start in record["starts"]] == [(comm.size, "done")] * 2
    assert record["starts"][0]["versions"].items() >= {"numpy": np.__version__, "h5py": h5py.__version__}.items()
    history = json.loads((path / "history.json").read_text())
    assert [step["time"] for step in history] == [0.5, 1.0]
    assert history[0]["residuals"] == problem.history[0].residuals
    assert all(set(step["seconds"]) == {"law", "assembly", "solver"} for step in history)
    assert json.loads((path / "result.json").read_text()) == {"force": again.history[-1].force}
    lines = [line.split("  ", 1)[1] for line in (path / "log.txt").read_text().splitlines()]
    assert [line[:11] for line in lines] == ["time 0.5000", "done", "continuing ", "time 1.0000", "done"]
    if comm.rank == 0:  # and the same on the terminal
        assert capfd.readouterr().out.splitlines() == [line for line in lines if line != "done"]


@pytest.mark.mpi
def test_a_folder_of_another_run_is_refused(comm, mpi_tmp_path):
    with fe2.RunFolder(mpi_tmp_path, comm, {"n": 4, "law": "exact", "old": 1}):
        comm.barrier()
    different = r"belongs to another run: n = 4 there and 8 here, old = 1 there and not given here, new = not given"
    with (
        pytest.raises(fe2.CheckpointError, match=different),
        fe2.RunFolder(mpi_tmp_path, comm, {"n": 8, "law": "exact", "new": None}),
    ):
        pass
    with (
        pytest.raises(TypeError, match=r"config\['law'\] = <.*: need numbers"),
        fe2.RunFolder(mpi_tmp_path / "other", comm, {"law": structure}),
    ):
        pass
    if comm.size > 1:
        with (
            pytest.raises(ValueError, match="differs from rank 0: n = 0 there and 1 here"),
            fe2.RunFolder(mpi_tmp_path / "other", comm, {"n": min(comm.rank, 1)}),
        ):
            pass
    assert not (mpi_tmp_path / "other").exists()
    if comm.rank == 0:
        (mpi_tmp_path / "run.json").write_text("{")
    comm.barrier()
    with pytest.raises(fe2.CheckpointError, match=r"run\.json cannot be read"), fe2.RunFolder(mpi_tmp_path, comm, {}):
        pass
    if comm.rank == 0:
        (mpi_tmp_path / "run.json").unlink()
        (mpi_tmp_path / "checkpoint").mkdir()
    comm.barrier()
    with pytest.raises(fe2.CheckpointError, match=r"no run\.json"), fe2.RunFolder(mpi_tmp_path, comm, {}):
        pass


@pytest.mark.mpi
def test_how_a_run_failed_is_kept(comm, mpi_tmp_path):
    def load(t):
        if t > 0.5:
            raise ArithmeticError("the load is lost")
        return t

    with pytest.raises(ArithmeticError), fe2.RunFolder(mpi_tmp_path, comm, {}) as run:
        run.solve(structure(comm), steps=2, load=load)
    comm.barrier()
    (start,) = json.loads((mpi_tmp_path / "run.json").read_text())["starts"]
    assert start["end"] == "ArithmeticError: the load is lost"
    assert (mpi_tmp_path / "log.txt").read_text().endswith("  ArithmeticError: the load is lost\n")
    assert [step["time"] for step in json.loads((mpi_tmp_path / "history.json").read_text())] == [0.5]


class Killed(BaseException):
    """What nobody catches."""


def test_a_checkpoint_survives_kills_between_any_two_file_operations(tmp_path, monkeypatch):
    """Before the i-th operation of a save, then before the j-th of the next: the last whole one is always there."""
    mesh = meshes.bar(MPI.COMM_SELF, n=(2, 1)).mesh
    tables = {"rows": (np.arange(2, dtype=np.int32), np.zeros((2, 1)))}
    left = [0]  # operations until the kill

    def counted(operation):
        def run(*args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return operation(*args, **options)

        return run

    for name in ("mkdir", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))

    def save(number, operations):
        """Whether a save with this number as its record got to its end."""
        left[0] = operations
        try:
            checkpoint.save(folder, MPI.COMM_SELF, mesh, tables, {"number": number})
        except Killed:
            return False
        finally:
            left[0] = 1000
        return True

    def loaded():
        _, record = checkpoint.load(folder, MPI.COMM_SELF, mesh, tables)
        return record["number"]

    whole = []
    for first, second in product(range(9), range(9)):
        folder = tmp_path / f"{first}-{second}" / "checkpoint"
        assert save(0, 1000)
        whole.append(save(1, first))
        one = loaded()
        assert one == 1 if whole[-1] else one in (0, 1)
        whole.append(save(2, second))
        two = loaded()
        assert two == 2 if whole[-1] else two in (one, 2)
        assert save(3, 1000) and loaded() == 3
        assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
        shutil.rmtree(folder.parent)
    assert 0 < sum(whole) < len(whole)  # the operations are counted, and there are no more of them than tried


SCRIPT = """
import os, sys, time
from pathlib import Path
import numpy as np
from mpi4py import MPI
import fe2, meshes

folder, steps, pause, comm = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), MPI.COMM_WORLD
(folder.parent / f"{folder.name}-pid{comm.rank}").write_text(f"{os.getpid()}\\n")

class Law(fe2.UFLLaw):
    def evaluate(self, *given):
        time.sleep(pause)
        return super().evaluate(*given)

steel = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)
problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), Law(steel))
problem.prescribe("left", (0.0, 0.0))
problem.prescribe("right", (0.08, None))
problem.record("right")
with fe2.RunFolder(folder, comm, {"steps": steps}) as run:
    run.solve(problem, steps=steps, load=lambda t: min(t, 1.5 - t), fields=True)
    fields = [problem.u.x.array, problem.sigma.stress.x.array, problem.sigma.regions[0].state.ravel()]
    np.save(folder / f"rank{comm.rank}.npy", np.concatenate(fields))
"""


def start(tmp_path, name, ranks, steps, pause):
    """A run of SCRIPT, and the processes of its ranks, once they are there."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    pids = [tmp_path / f"{name}-pid{rank}" for rank in range(ranks)]
    for path in pids:
        path.unlink(missing_ok=True)
    command = [sys.executable, str(script), str(tmp_path / name), str(steps), str(pause)]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    environment = outside_mpi()
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while run.poll() is None and not all(path.exists() and path.read_text().endswith("\n") for path in pids):
        time.sleep(0.01)
    return run, [int(path.read_text()) for path in pids]


def finish(run):
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    return output


def kill(run, processes, number, everyone):
    """A signal to one rank or, as a node that goes down would, to all and to mpirun."""
    for pid in [*processes, run.pid] if everyone else processes[-1:]:
        os.kill(pid, number)
    run.communicate(timeout=60)


def content(folder):
    """Everything that a run has left but times of the clock."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.suffix == ".npy":
            found[name] = np.load(path).tobytes()
        elif path.suffix == ".h5" and "checkpoint" not in name:
            with h5py.File(path) as file:
                tables = [file["points"], file["topology"], *file["nodes"].values(), *file["cells"].values()]
                found[name] = [float(file.attrs["time"])] + [(table.name, table[()].tobytes()) for table in tables]
        elif path.suffix == ".xdmf":
            found[name] = path.read_text()
        elif path.name == "history.json":
            found[name] = [{**step, "seconds": None} for step in json.loads(path.read_text())]
        else:
            found[name] = None
    return found


def logged(folder):
    """How many steps the log of a run has."""
    log = folder / "log.txt"
    return log.read_text().count("  time ") if log.exists() else 0


def killed_at_random(tmp_path, ranks, kills, steps, seed):
    """Each time some steps later, and in the midst of one: a time of the clock would be a matter of the machine."""
    whole, _ = start(tmp_path, "whole", ranks, steps, 0.0)
    finish(whole)
    rng, ends = np.random.default_rng(seed), []
    for k in range(kills):
        run, processes = start(tmp_path, "broken", ranks, steps, 0.006)
        # The first gets so far that there is a checkpoint to go on with, the others maybe not even to their next step.
        enough = logged(tmp_path / "broken") + rng.integers(2 if k == 0 else 0, steps // (kills + 1) - 2)
        while run.poll() is None and logged(tmp_path / "broken") < enough:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        assert run.poll() is None, "the run was over before it was killed"
        # Every third by SIGKILL to all, the others as the generator says.
        number = signal.SIGKILL if k % 3 == 0 else rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
        kill(run, processes, int(number), k % 3 == 0)
        ends.append(run.returncode)
    assert 0 not in ends
    last, _ = start(tmp_path, "broken", ranks, steps, 0.0)
    output = finish(last)
    assert "continuing at time " in output, output
    record = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert len(record["starts"]) <= kills + 1 and record["starts"][-1]["end"] == "done"
    ours, reference = content(tmp_path / "broken"), content(tmp_path / "whole")
    assert sorted(ours) == sorted(reference)
    assert [name for name in reference if ours[name] != reference[name]] == []


def test_two_kills_at_random_moments_change_nothing(tmp_path):
    killed_at_random(tmp_path, 2, 2, 30, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_ten_kills_at_random_moments_change_nothing(tmp_path, ranks):
    killed_at_random(tmp_path, ranks, 10, 120, seed=10 + ranks)
