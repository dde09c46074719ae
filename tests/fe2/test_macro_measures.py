# SPDX-License-Identifier: MIT
"""Structures at finite strain and in conduction: closed forms, patch tests, ranks, restarts, files, own scripts."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("meshio")

import meshio
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import exterior_facet_indices
from petsc4py import PETSc
from scipy.integrate import solve_bvp, trapezoid
from scipy.optimize import brentq
from test_output import read

import fe2
import meshes

SOFT, STIFF = (9.0, 2.0), (60.0, 45.0)


def rubber():
    cell = meshes.laminate((0.4, 0.6), MPI.COMM_SELF, cells=(2, 1))
    return fe2.ExactLaw(fe2.RVE(cell, {1: fe2.NeoHookean(*SOFT), 2: fe2.NeoHookean(*STIFF)}, degree=1))


def conductor():
    """A laminate with k = 1 and 5: 0.4 + 0.6 · 5 = 3.4 along the layers, 1 / (0.4 + 0.6 / 5) across them."""
    cell = meshes.laminate((0.4, 0.6), MPI.COMM_SELF, cells=(2, 1))
    return fe2.ExactLaw(fe2.RVE(cell, {1: fe2.Conductive(1.0), 2: fe2.Conductive(5.0)}, degree=1))


def pulled(comm, law):
    """A rubber bar, bent by a traction."""
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law, degree=1)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.4, None))
    problem.traction("top", (0.0, -0.15))
    problem.record("right")
    return problem


def heated(comm, law):
    """A slab with a source, held at zero at the left, with a flux into it at the top."""
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law, degree=1)
    problem.prescribe("left", 0.0)
    problem.prescribe("right", [2.0])
    problem.traction("top", 0.3)
    problem.body_force(-0.5)
    problem.record("right")
    return problem


CASES = {"displacement gradient": (rubber, pulled), "gradient": (conductor, heated)}


@pytest.fixture(params=CASES)
def case(request):
    law, problem = CASES[request.param]
    return law(), problem


def by_place(problem):
    """Values in the order of their nodes' places, the same on all ranks."""
    n = problem.V.dofmap.index_map.size_local
    x = problem.V.tabulate_dof_coordinates()[:n]
    rows = np.hstack([x, problem.u.x.array[: n * problem.V.dofmap.index_map_bs].reshape(n, -1)])
    rows = np.concatenate(problem.comm.allgather(rows))
    return rows[np.lexsort(rows[:, :3].round(9).T)][:, 3:]


# Closed forms.


@pytest.mark.mpi
@pytest.mark.parametrize("stretch", [0.6, 2.5])
def test_a_bar_in_uniaxial_tension(comm, stretch):
    """Plane stress: the stretch λₜ across obeys μ (λₜ² − 1) + λ' ln(λ λₜ²) = 0, and then P₁₁ A is the force."""
    bulk, shear = SOFT
    first = bulk - 2 * shear / 3
    t = brentq(lambda t: shear * (t**2 - 1) + first * np.log(stretch * t**2), 0.1, 5.0, xtol=1e-15)
    p = shear * (stretch - 1 / stretch) + first * np.log(stretch * t**2) / stretch
    domain = meshes.bar(comm, size=(3.0, 0.5), n=(3, 2))
    problem = fe2.MacroProblem(domain, fe2.UFLLaw(fe2.NeoHookean(*SOFT), plane="stress"))
    problem.prescribe("left", (0.0, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("right", (3.0 * (stretch - 1), None))
    problem.record("right")
    problem.record("top")
    (step,) = problem.solve(steps=1, log=None)
    assert step.force["right"][0] == pytest.approx(0.5 * p, rel=1e-9)
    assert step.displacement["top"][1] == pytest.approx(0.5 * (t - 1), rel=1e-9)


def test_a_slender_strip_is_the_elastica():
    """A cantilever under a dead force across its end, in a few steps of few iterations.

    With α = P L²/(E' I), θ'' + α cos θ = 0 along the arc from 0 to 1, θ(0) = θ'(1) = 0 (Bisshopp & Drucker, Q. Appl.
    Math. 3, 1945, 272–275; two thirds of the length at α = 4). E' = E/(1 − ν²) in plane strain. At a slenderness of 20
    bending strains are 10 % and shear some 1/20² of the deflection, for which 1 % is allowed.
    """
    bulk, shear, length, alpha = 2.0, 0.5, 20.0, 4.0
    poisson = (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear))
    stiffness = 2 * shear * (1 + poisson) / (1 - poisson**2) / 12
    force = alpha * stiffness / length**2
    problem = fe2.MacroProblem(
        meshes.bar(MPI.COMM_SELF, size=(length, 1.0), n=(20, 1)), fe2.UFLLaw(fe2.NeoHookean(bulk, shear)), degree=2
    )
    problem.prescribe("left", (0.0, 0.0))
    problem.traction("right", (0.0, force))
    problem.record("right")
    history = problem.solve(steps=8, log=None)
    assert len(history) <= 10 and max(len(step.residuals) for step in history) <= 12
    arc = np.linspace(0, 1, 200)
    bent = solve_bvp(
        lambda s, y: [y[1], -alpha * np.cos(y[0])], lambda a, b: [a[0], b[1]], arc, [arc, 1 - arc], tol=1e-8
    )
    assert bent.success
    theta = bent.sol(arc)[0]
    expected = length * np.array([trapezoid(np.cos(theta), arc) - 1, trapezoid(np.sin(theta), arc)])
    assert np.allclose(history[-1].displacement["right"], expected, rtol=0, atol=0.01 * length)


@pytest.mark.mpi
def test_a_dead_load_keeps_its_direction(comm):
    """A traction is a force per undeformed area, P n = t. With P = 2 H (no material, as it is not objective) the top
    moves by t/2, at any size."""

    class Spring:
        strain_size, state_size, measure = 4, 0, fe2.DISPLACEMENT_GRADIENT

        def initial_state(self, n):
            return np.zeros((n, 0))

        def evaluate(self, strain, state, guess, comm):
            return fe2.Response(2 * strain, np.tile(2 * np.eye(4), (len(strain), 1, 1)), state)

    problem = fe2.MacroProblem(meshes.bar(comm, size=(2.0, 1.0), n=(3, 2)), Spring())
    problem.prescribe("bottom", (0.0, 0.0))
    problem.traction("top", (2.4, 0.6))
    problem.record("top")
    (step,) = problem.solve(steps=1, log=None)
    assert np.allclose(step.displacement["top"], [1.2, 0.3], rtol=1e-10)
    assert np.allclose(step.force["top"], [4.8, 1.2], rtol=1e-9)


@pytest.mark.mpi
@pytest.mark.parametrize("normal", [0, 1])
def test_conduction_in_a_slab(comm, normal):
    """−k T'' = q between T = 0 and 2: T = 2 x/L + q x (L − x)/(2 k), exact at degree 2; the flux at the right end."""
    cell = meshes.laminate((0.4, 0.6), MPI.COMM_SELF, cells=(2, 2), normal=normal)
    law = fe2.ExactLaw(fe2.RVE(cell, {1: fe2.Conductive(1.0), 2: fe2.Conductive(5.0)}, degree=1))
    k = (1 / (0.4 + 0.6 / 5), 3.4)[normal]
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(3, 2)), law, degree=2)
    problem.prescribe("left", 0.0)
    problem.prescribe("right", 2.0)
    problem.body_force(0.7)
    problem.record("right")
    (step,) = problem.solve(steps=1, log=None)
    x = problem.V.tabulate_dof_coordinates()[:, 0]
    exact = 2 * x / 4 + 0.7 * x * (4 - x) / (2 * k)
    assert abs(problem.u.x.array - exact).max(initial=0.0) < 1e-10
    # The nodes at the end bear the flux k T'(L), and a sixth of the source in the last of three elements.
    assert step.displacement["right"] == pytest.approx([2.0], rel=1e-12)
    assert step.force["right"][0] == pytest.approx(k * (2 / 4 - 0.7 * 4 / (2 * k)) + 0.7 * 4 / 3 / 6, rel=1e-9)
    flux = problem.sigma.stresses()
    at = problem.sigma.coordinates()[:, 0]
    assert np.allclose(flux, np.column_stack([k / 2 + 0.7 * (2 - at), 0 * at]), rtol=0, atol=1e-10)


@pytest.mark.mpi
def test_conduction_along_a_nonlinear_bar(comm):
    """Flux (1 + g²) g is constant along a bar with a flux into its end: g is the root, T = g x."""
    law = fe2.UFLLaw(fe2.Energy(lambda g: ufl.inner(g, g) / 2 + ufl.inner(g, g) ** 2 / 4, measure="gradient"))
    problem = fe2.MacroProblem(meshes.bar(comm, size=(2.0, 1.0), n=(3, 1)), law)
    problem.prescribe("left", 0.0)
    problem.traction("right", 10.0)
    problem.record("right")
    (step,) = problem.solve(steps=1, log=None)
    assert step.displacement["right"] == pytest.approx([2.0 * 2.0], rel=1e-10)  # 2 + 2³ = 10


@pytest.mark.mpi
def test_a_structure_turned_inside_out_is_refused(comm):
    problem = fe2.MacroProblem(meshes.bar(comm, size=(2.0, 1.0), n=(2, 1)), fe2.UFLLaw(fe2.NeoHookean(*SOFT)))
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (-3.0, 0.0))
    with pytest.raises(fe2.StepFailed, match=r"det F = -\S+ at x = .* turns the point inside out"):
        problem.solve(steps=1, max_cuts=1, log=None)
    assert abs(problem.u.x.array).max(initial=0.0) < 3.0  # back at the last accepted step


# Scripts of the user.


def newton(sigma, u, v, bcs):
    """Newton's method of a script with its own residual; returns the internal forces at the end."""
    du = ufl.TrialFunction(u.function_space)
    stress = ufl.inner(sigma.stress, sigma.measure.of(v)) * sigma.dx
    residual, jacobian = fem.form(stress), fem.form(sigma.derivative(stress, du))
    for bc in bcs:
        bc.set(u.x.array)
    u.x.scatter_forward()
    for _ in range(15):
        sigma.update()
        b = fem_petsc.assemble_vector(residual)
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        forces = b.array.copy()
        fixed = np.concatenate([bc.dof_indices()[0] for bc in bcs])
        b.array[fixed[fixed < len(forces)]] = 0.0
        if b.norm() < 1e-10:
            return forces
        A = fem_petsc.assemble_matrix(jacobian, bcs)
        A.assemble()
        ksp = PETSc.KSP().create(A.comm)
        ksp.setOperators(A)
        ksp.setType("preonly")
        ksp.getPC().setType("lu")
        ksp.getPC().setFactorSolverType("mumps")
        step = fem.Function(u.function_space)
        ksp.solve(b, step.x.petsc_vec)
        step.x.scatter_forward()
        u.x.array[:] -= step.x.array
        for o in (b, A, ksp):
            o.destroy()
    raise RuntimeError("no convergence")


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("measure", CASES)
def test_patch_by_an_own_script(comm, measure, degree):
    """A displacement H x, or a temperature g·x, at the boundary of distorted cells is the one inside, with the law's
    stress at each point; at finite strain with a turn by 70°, and for a turn alone without forces."""
    law = CASES[measure][0]()
    scalar = law.measure.scalar
    domain = meshes.bar(comm, size=(2.0, 1.0), n=(4, 3))
    x = domain.mesh.geometry.x
    x[:, :2] += 0.04 * np.sin(5 * x[:, :2]) * np.cos(3 * x[:, [1, 0]])
    q = np.array([[np.cos(1.2), -np.sin(1.2)], [np.sin(1.2), np.cos(1.2)]])
    gradients = [np.array([[0.3, -0.7]])] if scalar else [q - np.eye(2), q @ [[1.3, 0.2], [0.1, 0.8]] - np.eye(2)]
    for h in gradients:
        V = fem.functionspace(domain.mesh, ("Lagrange", degree, () if scalar else (2,)))
        u, exact = fem.Function(V), fem.Function(V)
        exact.interpolate(lambda x, h=h: (h @ x[:2])[0] if scalar else h @ x[:2])
        domain.mesh.topology.create_connectivity(1, 2)
        dofs = fem.locate_dofs_topological(V, 1, exterior_facet_indices(domain.mesh.topology))
        # From the exact gradient with a disturbance inside, which Newton's method must take away.
        u.x.array[:] = exact.x.array * 1.0 + 1e-3 * np.sin(np.arange(u.x.array.size))
        u.x.scatter_forward()
        sigma = fe2.QuadratureLaw(law, u)
        forces = newton(sigma, u, ufl.TestFunction(V), [fem.dirichletbc(exact, dofs)])
        assert abs(u.x.array - exact.x.array).max(initial=0.0) < 1e-9
        expected = law.rve.homogenise(h.ravel()).stress
        assert abs(sigma.stresses() - expected).max(initial=0.0) < 1e-8 * max(abs(expected).max(), 1.0)
        if not scalar and h is gradients[0]:
            assert abs(forces).max(initial=0.0) < 1e-9


# Ranks, restarts, files.


@pytest.mark.mpi
def test_results_do_not_depend_on_the_number_of_ranks(case, comm):
    law, problem = case
    spread, alone = problem(comm, law), problem(MPI.COMM_SELF, law)
    for each in (spread, alone):
        each.solve(steps=2, log=None)
    ours, reference = by_place(spread), by_place(alone)
    assert abs(ours - reference).max() < 1e-10 * abs(reference).max()
    force = [np.array(each.history[-1].force["right"]) for each in (spread, alone)]
    assert abs(force[0] - force[1]).max() < 1e-9 * abs(force[1]).max()


@pytest.mark.mpi
def test_a_restart_is_the_same_to_the_last_bit(case, comm, mpi_tmp_path):
    law, problem = case
    options = {"steps": 4, "fields": True, "log": None}
    runs = [problem(comm, law) for _ in range(3)]
    runs[0].solve(folder=mpi_tmp_path / "whole", **options)
    runs[1].solve(folder=mpi_tmp_path / "broken", until=0.5, **options)
    runs[2].solve(folder=mpi_tmp_path / "broken", restart=True, **options)
    assert np.array_equal(runs[2].u.x.array, runs[0].u.x.array)
    assert runs[2].history[-1].force == runs[0].history[-1].force
    whole, broken = (read(mpi_tmp_path / name / "fields.xdmf") for name in ("whole", "broken"))
    assert whole[0] == broken[0] == [0.25, 0.5, 0.75, 1.0]
    for a, b in zip(whole[3] + whole[4], broken[3] + broken[4]):
        assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


NAMES = {
    "displacement gradient": (
        "displacement",
        [f"{name}_{ij}" for name in ("stress", "displacement_gradient") for ij in ("xx", "xy", "yx", "yy")],
    ),
    "gradient": ("potential", ["flux_x", "flux_y", "gradient_x", "gradient_y"]),
}


@pytest.mark.mpi
def test_fields_and_micro_fields_are_read_by_meshio(case, comm, mpi_tmp_path):
    law, problem = case
    field, names = NAMES[law.measure.name]
    structure = problem(comm, law)
    structure.solve(steps=1, folder=mpi_tmp_path, fields=True, log=None)
    points = structure.write_micro(mpi_tmp_path, [[0.1, 0.1], [3.9, 0.9]])
    comm.barrier()
    _, nodes, _, (at_node,), (in_cell,) = read(mpi_tmp_path / "fields.xdmf")
    assert set(at_node) == {field} and set(in_cell) == set(names)
    assert at_node[field].shape == ((len(nodes),) if law.measure.scalar else (len(nodes), 3))
    components = law.measure.components(2)
    found = np.unique(np.round(at_node[field].reshape(len(nodes), -1)[:, :components], 9), axis=0)
    assert np.allclose(found, np.unique(np.round(by_place(structure), 9), axis=0), rtol=0, atol=1e-8)
    for number, point in enumerate(points, start=1):
        file = meshio.read(mpi_tmp_path / f"micro-{number}.xdmf")
        cells = {name: values[0] for name, values in file.cell_data.items()}
        assert set(file.point_data) == {field} and set(cells) == {"tag", *names}
        assert file.point_data[field].ndim == (1 if law.measure.scalar else 2)
        share = np.array([0.4, 0.6])[cells["tag"] - 1]
        means = [np.average(cells[name], weights=share) for name in names]
        assert np.allclose(means, [*point.stress, *point.strain], rtol=0, atol=1e-9 * abs(point.stress).max())
