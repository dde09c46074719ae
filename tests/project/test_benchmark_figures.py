# SPDX-License-Identifier: MIT
"""Benchmarks at their smallest sizes: the figures that do not depend on the machine are right."""

import queue
import shutil
import sys
import warnings
from pathlib import Path

import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bench_assembly
import bench_spmm
import learned

BENCHMARKS = Path(learned.__file__).parent
# Errors of the certified law are of the order of the root of its tolerance of 1e-3, and mostly far below.
CERTIFIED = 3.2  # per cent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model of the smoke tests, which is trained once."""
    folder = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        learned.quick()[0].destroy()
    return folder


@pytest.fixture
def quick(folder, script, tmp_path):
    """Run a benchmark with `--quick`; the rows of the tables that it prints, as lists of columns."""

    def run(name, *more):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        lines = script(BENCHMARKS / f"bench_{name}.py", "--quick", *more).splitlines()
        return [[column.strip() for column in line.strip("|").split("|")] for line in lines if line.startswith("|")]

    return run


def test_moduli_are_those_of_exact_solutions(quick):
    rows = {name.split(" ")[0]: figures for name, *figures in quick("moduli")}
    for name in ("E1", "nu12"):
        lower, upper = map(float, rows[name][-1].split(" to "))
        assert 0.999 * lower < float(rows[name][0]) < 1.001 * upper
    assert float(rows["G12"][0]) == pytest.approx(float(rows["G12"][-1]), rel=2e-3)
    # The fields do not vary along the fibre, so that the thickness of the RVE has no influence but that of the mesh.
    assert all(float(rows[name][2]) < 2e-3 for name in ("E1", "E2", "nu12", "nu23", "G12", "G23"))


def test_no_bound_of_the_certificate_is_violated(quick):
    rows = {part: figures for _, part, *figures in quick("certificate")}
    for part in ("inside", "outside"):
        strains, violations, *_ = rows[part]
        assert int(strains) > 10 and violations == "0"
    gap = float(rows["inside"][2].split()[0])
    assert 0 < gap < 1, "per cent of the energy"


def test_structures_of_learned_rves_are_those_of_exact_ones(quick, tmp_path):
    (row,) = (figures for name, *figures in quick("macro") if name == "RVE3")
    _, force, stress, *_, exact, _ = row
    for pair in (force, stress):
        surrogate, certified = map(float, pair.split(" / "))
        assert 0 < certified < CERTIFIED and 0 < surrogate < CERTIFIED
    assert exact.endswith(" of 8")
    assert not (tmp_path / "benchmarks").exists()


def test_learned_laws_at_finite_strain_are_near_the_exact_one(quick):
    """A brief training of 24 snapshots; the tier in modes has no training."""
    rows = {law: figures for _, _, law, *figures in quick("finite_strain", "RVE3")}
    for law, most in (("EquiNO", 10.0), ("modes", 0.1)):
        mean, largest = map(float, rows[law][0].split(" / "))
        assert 0 < mean <= largest < most


def test_tiers_keep_the_tolerance(quick, tmp_path):
    rows = {name: figures for name, *figures in quick("tiers")}
    assert [float(error) for error in rows["exact"][:2]] == [0, 0]
    for name in ("certified", "certified, without modes"):
        force, stress, *_ = map(float, rows[name][:2])
        assert force < CERTIFIED and stress < CERTIFIED
    exact, exact_alone = (int(rows[name][2].split(" of ")[0]) for name in ("certified", "certified, without modes"))
    # What the modes solve need not be solved exactly.
    assert exact <= exact_alone and rows["certified, without modes"][3] == "0"
    assert (tmp_path / "results/tiers/tiers.png").stat().st_size > 0


@pytest.mark.mpi
@pytest.mark.parametrize("options", [{}, bench_assembly.MULTIGRID], ids=["direct", "multigrid"])
def test_parts_of_an_iteration_are_all_of_it(options, trained, comm):
    record = bench_assembly.measure(trained.model, 4, options, comm, rounds=1)
    for law in ("learned", "formula"):
        parts = record[law]["parts"]
        assert list(parts) == list(bench_assembly.PARTS) and all(seconds > 0 for seconds in parts.values())
        assert record[law]["iteration"] == pytest.approx(sum(parts.values()))
        assert record[law]["points"] == 4 * 4**2 and record[law]["iterations"] > 1
    assert comm.allgather(record) == [record] * comm.size


def test_ways_of_sparse_products_agree():
    """The benchmark itself compares the products; messages are compared by the loss after a step of training."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        ways = bench_spmm.products(200, 7, bench_spmm.QUICK, "cpu")
    assert list(ways) == [1, 4] and all(min(times.values()) > 0 for times in ways.values())
    results = queue.SimpleQueue()
    for way in ("concatenated", "at_nodes", "products"):
        bench_spmm.train(way, bench_spmm.QUICK, "cpu", results)
    first, *others = (results.get()["loss"] for _ in range(3))
    assert others == pytest.approx([first, first], rel=1e-12)
