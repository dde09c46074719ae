# SPDX-License-Identifier: MIT
"""How RVE problems are solved: many at once as each by itself, non-symmetric ones, sub-steps, and what fails."""

import warnings

import numpy as np
import pytest
import ufl
from mpi4py import MPI
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

import fe2
import meshes
from fe2.condensed import conjugate_directions

STIFF = fe2.LinearElastic(200.0, 90.0)
MATRICES = {
    "saturating": fe2.SaturatingElastic(bulk=100.0, a1=2.0, a2=0.02),
    "plastic": fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.4, hardening=2.0),
    "implicit": fe2.RambergOsgood(bulk=100.0, shear=40.0, reference=0.5, alpha=0.4, exponent=12),
}
STRAINS, LATER = np.random.default_rng(3).uniform(-0.03, 0.03, (2, 7, 3))


def cell(size=0.22):
    return meshes.rve([meshes.Circle((0.0, 0.0), 0.3)], MPI.COMM_SELF, mesh_size=size)


def rve(matrix, **options):
    return fe2.RVE(cell(), {meshes.MATRIX: matrix, meshes.INCLUSION: STIFF}, **options)


@pytest.mark.parametrize("symmetric", [True, False])
def test_systems_solved_together_have_each_its_own_solution(symmetric):
    rng = np.random.default_rng(0)
    m, n = 5, 30
    noise = 0.05 * rng.standard_normal((m, n, n))
    a = 4 * np.eye(n) + (noise + noise.swapaxes(1, 2) if symmetric else noise)
    b, inverse = rng.standard_normal((m, n)), np.linalg.inv(a.mean(axis=0))
    x, r = np.zeros((m, n)), b.copy()
    used = conjugate_directions(
        lambda v, rows: np.einsum("mij,mj->mi", a[rows], v), lambda v: v @ inverse.T, x, r, np.full(m, 1e-11),
        symmetric, 50,
    )  # fmt: skip
    assert np.allclose(x, np.linalg.solve(a, b[..., None])[..., 0], rtol=0, atol=1e-11)
    assert np.allclose(r, b - np.einsum("mij,mj->mi", a, x), rtol=0, atol=1e-12)
    assert (used > 1).all() and (used < 30).all()


def test_an_indefinite_system_stops_itself_and_not_its_neighbours():
    a = np.stack([np.diag([1.0, 2.0, 3.0]), np.diag([-1.0, -2.0, -3.0]), np.diag([3.0, 1.0, 1.0])])
    x, r = np.zeros((3, 3)), np.ones((3, 3))
    conjugate_directions(
        lambda v, rows: np.einsum("mij,mj->mi", a[rows], v), np.copy, x, r, np.full(3, 1e-12), True, 20
    )
    assert np.allclose(x[[0, 2]], 1 / np.diagonal(a[[0, 2]], axis1=1, axis2=2))
    assert (r[1] == 1.0).all() and (x[1] == 0.0).all()


@pytest.mark.parametrize("boundary", ["periodic", "linear displacement", "uniform traction"])
@pytest.mark.parametrize("name", MATRICES)
def test_many_points_at_once_as_one_by_one(name, boundary):
    """In groups of three (so that one is left over), of a first and then a second step."""
    problem = rve(MATRICES[name], boundary=boundary)
    problem.group = 3
    first = problem.homogenise(STRAINS)
    second = problem.homogenise(LATER, first.state)
    for k in range(len(STRAINS)):
        alone = problem.homogenise(STRAINS[k])
        again = problem.homogenise(LATER[k], alone.state)
        for together, single in ((first, alone), (second, again)):
            for name in ("stress", "tangent", "energy"):
                a, b = getattr(together, name)[k], getattr(single, name)[0]
                assert np.allclose(a, b, rtol=0, atol=1e-9 * abs(b).max())


def test_a_tangent_without_symmetry():
    """σ = K tr(ε) (1 + β ε₁₁) I + 2G dev ε derives from no potential; the tangent against central differences."""
    odd = fe2.Stress(
        lambda e, K, G, b: K * ufl.tr(e) * (1 + b * e[0, 0]) * ufl.Identity(3) + 2 * G * ufl.dev(e),
        parameters={"K": 100.0, "G": 40.0, "b": 8.0},
    )
    problem = rve(odd)
    h = 1e-5
    tangents = problem.homogenise(STRAINS[:3]).tangent
    for k, tangent in enumerate(tangents):
        steps = h * np.vstack([np.eye(3), -np.eye(3)])
        stress = problem.homogenise(STRAINS[k] + steps).stress
        differences = (stress[:3] - stress[3:]).T / (2 * h)
        assert np.allclose(tangent, differences, rtol=0, atol=1e-7 * abs(tangent).max())
        assert abs(tangent - tangent.T).max() > 1e-3 * abs(tangent).max()


@pytest.mark.parametrize(
    ("name", "strain"),
    [("saturating", [0.2, -0.12, 0.24]), ("plastic", [0.004, -0.004, 0.0]), ("implicit", [0.016, -0.016, 0.0])],
)
def test_sub_steps_lead_to_the_solution_of_the_whole_step(name, strain):
    """With few Newton iterations allowed the way must be divided; the materials still see one step from their state."""
    whole, divided = (
        rve(MATRICES[name]),
        rve(MATRICES[name], solver=fe2.SolverOptions(max_iterations=5, max_substeps=64)),
    )
    before = whole.homogenise([0.002, -0.001, 0.001])
    a, b = whole.homogenise(strain, before.state), divided.homogenise(strain, before.state)
    assert b.iterations[0] > a.iterations[0] > 5
    assert np.allclose(a.stress, b.stress, rtol=0, atol=1e-9 * abs(a.stress).max())
    assert np.allclose(a.tangent, b.tangent, rtol=0, atol=1e-8 * abs(a.tangent).max())
    assert np.allclose(a.state, b.state, rtol=0, atol=1e-9)


def test_a_failure_names_strain_and_attempts_and_spares_the_other_points():
    problem = rve(MATRICES["saturating"], solver=fe2.SolverOptions(max_iterations=2, max_substeps=2))
    strains = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.7], [0.0, 0.0, 0.0]])
    report = problem.homogenise(strains, on_failure="report")
    assert np.isnan(report.stress[1]).all() and np.isfinite(report.stress[[0, 2]]).all()
    (failure,) = report.failures
    assert failure.point == 1 and (failure.strain == strains[1]).all()
    for expected in ("from the guess", "in 1 sub-steps", "in 2 sub-steps", "no convergence in 2 iterations"):
        assert expected in str(failure)
    with pytest.raises(fe2.NotConverged, match=r"point 1, strain \[0.5 0.  0.7\]"):
        problem.homogenise(strains)


def test_a_material_that_breaks_is_told():
    square_root = fe2.Energy(lambda e: 50 * ufl.inner(e, e) - ufl.sqrt(0.01 - e[0, 0]))
    with pytest.raises(fe2.NotConverged, match=r"the material returned a stress that is not finite \(residuals nan"):
        rve(square_root).homogenise([0.05, 0.0, 0.0])


def square(e):
    return ufl.inner(e, e)


@pytest.mark.parametrize(
    ("density", "what"), [(lambda e: ufl.sqrt(square(e)), "stress"), (lambda e: square(e) ** 1.5, "tangent")]
)
def test_a_norm_at_zero_strain_is_named_and_spares_the_other_points(density, what):
    """The derivative of √(e:e) is 0/0 at e = 0, the second one of (e:e)^(3/2) as well."""
    problem = rve(fe2.Energy(lambda e: 50 * square(e) + density(e)))
    strains = [[0.01, 0.0, 0.0], [0.0, 0.0, 0.0]]
    h = problem.homogenise(strains, on_failure="report")
    (failure,) = h.failures
    assert f"{what} that is not finite, at zero strain: the derivative of a root, norm or power" in str(failure)
    assert "sqrt(inner(e, e) + 1e-30)" in str(failure) and len(failure.attempts) == 2
    assert np.allclose(h.stress[0], problem.homogenise(strains[0]).stress[0], rtol=1e-9)


# Energies that are differences of large numbers.


def lossy(e, mu, lam):
    log_j = ufl.ln(ufl.det(ufl.Identity(3) + 2 * e)) / 2
    return mu * (ufl.tr(e) - log_j) + lam / 2 * log_j**2


MU, LAM = 400.0, 600.0
LOSSY = fe2.Energy(lossy, parameters={"mu": MU, "lam": LAM})


def test_an_energy_that_loses_digits_is_solved_to_its_rounding():
    """ln J = tr e − e:e + ..., so that the law is linear elasticity with the constants λ and μ at small strains.

    Its stress is a difference of numbers as large as μ, and so has an absolute error of a few roundings of it, and
    a relative one of the size of the strain from the terms of second order.
    """
    problem, direction = rve(LOSSY), np.array([1.0, -0.3, 0.5])
    linear = rve(fe2.LinearElastic(LAM + 2 / 3 * MU, MU)).homogenise(direction)
    for size in (1e-5, 1e-6, 1e-8, 1e-10, 1e-12):
        h = problem.homogenise(size * direction)
        error = 10 * size + 20 * np.finfo(float).eps / size
        assert np.allclose(h.stress[0] / size, linear.stress[0], rtol=0, atol=error * abs(linear.stress).max())
        assert np.allclose(h.tangent, linear.tangent, rtol=0, atol=100 * size * abs(linear.tangent).max() + 1e-9)
        assert h.iterations[0] <= 6
        assert 1e-17 / size < h.residual[0] < 1e-15 / size  # what was reached is told
    assert problem.homogenise(1e-2 * direction).residual[0] <= 1e-11


@pytest.mark.parametrize("size", [1e-2, 1e-8])
def test_what_is_not_solved_is_not_taken_for_rounding(size):
    """The stress jumps where e₁₁ passes its mean, so that there is no equilibrium; residuals stay near the jump."""
    jump = fe2.Energy(lambda e: 50 * square(e) + ufl.conditional(ufl.gt(e[0, 0], size), 20 * size * e[0, 0], 0))
    (failure,) = rve(jump).homogenise([size, 0.0, 0.0], on_failure="report").failures
    assert "the residual has not been halved in 8 iterations" in str(failure)


# Softening.

G, SCALE = 500.0, 0.033


def soft(e, K):
    d = ufl.dev(e)
    return (K / 2 * ufl.tr(e) ** 2 + G * square(d)) * ufl.exp(-square(d) / SCALE**2)


SOFT = fe2.Energy(soft, parameters={"K": 1000.0})
SHEARS = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])


def shear_stress(x):
    """dψ/dx of ψ = G x² exp(−x²/e₀²), and its slope; d:d = x² in pure shear with the Mandel component x."""
    y = (x / SCALE) ** 2
    return 2 * G * x * (1 - y) * np.exp(-y), 2 * G * (1 - 5 * y + 2 * y**2) * np.exp(-y)


def test_past_its_peak_a_homogeneous_cell_answers_as_its_material(capfd):
    """The stiffness is indefinite there, of each and of the mean; with the stress, the libraries are silent."""
    cell = meshes.from_labels(np.ones((3, 3), dtype=int), MPI.COMM_SELF)
    h = fe2.RVE(cell, {1: SOFT}).homogenise(np.outer(SHEARS, [0.0, 0.0, 1.0]))
    stress, slope = shear_stress(SHEARS)
    assert (slope[0] > 0) and (slope[1:4] < 0).all()
    assert np.allclose(h.stress[:, 2], stress, rtol=0, atol=1e-10 * G * SCALE)
    assert np.allclose(h.tangent[:, 2, 2], slope, rtol=0, atol=1e-8 * G)
    assert "".join(capfd.readouterr()) == ""


def test_a_layer_past_its_peak_beside_a_stiff_one():
    """In shear across them both carry the same stress: f(x₁) = 2 G₂ x₂ with x₁ + x₂ = 2 x, solved by bisection."""
    stiff = fe2.LinearElastic(bulk=3000.0, shear=2000.0)
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(4, 2))
    x = 0.012
    low, high = 0.0, 2 * x
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if shear_stress(middle)[0] < 2 * 2000.0 * (2 * x - middle) else (low, middle)
    assert shear_stress(low)[1] < -10  # which is past the peak
    h = fe2.RVE(cell, {1: SOFT, 2: stiff}).homogenise([0.0, 0.0, x])
    assert h.iterations[0] > 1
    assert np.isclose(h.stress[0, 2], shear_stress(low)[0], rtol=1e-9)


@pytest.fixture(scope="module")
def softening():
    """A problem with strains that it can be solved for and others, and what each gives by itself."""
    problem = fe2.RVE(cell(0.35), {meshes.MATRIX: SOFT, meshes.INCLUSION: STIFF})
    strains = np.vstack([STRAINS[:2] / 10, np.outer([0.003, 0.02, 0.05], [0.0, 0.0, 1.0])])
    alone = [problem.homogenise(strain, on_failure="report") for strain in strains]
    assert [len(h.failures) for h in alone] == [0, 0, 0, 1, 1]
    return problem, strains, alone


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.sampled_from([2, 32]))
def test_no_point_depends_on_its_neighbours(softening, order, group):
    problem, strains, alone = softening
    problem.group = group
    together = problem.homogenise(strains[order], on_failure="report")
    assert [f.point for f in together.failures] == [i for i, k in enumerate(order) if k >= 3]
    for name in ("stress", "tangent", "energy"):
        for a, k in zip(getattr(together, name), order):
            b = getattr(alone[k], name)[0]
            assert np.isnan(a).all() if k >= 3 else abs(a - b).max() <= 1e-9 * abs(b).max()


def test_the_work_on_a_hopeless_point_is_bounded(softening):
    problem, strains, alone = softening
    for h in alone[3:]:
        assert h.iterations[0] < 100
        assert 3 <= len(h.failures[0].attempts) <= 6  # the guess, and 1, 2, 4, 8, 16 sub-steps
    # CHOLMOD stops where a stiffness is not positive definite; MUMPS, in PETSc without it, has a factor there, too.
    reason = "CHOLMOD" if PETSc.Sys.hasExternalPackage("cholmod") else "not positive definite"
    assert reason in str(alone[4].failures[0]) and "sub-steps, at " in str(alone[4].failures[0])
    with pytest.raises(fe2.NotConverged) as failed:
        problem.homogenise(strains[[0, 4, 4, 4, 4]])
    assert len(failed.value.failures) == 1  # the others are not tried when one is enough


# What the stiffness at rest tells.


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("boundary", ["periodic", "uniform traction"])
def test_an_energy_of_the_wrong_sign_is_refused(degree, boundary):
    wrong = fe2.Energy(lambda e: -50 * square(e))
    where = r'at x = \[.*\] alone lowers the energy .* Energy of tag 1 \("matrix"\): is the sign'
    with pytest.raises(ValueError, match=where):
        flat = meshes.rve([meshes.Circle((0.0, 0.0), 0.3)], MPI.COMM_SELF, mesh_size=0.22, order=1)
        fe2.RVE(flat, {1: wrong, 2: STIFF}, degree=degree, boundary=boundary)


def test_stiffness_may_be_zero_at_rest_or_negative_in_bulk():
    """G = 50 and K = −40 > −4/3 G is elliptic; (e:e)² has no stiffness at rest."""
    strain = [0.01, 0.0, 0.0]
    negative = fe2.Energy(lambda e: 50 * square(ufl.dev(e)) - 20 * ufl.tr(e) ** 2)
    assert np.isfinite(rve(negative).homogenise(strain).stress).all()
    power = fe2.RVE(meshes.from_labels(np.ones((2, 2), int), MPI.COMM_SELF), {1: fe2.Energy(lambda e: square(e) ** 2)})
    h = power.homogenise([strain, [0.0, 0.0, 0.0]])
    assert np.allclose(h.stress, [[4e-6, 0.0, 0.0], [0.0, 0.0, 0.0]], rtol=0, atol=1e-16)
    assert (h.tangent[1] == 0.0).all()


@pytest.mark.parametrize(
    ("material", "degree", "plane", "warned"),
    [
        (fe2.LinearElastic.from_young_poisson(10.0, 0.4999), 1, "strain", True),
        (fe2.J2(bulk=2000.0, shear=40.0, yield_stress=0.4, hardening=2.0), 1, "strain", True),
        (fe2.LinearElastic.from_young_poisson(10.0, 0.4999), 2, "strain", True),
        (fe2.LinearElastic.from_young_poisson(10.0, 0.49), 2, "strain", False),
        (fe2.LinearElastic.from_young_poisson(10.0, 0.4999), 2, "stress", False),
        (fe2.LinearElastic.from_young_poisson(10.0, 0.4999), 1, "stress", False),
        (fe2.LinearElastic.from_young_poisson(10.0, 0.47), 1, "strain", False),
        (fe2.transversely_isotropic(230e3, 15e3, 24e3, 0.2, 0.35), 1, "strain", False),
        (fe2.SaturatingElastic(), 1, "strain", False),
    ],
)
def test_elements_that_lock_are_warned_of(material, degree, plane, warned):
    cell = meshes.from_labels(np.array([[1, 1, 1], [1, 2, 1], [1, 1, 1]]), MPI.COMM_SELF)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fe2.RVE(cell, {1: material, 2: STIFF}, degree=degree, plane=plane)
    assert [w.category for w in said] == [UserWarning] * warned
    for w in said:
        remedy = "use degree=2" if degree == 1 else 'use element="mean dilatation"'
        assert "of tag 1 is nearly incompressible" in str(w.message) and remedy in str(w.message)
        assert w.filename == __file__


def test_an_equilibrium_that_is_no_minimum_is_said_to_be_none():
    """Past the peak of a softening matrix around a fibre, at once instead of step by step."""
    size = 0.05

    def softening(e):
        return (500.0 * ufl.tr(e) ** 2 + 500.0 * ufl.inner(ufl.dev(e), ufl.dev(e))) * ufl.exp(
            -ufl.inner(ufl.dev(e), ufl.dev(e)) / size**2
        )

    labels = np.ones((4, 4), int)
    labels[1:3, 1:3] = 2
    rve = fe2.RVE(
        meshes.from_labels(labels, MPI.COMM_SELF),
        {1: fe2.Energy(softening), 2: fe2.LinearElastic.from_young_poisson(2e4, 0.2)},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not rve.homogenise([[0.001, 0.0, 0.002], [0.0, 0.0, 0.005]]).unstable.any()
    with pytest.warns(fe2.UnstableWarning, match="no minimum of the energy"):
        found = rve.homogenise([[0.0, 0.0, 0.001], [0.0, 0.0, 0.03]], on_failure="report")
    assert found.unstable.tolist() == [False, True]


def test_the_old_name_of_the_domain_warns():
    domain = cell()
    with pytest.warns(DeprecationWarning, match=r"^RVE\(cell=\.\.\.\) is now RVE\(domain=\.\.\.\)$") as warned:
        assert fe2.RVE(cell=domain, materials={meshes.MATRIX: STIFF, meshes.INCLUSION: STIFF}).domain is domain
    assert warned[0].filename == __file__
    with pytest.raises(TypeError, match="cell is the old name of domain"):
        fe2.RVE(cell=domain, domain=domain, materials={})
    with pytest.warns(DeprecationWarning, match=r"RVE\.domain"):
        assert fe2.RVE(domain, {meshes.MATRIX: STIFF, meshes.INCLUSION: STIFF}).cell is domain


def test_former_arguments_of_the_solver_warn():
    with pytest.warns(DeprecationWarning, match=r"solver=fe2.SolverOptions\(tolerance=1e-09\)") as warned:
        assert rve(STIFF, tolerance=1e-9).solver == fe2.SolverOptions(tolerance=1e-9)
    assert warned[0].filename == __file__
    with pytest.raises(TypeError, match="no argument 'tolerence'"):
        rve(STIFF, tolerence=1e-9)
