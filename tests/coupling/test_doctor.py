# SPDX-License-Identifier: MIT
"""The report of `python -m coupling.doctor`, and the problems that it finds."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from launch import outside_mpi

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

from mpi4py import MPI

from coupling import doctor

PROJECT = Path(__file__).parents[2]


@pytest.mark.mpi
def test_it_knows_this_installation(comm, capsys):
    report = doctor.examine(comm)
    assert all(other == report for other in comm.allgather(report))
    assert sum(node["ranks"] for node in report.nodes) == comm.size
    assert report.petsc["scalar"] == "float64" and "MUMPS" in report.petsc["packages"]
    assert len(report.placement) >= 1
    wrong = doctor.main(["--json"], comm)
    said = capsys.readouterr().out
    assert bool(said) == (comm.rank == 0)
    if comm.rank == 0:
        assert bool(json.loads(said)["problems"]) == bool(wrong)


@pytest.fixture(scope="module")
def well():
    """This installation as it would be on a machine on which no problems."""
    found = doctor.examine(MPI.COMM_SELF)
    node = {"name": "here", "ranks": 2, "cores": 4, "threads": 2, "GPUs": []}
    return replace(found, nodes=[node], speed={"NumPy": 50.0, "torch": 50.0}, compiler="cc", problems=[])


def test_nothing_is_wrong_where_all_is_well(well):
    assert doctor.problems(well, 1, 1) == []
    assert doctor.text(well).endswith("no problems")


@pytest.mark.parametrize(
    ("change", "launched", "said"),
    [
        ({}, 4, "the launcher has started 4 ranks, each in an MPI.COMM_WORLD of size"),
        ({"speed": {"NumPy": 50.0, "torch": 2.5}}, 1, "torch multiplies matrices with 2.5 GFLOP/s"),
        ({"compiler": ""}, 1, "no C compiler"),
        ({"petsc": {"scalar": "complex128", "packages": ["MUMPS"], "options": ""}}, 1, "computes with complex128"),
        ({"petsc": {"scalar": "float64", "packages": [], "options": ""}}, 1, "built without MUMPS"),
    ],
)
def test_problems_come_with_a_remedy(well, change, launched, said):
    (found,) = doctor.problems(replace(well, **change), launched, 1)
    assert said in found


@pytest.mark.parametrize(
    ("ranks", "threads", "cores", "said"),
    [
        (8, 4, 4, "n1: 8 ranks of 4 threads on 4 cores: set OMP_NUM_THREADS=1, and start at most 4 ranks"),
        (2, 8, 8, "n1: 2 ranks of 8 threads on 8 cores: set OMP_NUM_THREADS=4"),
        (2, 1, 1, "n1: 2 ranks of 1 thread on 1 core: start at most 1 rank"),
        (1, 4, 2, "n1: 1 rank of 4 threads on 2 cores: set OMP_NUM_THREADS=2"),
    ],
)
def test_too_many_threads_are_a_problem_with_the_right_number(well, ranks, threads, cores, said):
    node = {"name": "n1", "ranks": ranks, "cores": cores, "threads": threads, "GPUs": []}
    assert doctor.problems(replace(well, nodes=[node]), 1, 1) == [said]


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts ranks itself")
def test_on_the_command_line(tmp_path):
    """A launcher that has started two ranks, where MPI has one."""
    environment = outside_mpi()
    environment |= {"PYTHONPATH": str(PROJECT), "SLURM_STEP_NUM_TASKS": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "coupling.doctor"], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1, done.stderr
    assert "WRONG      the launcher has started 2 ranks" in done.stdout
