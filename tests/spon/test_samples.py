# SPDX-License-Identifier: MIT
"""Samples of operators in files: the same on any number of ranks, after a kill, and one batch after the other."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("h5py")

import basix.ufl
import h5py
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh
from scipy.sparse.linalg import splu

import coupling
import spon
from fe2.chunked_hdf5 import count
from spon import operators
from spon.operators.operator_samples import Signature
from spon.training import TrainingOptions


class Problem:
    """−Δu + u = f k with f in P2 and k piecewise constant, natural boundary, u in P1; counts its solves."""

    def __init__(self, n=4, degree=1):
        domain = mesh.create_unit_square(MPI.COMM_SELF, n, n)
        V = fem.functionspace(domain, ("P", degree))
        self.f, self.k = (fem.Function(fem.functionspace(domain, element)) for element in (("P", 2), ("DG", 0)))
        self.u, u, v = fem.Function(V), ufl.TrialFunction(V), ufl.TestFunction(V)
        A = fem.assemble_matrix(fem.form((ufl.inner(ufl.grad(u), ufl.grad(v)) + u * v) * ufl.dx))
        self.factor = splu(A.to_scipy().tocsc())
        self.load = fem.form(self.f * self.k * v * ufl.dx)
        self.solved = 0

    def draw(self, rng):
        a, b = rng.normal(size=2)
        self.f.interpolate(lambda x: a * np.sin(x[0] + b * x[1]))
        self.k.x.array[:] = rng.uniform(1.0, 2.0, len(self.k.x.array))

    def solve(self):
        self.solved += 1
        # What was there before would show: it must not matter in which order the samples are solved.
        self.u.x.array[:] += self.factor.solve(fem.assemble_vector(self.load).array)


@pytest.fixture(scope="module")
def problem():
    return Problem()


def sampled(problem, n, path, comm=MPI.COMM_SELF, **options):
    options = {"inputs": [problem.f, problem.k], "output": problem.u, "chunk": 2, "progress": False, **options}
    coupling.sample_operator(problem.draw, problem.solve, n, path, comm, **options)
    return spon.load(path)


def assert_equal(a, b):
    assert a.seed == b.seed and len(a.inputs) == len(b.inputs)
    for x, y in zip((*a.inputs, a.output), (*b.inputs, b.output)):
        assert torch.equal(x, y)


def test_a_file_holds_what_is_solved(problem, tmp_path):
    problem.u.x.array[:] = 0.0
    data = sampled(problem, 5, tmp_path / "s.h5", seed=3)
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]
    assert [x.shape for x in data.inputs] == [(81, 5), (32, 5)] and data.output.shape == (25, 5) and data.seed == 3
    assert (problem.u.x.array == 0.0).all()  # as before
    for k in range(5):
        problem.draw(np.random.default_rng([3, k]))
        problem.solve()
        for x, column in zip((problem.f, problem.k, problem.u), (*data.inputs, data.output)):
            np.testing.assert_array_equal(column[:, k], x.x.array)
        problem.u.x.array[:] = 0.0
    assert data.output.std(1).min() > 1e-3


def test_a_killed_run_goes_on(problem, tmp_path, monkeypatch):
    whole = sampled(problem, 7, tmp_path / "whole.h5")
    path, folder = tmp_path / "s.h5", tmp_path / "s.h5.parts"
    solve, problem.solved = problem.solve, 0

    def killed():
        if problem.solved == 5:
            raise KeyboardInterrupt
        solve()

    monkeypatch.setattr(problem, "solve", killed)
    with pytest.raises(KeyboardInterrupt):
        sampled(problem, 7, path)
    assert count(folder) == 2 and not path.exists() and problem.solved == 5
    (folder / "chunk-000002.h5.tmp").write_bytes(b"half")
    monkeypatch.setattr(problem, "solve", solve)
    assert_equal(sampled(problem, 7, path), whole)
    assert problem.solved == 5 + 3  # the fifth is solved again, as its chunk was not done
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    stamp = path.stat().st_mtime_ns
    sampled(problem, 7, path)
    sampled(problem, 3, path)
    assert path.stat().st_mtime_ns == stamp and problem.solved == 8 and not folder.exists()


def test_more_samples_are_added(problem, tmp_path):
    whole = sampled(problem, 7, tmp_path / "whole.h5")
    sampled(problem, 3, tmp_path / "s.h5")
    problem.solved = 0
    assert_equal(sampled(problem, 7, tmp_path / "s.h5"), whole)
    assert problem.solved == 4


def test_files_of_something_else_are_refused(problem, tmp_path):
    path = tmp_path / "s.h5"
    sampled(problem, 3, path)
    for other, name in ((Problem(n=5), "input_0"), (Problem(degree=2), "output")):
        with pytest.raises(spon.ModelFileError, match=rf"s\.h5: {name} belongs to another function space"):
            sampled(other, 5, path)
    with pytest.raises(spon.ModelFileError, match="samples of the seed 0, need 1"):
        sampled(problem, 5, path, seed=1)
    with pytest.raises(spon.ModelFileError, match="holds input_0, input_1, output: need input_0, output"):
        sampled(problem, 5, path, inputs=[problem.f])
    folder = tmp_path / "t.h5.parts"
    folder.mkdir()
    part = folder / "chunk-000000.h5"
    with h5py.File(part, "w") as file:
        file.attrs["key"] = "0 to 2"
    with pytest.raises(spon.ModelFileError, match=r"chunk-000000\.h5 is no file of samples"):
        sampled(problem, 5, tmp_path / "t.h5")
    with h5py.File(path) as source, h5py.File(part, "w") as file:
        file.attrs["key"] = "0 to 3"
        for name in source:
            source.copy(name, file)
        for name, value in source.attrs.items():
            file.attrs[name] = value
    with pytest.raises(spon.ModelFileError, match="other samples or another chunk size"):
        sampled(problem, 5, tmp_path / "t.h5")


def test_another_order_of_the_cells_is_another_space():
    """Of the same points, so that only the numbers of the dofs in the cells tell."""
    domains = [
        mesh.create_unit_square(MPI.COMM_SELF, 2, 2, diagonal=d)
        for d in (mesh.DiagonalType.right, mesh.DiagonalType.right, mesh.DiagonalType.left)
    ]
    one, same, other = (Signature.of(spon.read_space(fem.functionspace(m, ("P", 1)))) for m in domains)
    assert one.fits(same.about, same.points + 1e-15) and not one.fits(same.about, same.points + 1e-6)
    assert not one.fits(other.about, one.points)


def test_damaged_files_are_refused(problem, tmp_path):
    path = tmp_path / "s.h5"
    sampled(problem, 3, path)
    data = path.read_bytes()
    with h5py.File(path) as file:
        where = file["output"].id.get_chunk_info(0).byte_offset
    flipped = bytearray(data)
    flipped[where + 3] ^= 1
    for content in (data[: len(data) // 2], b"", b"something else", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(spon.ModelFileError, match=r"s\.h5 is damaged"):
            spon.load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"s\.h5"):
        spon.load(path)


def test_a_network_takes_its_own_samples_only(problem, tmp_path):
    path = tmp_path / "s.h5"
    sampled(problem, 20, path)
    spaces = [x.function_space for x in (problem.f, problem.k)]
    V = problem.u.function_space
    network = spon.OperatorNetwork(input=spaces, output=V, processor="messages", channels=4, depth=2)
    data = spon.load(path, network=network)
    history = operators.train(network, data.inputs, data.output, TrainingOptions(steps=20, every=10)).history
    assert min(history.validation) < history.validation[0]
    with pytest.warns(DeprecationWarning, match=r"spon\.load\(path, network=network\)"):
        assert_equal(spon.load(path, network), data)
    with pytest.raises(TypeError, match="options by name"):
        spon.load(path, network, network=network)
    other = spon.OperatorNetwork(input=[spaces[0], spaces[0]], output=V, processor="mlp")
    with pytest.raises(spon.ModelFileError, match=r"inputs of \[81, 32\] dofs, the network takes \[81, 81\]"):
        spon.load(path, network=other)
    other = spon.OperatorNetwork(input=spaces, output=spaces[0], processor="mlp")
    with pytest.raises(spon.ModelFileError, match="output belongs to another function space"):
        spon.load(path, network=other)


def test_mixed_outputs(tmp_path):
    domain = mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    P2, P1 = basix.ufl.element("P", "triangle", 2, shape=(2,)), basix.ufl.element("P", "triangle", 1)
    w = fem.Function(fem.functionspace(domain, basix.ufl.mixed_element([P2, P1])))
    f = fem.Function(fem.functionspace(domain, ("P", 1)))

    def draw(rng):
        f.x.array[:] = rng.normal(size=9)

    def solve():
        w.x.array[:] = f.x.array.sum()

    for n in (2, 3):
        coupling.sample_operator(draw, solve, n, tmp_path / "s.h5", MPI.COMM_SELF, inputs=[f], output=w, progress=False)
    data = spon.load(tmp_path / "s.h5")
    assert data.output.shape == (59, 3)
    np.testing.assert_allclose(data.output[7], data.inputs[0].sum(0), atol=1e-14)


LOAD = """
import json, sys

for name in "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py".split():
    sys.modules[name] = None  # an import of it fails
import spon

data = spon.load(sys.argv[1])
print(json.dumps(data.output.tolist()))
"""


def test_samples_are_read_without_fenicsx(problem, tmp_path):
    data = sampled(problem, 3, tmp_path / "s.h5")
    project = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", LOAD, str(tmp_path / "s.h5")]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == data.output.tolist()


def test_wrong_use_is_refused(problem, tmp_path):
    with pytest.raises(ValueError, match=r"n = 0: need a whole number of at least 1"):
        sampled(problem, 0, tmp_path / "s.h5")
    with pytest.raises(ValueError, match=r"chunk = 1\.5: need a whole number of at least 1"):
        sampled(problem, 1, tmp_path / "s.h5", chunk=1.5)

    def broken():
        problem.u.x.array[3] = np.nan

    with pytest.raises(ValueError, match="sample 0: output has values that are not finite"):
        coupling.sample_operator(
            problem.draw, broken, 3, tmp_path / "s.h5", MPI.COMM_SELF, inputs=[problem.f, problem.k], output=problem.u
        )
    assert count(tmp_path / "s.h5.parts") == 0


def test_lines_of_progress(problem, tmp_path, capsys):
    sampled(problem, 7, tmp_path / "s.h5", progress=True)
    assert capsys.readouterr().out.splitlines()[-1].startswith("samples: 4 of 4 chunks")


@pytest.mark.mpi
def test_content_does_not_depend_on_the_ranks(problem, comm, mpi_tmp_path):
    problem.solved = 0
    data = sampled(problem, 7, mpi_tmp_path / "s.h5", comm)
    assert comm.allreduce(problem.solved) == 7 and (comm.size == 1 or problem.solved < 7)
    assert_equal(data, sampled(problem, 7, mpi_tmp_path / f"alone{comm.rank}.h5"))


@pytest.mark.mpi
def test_an_error_on_one_rank_is_raised_on_all(problem, comm, mpi_tmp_path, monkeypatch):
    last = comm.size - 1
    if comm.rank == last:
        monkeypatch.setattr(problem, "solve", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled(problem, 7, mpi_tmp_path / "s.h5", comm)
    monkeypatch.undo()
    # What the others solved is kept: chunks go to the ranks in turn, and the fourth has one sample.
    problem.solved = 0
    assert sampled(problem, 7, mpi_tmp_path / "s.h5", comm).output.shape[1] == 7
    assert comm.allreduce(problem.solved) == {1: 7, 2: 3, 3: 2}.get(comm.size, 0 if comm.size > 4 else 1)
    if comm.size > 1:
        with pytest.raises(ValueError, match="differs from rank 0 in: n"):
            sampled(problem, 7 + comm.rank, mpi_tmp_path / "t.h5", comm)
