# SPDX-License-Identifier: MIT
"""The code on the pages of docs/ runs: what a page takes as given is prepared here, and trainings are short.

That of the README is in test_readme.py; the numbers of the material of docs/howto/history.md are in
tests/fe2/test_materials.py.
"""

import itertools
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.fem.petsc import assemble_matrix
from petsc4py import PETSc

import coupling
import fe2
import meshes
import spon

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))
from pages import blocks  # noqa: E402

OPTIONS = "spon.EquiNOOptions(r=8, resolved=8, samples=32, width=16, widths=(16, 16), lbfgs=10)"
REFIT_OPTIONS = "spon.equino.RefitOptions(resolved=8, samples=32, lbfgs=10)"
SNAPSHOTS = 'coupling.rve_snapshots(rve, "snapshots.h5"))'
SNAPSHOTS_FINITE = 'coupling.rve_snapshots(rve_finite, "snapshots_finite.h5"))'
SNAPSHOTS_HEAT = 'coupling.rve_snapshots(rve_heat, "snapshots_heat.h5"))'
SNAPSHOTS_3D = 'coupling.rve_snapshots(rve_3d, "snapshots_3d.h5"))'


@pytest.fixture
def run(tmp_path, monkeypatch, trained):
    """Run the Python blocks of a page of docs/ in an empty folder with the model; returns their names."""

    def run(page, *, files=("model.safetensors",), instead=None, before=None, **given):
        monkeypatch.chdir(tmp_path)
        for file in files:
            shutil.copy(trained.path.with_name(file), file)
        names = {"np": np, "torch": torch, "ufl": ufl, "fem": fem, "MPI": MPI, "comm": MPI.COMM_SELF}
        names |= {"meshes": meshes, "fe2": fe2, "spon": spon, "coupling": coupling, "rve": trained.rve, **given}
        code = blocks((DOCS / page).read_text())
        for old, new in (instead or {}).items():
            assert sum(block.count(old) for block in code) == 1, f"{page} no longer has {old!r}"
            code = [block.replace(old, new) for block in code]
        for k, block in enumerate(code):
            names |= (before or {}).get(k, {})
            exec(compile(block, page, "exec"), names)
        return names

    return run


def small_problem(law):
    """A structure of two cells, moved at its end."""
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, n=(2, 1)), law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.005, None))
    problem.record("right")
    return problem


def test_page_mesh(run, tmp_path):
    mesh = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=0.4, order=1)
    write_msh(tmp_path / "rve.msh", mesh, {1: "matrix", 2: "fibre"})
    write_hexagon(tmp_path / "hexagon.msh")
    names = run("howto/mesh.md")
    assert set(names["rve"].domain.names) == {"matrix", "fibre"}
    hexagon = fe2.RVE(names["mesh"], {1: fe2.SaturatingElastic()}, degree=1)
    exact = fe2.UFLLaw(fe2.SaturatingElastic())
    strain = [[0.01, 0.0, 0.02]]
    state = exact.initial_state(1)
    assert hexagon.homogenise(strain).stress == pytest.approx(exact.evaluate(strain, state, state).stress, rel=1e-8)


def write_msh(path, tagged, names):
    """A tagged mesh as a file of gmsh with named groups."""
    mesh = tagged.mesh
    tags = tagged.cell_tags.values
    points, cells = mesh.geometry.x, mesh.geometry.dofmap[tagged.cell_tags.indices]
    data = {"gmsh:physical": [tags], "gmsh:geometrical": [tags]}
    groups = {name: [tag, mesh.topology.dim] for tag, name in names.items()}
    meshio.Mesh(points, [("triangle", cells)], cell_data=data, field_data=groups).write(
        path, file_format="gmsh22", binary=False
    )


def write_hexagon(path, n=3):
    """A regular hexagon whose opposite sides are one apart, of 6 n² triangles, as a file of gmsh."""
    corners = [np.array([np.cos(a), np.sin(a), 0.0]) / 3**0.5 for a in np.pi / 6 + np.pi / 3 * np.arange(7)]
    points, cells = [], []
    for a, b in itertools.pairwise(corners):
        number = {}
        for i in range(n + 1):
            for j in range(n + 1 - i):
                number[i, j] = len(points)
                points.append((i * a + j * b) / n)
        for i, j in number:
            if i + j < n:
                cells.append([number[i, j], number[i + 1, j], number[i, j + 1]])
            if i + j < n - 1:
                cells.append([number[i + 1, j], number[i + 1, j + 1], number[i, j + 1]])
    points, inverse = np.unique(np.round(points, 12), axis=0, return_inverse=True)
    tags = np.ones(len(cells), dtype=int)
    data = {"gmsh:physical": [tags], "gmsh:geometrical": [tags]}
    meshio.Mesh(points, [("triangle", inverse.ravel()[np.array(cells)])], cell_data=data).write(
        path, file_format="gmsh22", binary=False
    )


def test_page_material(run):
    rubber = {1: fe2.LinearElastic(1e4, 1.0), 2: fe2.LinearElastic(4000.0, 1000.0)}
    layers = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    names = run("howto/material.md", domain=layers, materials=rubber)
    assert names["rve"].body.element == "mean dilatation"
    material = names["material"]
    law = fe2.UFLLaw(material)
    state = law.initial_state(1)
    assert law.evaluate([[0.0, 0.0, 0.01]], state, state).stress == pytest.approx(np.array([[0.0, 0.0, 20.0]]))


def test_page_history(run):
    """What was pulled relaxes, in the RVE and in the structure, and the material of the page is a material."""
    names = run(
        "howto/history.md",
        files=(),
        dataclass=dataclass,
        mesh=meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2)),
        fibre=fe2.LinearElastic.from_young_poisson(70_000.0, 0.2),
        structure=meshes.bar(MPI.COMM_SELF, n=(2, 1)),
        **{"__name__": __name__},
    )
    forces = [step.force["right"][0] for step in names["history"]]
    assert forces[-1] < 0.99 * max(forces) and names["history"][-1].physical_time == 10.0
    law, rows = fe2.UFLLaw(names["Maxwell"](4000.0, 1500.0, 10.0)), np.zeros((1, 6))
    short, long = (
        law.evaluate([[0.0, 0.0, 0.01]], rows, rows, step=fe2.TimeStep(0.0, dt)).stress for dt in (0.1, 10.0)
    )
    assert 0 < long[0, 2] < 0.6 * short[0, 2]


def test_page_buckling(run):
    with pytest.warns(fe2.UnstableWarning):
        names = run("howto/buckling.md")
    assert names["limit"].found and 0.005 < -names["limit"].strain[3] < 0.03
    assert not names["later"].unstable[0]


def test_page_load(run):
    names = run("howto/load.md", files=())
    path, tension, turned, h = (names[name] for name in ("path", "tension", "turned", "h"))
    size = abs(path.stress).max()
    assert abs(path.stress[:, 1:]).max() < 1e-9 * size and (path.stress[:, 0] > 0).all()
    assert 0 < names["poisson"] < 1 and (np.diff(path.stress[:, 0]) > 0).all()
    assert abs(tension.stress[1]).max() < 1e-9 * tension.stress[0, 0]
    young = 9 * 170e3 * 80e3 / (3 * 170e3 + 80e3)
    assert names["permanent"] == pytest.approx(0.005 - tension.stress[0, 0] / young, rel=1e-9)
    along = np.array([np.sqrt(3), 1.0]) / 2
    assert turned.stress[0] == pytest.approx(fe2.mandel.vector(10 * np.outer(along, along)), rel=1e-9)
    assert abs(h.stress[:, 1:]).max() < 1e-9 * abs(h.stress).max()
    assert h.stress[0, 0] == pytest.approx(path.stress[9, 0], rel=1e-9)


def test_page_learn(run):
    names = run(
        "howto/learn.md",
        files=(),
        instead={
            f"result = spon.equino.train({SNAPSHOTS}": f"result = spon.equino.train({SNAPSHOTS[:-1]}, {OPTIONS})",
            "mesh_size=0.4": "mesh_size=0.6",
            "sobol(100, 3": "sobol(24, 3",
            f"train({SNAPSHOTS_3D}": f"train({SNAPSHOTS_3D[:-1]}, {OPTIONS})",
            "mesh_size=0.2": "mesh_size=0.4",
            "sobol(128, 2, 0.15": "sobol(32, 2, 0.15",
            f"train({SNAPSHOTS_FINITE}": f"train({SNAPSHOTS_FINITE[:-1]}, {OPTIONS})",
            "sobol(64, 2, 200.0": "sobol(12, 2, 200.0",
            f"train({SNAPSHOTS_HEAT}": f"train({SNAPSHOTS_HEAT[:-1]}, {OPTIONS})",
            f"refit(model, {SNAPSHOTS}": f"refit(model, {SNAPSHOTS[:-1]}, {REFIT_OPTIONS})",
        },
    )
    assert names["law"].strain_size == 3 and names["result_3d"].model.lower.numel() == 6
    assert names["stretched"].strain_size == 4 and names["result_finite"].model.lower.numel() == 3
    assert names["result_heat"].model.strain_size == 2


def test_page_accuracy(run):
    names = run("howto/accuracy.md", files=("model.safetensors", "snapshots.h5"))
    assert names["gaps"].shape == (1000,) and 0 <= names["share"] <= 1


def test_page_varying(run):
    grid = meshes.from_labels(np.tile([[1, 2], [2, 1]], (4, 4)), MPI.COMM_SELF)
    matrix, fibre = fe2.SaturatingElastic(), fe2.LinearElastic.from_young_poisson(70_000.0, 0.2)
    tags = np.random.default_rng(0).integers(1, 3, (4, 64)).astype(np.int32)
    names = run(
        "howto/varying.md",
        instead={"(random_tags))": "(random_tags)), spon.TrainingOptions(steps=2, validation=0.5)"},
        rve=fe2.RVE(grid, {1: matrix, 2: fibre}, degree=1),
        random_tags=tags,
        tags=tags[:2],
        labels=tags.reshape(4, 8, 8),
        strains=np.full((4, 3), 0.01),
        matrix=matrix,
        fibre=fibre,
    )
    assert names["response"].stress.shape == (4, 3)


def test_page_operators(run):
    domain = dmesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    V = fem.functionspace(domain, ("P", 1))
    edge = dmesh.locate_entities_boundary(domain, 1, lambda x: np.full(x.shape[1], True))
    bc = fem.dirichletbc(0.0, fem.locate_dofs_topological(V, 1, edge), V)
    f, u, k = fem.Function(V), fem.Function(V), fem.Function(V)
    v, w = ufl.TestFunction(V), ufl.TrialFunction(V)
    samples = torch.from_numpy(np.random.default_rng(0).standard_normal((len(f.x.array), 8)))

    def draw(rng):
        f.x.array[:] = rng.standard_normal(len(f.x.array))

    def solve():
        u.x.array[:] = f.x.array

    def conduction(values):
        k.x.array[:] = values
        A = assemble_matrix(fem.form(k * ufl.inner(ufl.grad(w), ufl.grad(v)) * ufl.dx), bcs=[bc])
        A.assemble()
        return A, torch.from_numpy(k.x.array[:, None].copy())

    pair = conduction(1.0)
    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setOperators(pair[0])
    names = run(
        "howto/operators.md",
        instead={
            "spon.TrainingOptions(steps=2000)": "spon.TrainingOptions(steps=2)",
            "loss=residual.relative)": "loss=residual.relative, options=spon.TrainingOptions(steps=2))",
            "solve, 1000,": "solve, 8,",
            "data.inputs, data.output)": "data.inputs, data.output, spon.TrainingOptions(steps=2))",
            "train_preconditioner(known)": "train_preconditioner(known, spon.TrainingOptions(steps=2))",
        },
        before={
            0: {"V": V, "bc": bc, "f": samples, "u": samples, "forcing": f},
            1: {"u": u, "f": f, "v": v, "forces": samples},
            2: {"draw": draw, "solve": solve},
            3: {"pairs": [pair], "ksp": ksp, "conductivity": k},
        },
    )
    assert isinstance(names["solution"], fem.Function)
    x, b = pair[0].createVecs()
    b.set(1.0)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0


def test_page_parallel(run):
    names = run("howto/parallel.md", problem=small_problem(fe2.UFLLaw(fe2.SaturatingElastic())))
    assert len(names["problem"].history) == 20


def test_page_gpu(run, trained):
    """On a processor: there, too, the same arguments."""
    run("howto/gpu.md", instead={'device="cuda"': 'device="cpu"'}, model=trained.model)


def test_page_export(run, trained):
    u = fem.Function(fem.functionspace(dmesh.create_unit_square(MPI.COMM_SELF, 2, 2), ("P", 1, (2,))))
    law = coupling.SurrogateLaw(trained.model)
    given = {"FEMExternalOperator": lambda *arguments, **options: options}  # DOLFINx 0.9 has none
    names = run("howto/export.md", model=trained.model, law=law, n=3, u=u, Q=None, **given)
    assert names["respond"].state.shape[0] == 3


def test_page_restart(run, tmp_path):
    steel = fe2.J2Voce(160_000.0, 80_000.0, yield_stress=200.0, saturation=400.0, rate=10.0)
    V = fem.functionspace(dmesh.create_unit_square(MPI.COMM_SELF, 2, 2), ("P", 1, (2,)))
    u, scalar = fem.Function(V), fem.functionspace(V.mesh, ("P", 1))
    u.interpolate(lambda x: 0.01 * x[:2])
    sigma = fe2.QuadratureLaw(fe2.UFLLaw(steel), u)
    sigma.update()
    sigma.commit()
    yielded = [region.state.copy() for region in sigma.regions]
    names = run(
        "howto/restart.md",
        instead={"steps=200,": "steps=4,"},
        before={
            0: {"problem": small_problem(fe2.UFLLaw(steel))},
            1: {"problem": small_problem(fe2.UFLLaw(steel))},
            2: dict.fromkeys("fu", torch.from_numpy(np.random.default_rng(0).standard_normal((9, 8)))),
            3: {"u": u, "sigma": sigma},
        },
        network=spon.OperatorNetwork(input=scalar, output=scalar),
    )
    assert (tmp_path / "results" / "run" / "result.json").exists()
    assert all(np.any(rows) for rows in yielded)
    assert all(np.array_equal(r.guess, rows) for r, rows in zip(names["sigma"].regions, yielded, strict=True))


def test_page_umat(run, tmp_path, trained):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")

    run("howto/umat.md")
    page = (DOCS / "howto" / "umat.md").read_text()
    (tmp_path / "main.c").write_text(blocks(page, "c")[0])
    [command] = re.findall(r"^    (cc .*)$", page, re.M)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    done = subprocess.run(["./main"], capture_output=True, text=True, check=True, cwd=tmp_path)
    respond = coupling.PointLaw(coupling.SurrogateLaw(trained.model), 1)
    stress, _ = respond(np.array([[0.01, 0.0, 0.02]]))
    assert [float(x) for x in done.stdout.split()] == pytest.approx(stress[0], rel=1e-12)


def test_page_certificate(run):
    c = run("explanation/certificate.md", strains=np.array([[0.01, 0.0, 0.02]]))["c"]
    assert float(c.lower) <= float(c.upper)
