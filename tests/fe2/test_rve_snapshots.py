# SPDX-License-Identifier: MIT
"""Snapshot files."""

from dataclasses import fields

import h5py
import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("h5py")

from mpi4py import MPI

import meshes
from fe2 import (
    RVE,
    Conductive,
    LinearElastic,
    NeoHookean,
    SaturatingElastic,
    SolverOptions,
    rve_snapshots,
    strain_sampling,
)
from fe2.chunked_hdf5 import count
from fe2.fingerprints import fingerprint

STRAINS = strain_sampling.box(7, 2, 0.02, seed=3)


def make_rve(a1=50.0, **options):
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(4, 2))
    return RVE(cell, {1: SaturatingElastic(a1=a1), 2: LinearElastic.from_young_poisson(2e4, 0.3)}, **options)


@pytest.fixture(scope="module")
def rve():
    return make_rve()


def solve(rve, strains, path, comm=MPI.COMM_SELF, **options):
    rve_snapshots.compute(rve, strains, path, comm, **{"chunk": 2, "progress": False, **options})
    return rve_snapshots.read(path)


def assert_equal(a, b):
    for f in fields(a):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)


def test_file_holds_what_homogenise_gives(rve, tmp_path):
    got = solve(rve, STRAINS, tmp_path / "s.h5", chunk=len(STRAINS))
    direct = rve.homogenise(STRAINS)
    assert direct.fluctuation.shape[0] == direct.local_stress.shape[0] == 0  # not asked for
    np.testing.assert_array_equal(got.strain, STRAINS)
    for name in ("stress", "tangent", "energy"):
        np.testing.assert_array_equal(getattr(got, name), getattr(direct, name))
    np.testing.assert_array_equal(got.weights, rve.body.weights)
    for k, row in enumerate(direct.state):
        np.testing.assert_array_equal(got.fluctuation[k], rve.displacement(row, fluctuation=True).x.array)
        np.testing.assert_array_equal(got.local_stress[k], rve.set_state(row).stress())
    mean = np.einsum("cp,ncpi->ni", got.weights, got.local_stress) / rve.volume
    np.testing.assert_allclose(mean, got.stress, rtol=1e-8, atol=1e-8 * abs(got.stress).max())
    assert not got.failed.any()
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def kill_after(chunks, monkeypatch):
    """Interrupt runs after some chunks; undone by `monkeypatch.undo`."""
    solve_chunk, calls = rve_snapshots._solve, []

    def killed(*args):
        calls.append(args)
        if len(calls) > chunks:
            raise KeyboardInterrupt
        return solve_chunk(*args)

    monkeypatch.setattr(rve_snapshots, "_solve", killed)


def test_a_killed_run_goes_on(rve, tmp_path, monkeypatch):
    whole = solve(rve, STRAINS, tmp_path / "whole.h5")
    path, parts = tmp_path / "s.h5", tmp_path / "s.h5.parts"
    kill_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        solve(rve, STRAINS, path)
    monkeypatch.undo()
    assert count(parts) == 2 and not path.exists()
    (parts / "chunk-000002.h5.tmp").write_bytes(b"half")
    solve_chunk, solved = rve_snapshots._solve, []
    monkeypatch.setattr(
        rve_snapshots, "_solve", lambda rve, strains: (solved.append(strains), solve_chunk(rve, strains))[1]
    )
    assert_equal(solve(rve, STRAINS, path), whole)
    np.testing.assert_array_equal(np.concatenate(solved), STRAINS[4:])
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    stamp = path.stat().st_mtime_ns
    solve(rve, STRAINS, path)  # nothing left to do
    assert path.stat().st_mtime_ns == stamp and len(solved) == 2 and not parts.exists()


def test_append_adds_once(rve, tmp_path):
    path = tmp_path / "s.h5"
    solve(rve, STRAINS[:4], path)
    for _ in range(2):
        assert_equal(solve(rve, STRAINS[4:], path, append=True), solve(rve, STRAINS, tmp_path / "whole.h5"))


def test_no_strains_give_no_snapshots(rve, tmp_path):
    none, whole = STRAINS[:0], solve(rve, STRAINS, tmp_path / "whole.h5")
    for append in (False, True):
        path = tmp_path / f"{append}.h5"
        for _ in range(2):
            empty = solve(rve, none, path, append=append)
            for field in fields(empty):
                if field.name not in ("weights", "fingerprint"):
                    assert getattr(empty, field.name).shape == (0, *getattr(whole, field.name).shape[1:]), field.name
        assert_equal(solve(rve, STRAINS, path, append=True), whole)
        assert_equal(solve(rve, none, path, append=True), whole)
    with pytest.raises(rve_snapshots.SnapshotError, match="7 snapshots of other strains"):
        solve(rve, none, path)
    with pytest.raises(rve_snapshots.SnapshotError, match="another RVE"):
        solve(make_rve(a1=51.0), none, path, append=True)
    with pytest.raises(ValueError, match=r"shape \(0, 6\), need \(n, 3\)"):
        solve(rve, np.zeros((0, 6)), path)


def test_other_strains_and_other_cells_are_refused(rve, tmp_path):
    path = tmp_path / "s.h5"
    solve(rve, STRAINS, path)
    with pytest.raises(rve_snapshots.SnapshotError, match="other strains"):
        solve(rve, STRAINS[:3], path)
    for other in (make_rve(a1=51.0), make_rve(degree=1), make_rve(boundary="linear displacement")):
        with pytest.raises(rve_snapshots.SnapshotError, match=r"s\.h5 belongs to another RVE"):
            solve(other, STRAINS, path, append=True)
    assert fingerprint(make_rve()) == fingerprint(rve)


def test_parts_of_another_run_are_refused(rve, tmp_path, monkeypatch):
    kill_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        solve(rve, STRAINS, tmp_path / "s.h5", chunk=3)
    monkeypatch.undo()
    with pytest.raises(rve_snapshots.SnapshotError, match="another chunk size"):
        solve(rve, STRAINS, tmp_path / "s.h5")
    with pytest.raises(rve_snapshots.SnapshotError, match="another RVE"):
        solve(make_rve(a1=51.0), STRAINS, tmp_path / "s.h5", chunk=3)


def test_damaged_and_alien_files_are_refused_by_name(rve, tmp_path):
    path = tmp_path / "s.h5"
    solve(rve, STRAINS[:2], path)
    data = path.read_bytes()
    with h5py.File(path) as file:
        where = file["stress"].id.get_chunk_info(0).byte_offset
    flipped = bytearray(data)
    flipped[where + 3] ^= 1
    for content in (data[: len(data) // 2], data[:20], b"", b"something else", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(rve_snapshots.SnapshotError, match=r"s\.h5 is damaged"):
            rve_snapshots.read(path)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["strain"] = STRAINS
    with pytest.raises(rve_snapshots.SnapshotError, match=r"s\.h5 is no file of snapshots"):
        solve(rve, STRAINS, path, append=True)
    with pytest.raises(FileNotFoundError, match=r"t\.h5"):
        rve_snapshots.read(tmp_path / "t.h5")


def test_points_without_solution_are_marked(tmp_path):
    hard = make_rve(solver=SolverOptions(max_iterations=1, max_substeps=0))
    strains = np.array([[0.0, 0, 0], [0.05, 0, 0.03]])
    with pytest.warns(UserWarning, match="1 of 2"):
        got = solve(hard, strains, tmp_path / "s.h5")
    np.testing.assert_array_equal(got.failed, [False, True])
    assert np.isnan(got.local_stress[1]).all() and np.isfinite(got.local_stress[0]).all()
    np.testing.assert_array_equal(got.strain, strains)


def test_lines_of_progress(rve, tmp_path, capsys):
    solve(rve, STRAINS, tmp_path / "s.h5", progress=True)
    assert capsys.readouterr().out.splitlines()[-1].startswith("snapshots: 4 of 4 chunks")


@pytest.mark.mpi
def test_content_does_not_depend_on_the_ranks(rve, comm, mpi_tmp_path):
    got = solve(rve, STRAINS, mpi_tmp_path / "s.h5", comm)
    alone = solve(rve, STRAINS, mpi_tmp_path / f"alone{comm.rank}.h5")
    assert_equal(got, alone)


@pytest.mark.mpi
def test_an_error_on_one_rank_is_raised_on_all(rve, comm, mpi_tmp_path, monkeypatch):
    last = comm.size - 1
    if comm.rank == last:
        monkeypatch.setattr(rve, "homogenise", lambda *a, **b: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        solve(rve, STRAINS, mpi_tmp_path / "s.h5", comm)
    monkeypatch.undo()
    assert len(solve(rve, STRAINS, mpi_tmp_path / "s.h5", comm).strain) == len(STRAINS)
    if comm.size > 1:
        with pytest.raises(rve_snapshots.SnapshotError):
            solve(rve, STRAINS[: 2 + (comm.rank == 0)], mpi_tmp_path / "t.h5", comm)


@pytest.mark.parametrize("materials", [{1: NeoHookean(9.0, 2.0), 2: NeoHookean(60.0, 45.0)},
                                       {1: Conductive(1.0), 2: Conductive(5.0)}])  # fmt: skip
def test_snapshots_of_another_measure(materials, tmp_path):
    """What `homogenise` gives, of stretches and gradients; the file names the measure and its units."""
    rve = RVE(meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(4, 2)), materials)
    strains = strain_sampling.sobol(4, 2, 0.2, measure=rve.measure)
    got = solve(rve, strains, tmp_path / "s.h5")
    direct = rve.homogenise(strains, fields=True)
    for name in ("stress", "tangent", "energy", "fluctuation", "local_stress"):
        np.testing.assert_allclose(getattr(got, name), getattr(direct, name), rtol=1e-9, atol=1e-9, err_msg=name)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file.attrs["measure"] == rve.measure.name
        assert ("potential" in file.attrs["units"]) == rve.measure.scalar
    with pytest.raises(ValueError, match=rf"shape \(2, 3\), need \(n, {rve.strain_size}\)"):
        solve(rve, np.zeros((2, 3)), tmp_path / "other.h5")
