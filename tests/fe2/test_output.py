# SPDX-License-Identifier: MIT
"""What a macroscale run leaves to be looked at: series of fields, fields of single RVEs, a bar on a terminal."""

import io

import h5py
import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("meshio")

import meshio
from mpi4py import MPI
from dolfinx import fem
from dolfinx.mesh import compute_midpoints
from test_macro import halves

import fe2
import meshes
from fe2.progress import Bar
from fe2.xdmf import Series, at_nodes

STEEL = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)


def read(path):
    """Times, points, cells, and the fields of each step as meshio reads them."""
    with meshio.xdmf.TimeSeriesReader(path) as series:
        points, (cells,) = series.read_points_cells()
        steps = [series.read_data(k) for k in range(series.num_steps)]
    cell_values = [{name: values[0] for name, values in step[2].items()} for step in steps]
    return [s[0] for s in steps], points, cells.data, [s[1] for s in steps], cell_values


def uniform_strain(domain, law, degree=1):
    """A structure whose whole boundary moves with the strain (0.02, -0.01) t; quadratic residuals are none."""
    problem = fe2.MacroProblem(domain, law, degree=degree)
    problem.prescribe("left", (0.0, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("right", (0.02 * 4.0, None))
    problem.prescribe("top", (None, -0.01 * 1.0))
    return problem


@pytest.mark.mpi
@pytest.mark.parametrize("quads, degree", [(True, 1), (False, 2)])
def test_series_holds_the_fields_of_each_step(comm, mpi_tmp_path, quads, degree):
    """A uniform strain: u = E x at the nodes and σ = C E in each cell, E growing with the time."""
    material = fe2.LinearElastic.from_young_poisson(100.0, 0.3)
    domain = meshes.bar(comm, size=(4.0, 1.0), n=(4, 2), quads=quads)
    problem = uniform_strain(domain, fe2.UFLLaw(material), degree)
    problem.solve(steps=2, folder=mpi_tmp_path, fields=True, log=None)
    times, points, cells, node_values, cell_values = read(mpi_tmp_path / "fields.xdmf")
    assert times == [0.5, 1.0]
    assert len(points) == 15 and cells.shape == ((8, 4) if quads else (16, 3))
    # No cell is turned inside out by a wrong order of its nodes: the areas (shoelace formula) add up to the bar's.
    x, y = points[cells][..., 0], points[cells][..., 1]
    area = abs(np.sum(x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1), axis=1)) / 2
    assert np.isclose(area.sum(), 4.0, rtol=1e-12)
    lam, mu = material.bulk - 2 / 3 * material.shear, material.shear
    for t, at_node, in_cell in zip(times, node_values, cell_values):
        expected = np.column_stack([0.02 * t * points[:, 0], -0.01 * t * points[:, 1], 0 * points[:, 0]])
        assert np.allclose(at_node["displacement"], expected, rtol=0, atol=1e-12)
        trace = 0.01 * t
        for name, value in {
            "strain_xx": 0.02 * t,
            "strain_yy": -0.01 * t,
            "strain_xy": 0.0,
            "stress_xx": lam * trace + 2 * mu * 0.02 * t,
            "stress_yy": lam * trace - 2 * mu * 0.01 * t,
            "stress_xy": 0.0,
        }.items():
            assert np.allclose(in_cell[name], value, rtol=1e-9, atol=1e-10), name


@pytest.mark.mpi
def test_files_do_not_depend_on_the_number_of_ranks(comm, mpi_tmp_path):
    """Rank 0 writes the same mesh from its own memory; a cell keeps its own value and a node its own."""

    def write(domain, path):
        mesh = domain.mesh
        cells = mesh.topology.index_map(2).size_local
        centre = mesh.geometry.x[meshes.compat.geometry_dofmap(mesh)[:cells]].mean(axis=1)
        Series(path, mesh).write(1, 0.25, {"x": mesh.geometry.x}, {"centre": centre})

    write(meshes.cook(comm, n=(5, 3)), mpi_tmp_path / "spread.xdmf")
    if comm.rank == 0:
        write(meshes.cook(MPI.COMM_SELF, n=(5, 3)), mpi_tmp_path / "alone.xdmf")
        with h5py.File(mpi_tmp_path / "spread" / "0001.h5") as a, h5py.File(mpi_tmp_path / "alone" / "0001.h5") as b:
            for name in ("points", "topology", "nodes/x", "cells/centre"):
                assert np.array_equal(a[name], b[name]), name
            assert np.array_equal(a["nodes/x"], a["points"])
            centres = a["points"][:][a["topology"][:]].mean(axis=1)
            assert np.allclose(centres, a["cells/centre"], rtol=0, atol=1e-12)
    comm.barrier()


@pytest.mark.mpi
def test_a_restart_continues_the_series(comm, mpi_tmp_path):
    law = fe2.UFLLaw(STEEL)
    options = {"steps": 4, "fields": True, "log": None}
    bars = [uniform_strain(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law) for _ in range(3)]
    bars[0].solve(folder=mpi_tmp_path / "whole", **options)
    bars[1].solve(folder=mpi_tmp_path / "broken", until=0.5, **options)
    if comm.rank == 0:  # as if killed in mid-step: a file half written, and the checkpoint a step behind
        (mpi_tmp_path / "broken" / "fields" / "0003.part").write_bytes(b"half a")
    comm.barrier()
    bars[2].solve(folder=mpi_tmp_path / "broken", restart=True, **options)
    assert np.array_equal(bars[2].u.x.array, bars[0].u.x.array)
    assert [s.time for s in bars[2].history] == [0.25, 0.5, 0.75, 1.0]
    whole, broken = (read(mpi_tmp_path / name / "fields.xdmf") for name in ("whole", "broken"))
    assert whole[0] == broken[0] == [0.25, 0.5, 0.75, 1.0]
    for a, b in zip(whole[3] + whole[4], broken[3] + broken[4]):
        assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    assert comm.bcast(not list((mpi_tmp_path / "broken" / "fields").glob("*.part")))


def test_a_new_run_begins_a_new_series(tmp_path):
    for steps in (3, 2):
        problem = uniform_strain(meshes.bar(MPI.COMM_SELF, size=(4.0, 1.0), n=(2, 1)), fe2.UFLLaw(STEEL))
        problem.solve(steps=steps, folder=tmp_path, fields=True, log=None)
    assert read(tmp_path / "fields.xdmf")[0] == [0.5, 1.0]


def test_components_in_space_and_curved_cells(tmp_path):
    """In 3D all six components have names; P2 values at the nodes of a curved mesh are those of the function."""
    tensor = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    one = fe2.mandel.vector(tensor)[None]
    values = fe2.SMALL_STRAIN.columns(one, 2 * one)
    expected = {"xx": 1, "xy": 2, "xz": 3, "yy": 4, "yz": 5, "zz": 6}
    assert {k: round(float(v[0]), 12) for k, v in values.items()} == {
        f"{name}_{axes}": factor * value
        for name, factor in (("stress", 1), ("strain", 2))
        for axes, value in expected.items()
    }
    mesh = meshes.plate_with_hole(MPI.COMM_SELF, n=3, order=2).mesh
    u = fem.Function(fem.functionspace(mesh, ("Lagrange", 2, (2,))))
    u.interpolate(lambda x: np.stack([2 * x[0] - x[1], x[1]]))
    at_vertices = np.column_stack([2 * mesh.geometry.x[:, 0] - mesh.geometry.x[:, 1], mesh.geometry.x[:, 1]])
    assert np.allclose(at_nodes(u), at_vertices, rtol=0, atol=1e-12)
    Series(tmp_path / "plate.xdmf", mesh).write(1, 0.0, {"u": at_nodes(u)}, {})
    _, points, cells, (at_node,), _ = read(tmp_path / "plate.xdmf")
    assert np.allclose(at_node["u"][:, 0], 2 * points[:, 0] - points[:, 1], rtol=0, atol=1e-12)
    # XDMF has the edges' nodes around the cell: each lies between its corners, on the arc within r (1 − cos(π/24)).
    for edge in range(4):
        a, b = points[cells[:, edge]], points[cells[:, (edge + 1) % 4]]
        off = np.linalg.norm(points[cells[:, 4 + edge]] - (a + b) / 2, axis=1)
        assert (off < 0.1 * np.linalg.norm(b - a, axis=1)).all()


@pytest.fixture(scope="module")
def exact():
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    return fe2.ExactLaw(fe2.RVE(cell, {1: STEEL, 2: fe2.LinearElastic(200.0, 80.0)}, degree=1))


@pytest.mark.mpi
def test_micro_fields_at_chosen_points(comm, mpi_tmp_path, exact):
    problem = fe2.MacroProblem(halves(comm), {1: exact, 2: fe2.UFLLaw(STEEL)})
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.08, 0.02))
    problem.solve(steps=2, log=None)
    # 2×2 Gauss points of a cell 1 × 0.5 lie at (1 ± 1/√3)/2 of its sides.
    low, high = (1 - 1 / np.sqrt(3)) / 2, (1 + 1 / np.sqrt(3)) / 2
    a, b = problem.micro([[0.1, 0.05], [1.9, 0.95]])
    assert np.allclose(a.coordinates, [low, 0.5 * low]) and np.allclose(b.coordinates, [1 + high, 0.5 + 0.5 * high])
    for point in (a, b):
        body = point.body()  # on every rank
        for micro, macro in ((body.stress(), point.stress), (body.strain(), point.strain)):
            mean = np.einsum("cq,cqd->d", body.weights, micro) / body.weights.sum()
            assert np.allclose(mean, macro, rtol=0, atol=1e-9 * abs(macro).max())
    assert (np.array(comm.allgather(a.state)) == a.state).all()

    problem.write_micro(mpi_tmp_path, [a.coordinates, b.coordinates])
    comm.barrier()
    file = meshio.read(mpi_tmp_path / "micro-2.xdmf")
    at_node, in_cell = file.point_data, {name: values[0] for name, values in file.cell_data.items()}
    body = b.body()
    assert len(file.points) == len(body.mesh.geometry.x)
    assert np.allclose(np.ptp(at_node["displacement"], axis=0)[:2], np.ptp(body.u.x.array.reshape(-1, 2), axis=0))
    assert set(in_cell["tag"].tolist()) == {1, 2}
    # All cells of the laminate have one size, so the plain mean is the average over the cell.
    assert np.isclose(in_cell["stress_xy"].mean(), b.stress[2] / np.sqrt(2), rtol=1e-8)

    with pytest.raises(TypeError, match=r"the law at the point \[3\.\d+ +0?\.\d+\], UFLLaw, has no micro fields"):
        problem.write_micro(mpi_tmp_path, [3.9, 0.9])
    with pytest.raises(ValueError, match=r"coordinates have shape \(1, 3\), need \(k, 2\)"):
        problem.micro([[0.0, 0.0, 0.0]])


def test_a_bar_is_for_terminals_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        with Bar("load", 4) as bar:
            bar.update(3, "Newton 2  residual 1.0e-05")
        assert bar.shown == shown
        assert ("residual 1.0e-05" in stream.getvalue() and "75%" in stream.getvalue()) == shown
        assert shown or not stream.getvalue()


@pytest.mark.mpi
def test_means_where_a_rank_has_no_cells(comm):
    """Of the coordinates of its points, which is the middle of a cell; there are fewer cells than ranks."""
    problem = fe2.MacroProblem(meshes.bar(comm, size=(1.0, 1.0), n=(1, 1)), fe2.UFLLaw(fe2.LinearElastic(2.0, 1.0)))
    sigma = problem.sigma
    middles = compute_midpoints(sigma.mesh, 2, sigma.cells)[:, :2]
    assert np.allclose(sigma.means(sigma.coordinates()), middles, rtol=0, atol=1e-14)
    assert sigma.means(sigma.strains()).shape == (len(middles), 3)
    if comm.size > 2:
        assert min(comm.allgather(len(middles))) == 0
