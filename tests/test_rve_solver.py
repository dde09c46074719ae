# SPDX-License-Identifier: MIT
"""How RVE problems are solved: many at once as each by itself, non-symmetric ones, sub-steps, and what fails."""

import numpy as np
import pytest
import ufl
from mpi4py import MPI

import fe2
import meshes
from fe2.reduced import conjugate_directions

STIFF = fe2.LinearElastic(200.0, 90.0)
MATRICES = {
    "saturating": fe2.SaturatingElastic(bulk=100.0, a1=2.0, a2=0.02),
    "plastic": fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.4, hardening=2.0),
    "implicit": fe2.RambergOsgood(bulk=100.0, shear=40.0, reference=0.5, alpha=0.4, exponent=12),
}
STRAINS, LATER = np.random.default_rng(3).uniform(-0.03, 0.03, (2, 7, 3))


def cell(size=0.22):
    return meshes.cell([meshes.Circle((0.0, 0.0), 0.3)], MPI.COMM_SELF, mesh_size=size)


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
    whole, divided = rve(MATRICES[name]), rve(MATRICES[name], max_iterations=5, max_substeps=64)
    before = whole.homogenise([0.002, -0.001, 0.001])
    a, b = whole.homogenise(strain, before.state), divided.homogenise(strain, before.state)
    assert b.iterations[0] > a.iterations[0] > 5
    assert np.allclose(a.stress, b.stress, rtol=0, atol=1e-9 * abs(a.stress).max())
    assert np.allclose(a.tangent, b.tangent, rtol=0, atol=1e-8 * abs(a.tangent).max())
    assert np.allclose(a.state, b.state, rtol=0, atol=1e-9)


def test_a_failure_names_strain_and_attempts_and_spares_the_other_points():
    problem = rve(MATRICES["saturating"], max_iterations=2, max_substeps=2)
    strains = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.7], [0.0, 0.0, 0.0]])
    report = problem.homogenise(strains, on_failure="report")
    assert np.isnan(report.stress[1]).all() and np.isfinite(report.stress[[0, 2]]).all()
    (failure,) = report.failures
    assert failure.point == 1 and (failure.strain == strains[1]).all()
    for expected in ("from the guess", "in 1 sub-steps", "in 2 sub-steps", "no convergence in 2 iterations"):
        assert expected in str(failure)
    with pytest.raises(fe2.NotConverged, match=r"point 1, Mandel strain \[0.5 0.  0.7\]"):
        problem.homogenise(strains)


def test_a_material_that_breaks_is_told():
    square_root = fe2.Energy(lambda e: 50 * ufl.inner(e, e) + ufl.sqrt(0.01 - e[0, 0]))
    with pytest.raises(fe2.NotConverged, match="the material returned a stress that is not finite"):
        rve(square_root).homogenise([0.05, 0.0, 0.0])
    with pytest.raises(fe2.NotConverged, match=r"not positive definite|could not be factorised"):
        rve(fe2.Energy(lambda e: -50 * ufl.inner(e, e))).homogenise([0.01, 0.0, 0.0])
