# SPDX-License-Identifier: MIT
"""Ranks that share a device: same results, whoever computes, however many points each has, whatever fails."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mpi4py import MPI
from launch import outside_mpi
from trained import strains

import coupling
import meshes
from coupling import placement
from fe2 import MacroProblem

pytestmark = pytest.mark.mpi


def shares(comm, total):
    """The points of this rank, rank 1 having none."""
    able = [rank for rank in range(comm.size) if rank != 1]
    return np.array_split(np.arange(total), len(able))[able.index(comm.rank)] if comm.rank in able else np.arange(0)


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"], None])
@pytest.mark.parametrize("total", [1, 300])
def test_results_do_not_depend_on_the_placement(trained, comm, devices, total):
    everything = strains(total)
    alone = coupling.SurrogateLaw(trained.model)
    right = alone.evaluate(everything, alone.initial_state(total), alone.initial_state(total))
    law = coupling.SurrogateLaw(trained.model, device=coupling.assign_devices(comm, devices))
    mine = shares(comm, total)
    for count in (len(mine), 0, len(mine) // 2, len(mine)):  # more room is made, and what is there is used again
        here, state = mine[:count], law.initial_state(count)
        found = law.evaluate(everything[here], state, state, comm)
        assert np.allclose(found.stress, right.stress[here], rtol=1e-12, atol=1e-12 * abs(right.stress).max())
        assert np.allclose(found.tangent, right.tangent[here], rtol=1e-12, atol=1e-12 * abs(right.tangent).max())
    law.destroy()


def test_a_structure_on_one_device(trained, comm):
    def solve(law):
        problem = MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.04, None))
        problem.record("right")
        return problem.solve(steps=2, log=None)[-1].force["right"]

    shared = coupling.SurrogateLaw(trained.model, device=coupling.assign_devices(comm, ["cpu"]))
    alone = coupling.SurrogateLaw(trained.model)
    assert np.allclose(solve(shared), solve(alone), rtol=1e-12)
    shared.destroy()


def test_devices_are_spread_over_the_ranks(comm):
    assert comm.allgather(coupling.assign_devices(comm, ["cpu"]).owner) == [True] + [False] * (comm.size - 1)
    two = coupling.assign_devices(comm, ["cpu", "meta"])  # two that torch knows everywhere
    served = [0 if rank * 2 // max(comm.size, 2) == 0 else 1 for rank in range(comm.size)]
    assert comm.allgather(two.device.type) == [("cpu", "meta")[k] for k in served]
    assert comm.allgather(two.group.size) == [served.count(k) for k in served]
    lines = []
    coupling.assign_devices(comm, ["cpu"], log=lines.append)
    assert lines == ([f"{MPI.Get_processor_name()}: cpu for ranks {list(range(comm.size))}"] if comm.rank == 0 else [])


def test_gpus_that_have_one_name_and_are_two(comm, monkeypatch):
    """As under a batch system that shows each rank one GPU, which is cuda:0 for all of them."""
    monkeypatch.setattr(placement, "_hardware", lambda device: f"GPU-{comm.rank % 2}")
    found = coupling.assign_devices(comm, ["cuda:0"])
    assert found.device == torch.device("cuda:0")
    assert found.group.size == sum(rank % 2 == comm.rank % 2 for rank in range(comm.size))


def test_an_owner_that_fails_fails_on_all_ranks(trained, comm, monkeypatch):
    law = coupling.SurrogateLaw(trained.model, device=coupling.assign_devices(comm, ["cpu"]))

    def out_of_memory(strain, stress, tangent):
        raise torch.OutOfMemoryError(f"no room for {len(strain)} points")

    if law._predict._evaluator is not None:
        monkeypatch.setattr(law._predict._evaluator, "fill", out_of_memory)
    e, state = strains(3), law.initial_state(3)
    with pytest.raises(RuntimeError, match=f"no room for {3 * comm.size} points"):
        law.evaluate(e, state, state, comm)
    monkeypatch.undo()  # and goes on, if it is better
    assert np.isfinite(law.evaluate(e, state, state, comm).stress).all()
    e[0] = 1.0
    last = comm.rank == comm.size - 1
    with pytest.raises(coupling.OutsideRange):
        law.evaluate(*((e, state, state) if last else (e[1:], state[1:], state[1:])), comm)
    law.destroy()


def test_wrong_arguments_raise_on_all_ranks(trained, comm):
    with pytest.raises(ValueError, match=r"devices = \[\]: need at least one"):
        coupling.assign_devices(comm, [])
    with pytest.raises(ValueError, match=r"devices = \['gpu'\]: "):
        coupling.assign_devices(comm, ["gpu"] if comm.rank == 0 else ["cpu"])

    def log(line):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        coupling.assign_devices(comm, ["cpu"], log=log)
    # What is wrong on the last rank alone is raised by all that share the device.
    device, last = coupling.assign_devices(comm, ["cpu"]), comm.rank == comm.size - 1
    with pytest.raises(ValueError, match="outside = 'ignore'"):
        coupling.SurrogateLaw(trained.model, device=device, outside="ignore" if last else "error")
    with pytest.raises(ValueError, match="chunk = 0"):
        coupling.SurrogateLaw(trained.model, device=device, chunk=0 if device.owner else None)
    if comm.size > 1:
        law = coupling.SurrogateLaw(trained.model, device=coupling.assign_devices(comm, ["cpu"]))
        with pytest.raises(ValueError, match=f"{comm.size} ranks share cpu, but evaluate together on 1"):
            law.evaluate(strains(2), law.initial_state(2), law.initial_state(2))


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts four ranks itself")
def test_on_four_ranks(trained):
    environment = outside_mpi()
    environment["FE2X_TRAINED"] = str(trained.path.parent)
    command = ["mpirun", "-n", "4", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr
