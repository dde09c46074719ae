# SPDX-License-Identifier: MIT
"""Energies with a limited domain, and loads without a solution: refused, and never a number."""

import numpy as np
import pytest
import ufl
from mpi4py import MPI

import fe2
import meshes

LIMIT = 2.0


def gent(F):
    """ψ = −J_m/2 ln(1 − (tr C − 3)/J_m) + ...: its derivative exists beyond tr C − 3 = J_m, where ψ does not."""
    return (
        -LIMIT / 2 * ufl.ln(1 - (ufl.inner(F, F) - 3) / LIMIT) - ufl.ln(ufl.det(F)) + 5 * (ufl.det(F) - 1) ** 2
    )  # fmt: skip


GENT = fe2.Energy(gent, measure="displacement gradient")
# tr C − 3 = λ² − 1 at F = diag(λ, 1, 1).
INSIDE, BEYOND = [0.7, 0.0, 0.0, 0.0], [0.8, 0.0, 0.0, 0.0]


def test_points_beyond_the_domain_have_no_response():
    law = fe2.UFLLaw(GENT)
    rest = law.initial_state(2)
    found = law.evaluate(np.array([INSIDE, BEYOND]), rest, rest)
    assert np.isfinite(found.stress[0]).all() and np.isnan(found.stress[1]).all() and np.isnan(found.tangent[1]).all()


def test_rves_beyond_the_domain_are_refused():
    domain = meshes.from_labels(np.ones((2, 2), dtype=int), MPI.COMM_SELF)
    rve = fe2.RVE(domain, {1: GENT})
    assert np.isfinite(rve.homogenise(INSIDE).energy).all()
    with pytest.raises(fe2.NotConverged, match=r"energy is not finite|stress that is not finite"):
        rve.homogenise(BEYOND)
    found = rve.homogenise([BEYOND, INSIDE], on_failure="report")
    assert [f.point for f in found.failures] == [0] and np.isnan(found.stress[0]).all()
    np.testing.assert_allclose(found.stress[1], rve.homogenise(INSIDE).stress[0], rtol=1e-12)
    rve.destroy()


def test_structures_beyond_the_domain_are_refused():
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)), fe2.UFLLaw(GENT))
    problem.prescribe("left", [0.0, 0.0])
    problem.prescribe("right", [4.0, 0.0])
    with pytest.raises(fe2.StepFailed):
        problem.solve(steps=2, max_cuts=3, log=None)
    assert all(np.isfinite(step.force.get("right", [0.0])).all() for step in problem.history)
    problem.destroy()


def test_a_path_to_a_strain_that_turns_inside_out_is_refused_at_once():
    with pytest.raises(ValueError, match=r"step 1 prescribes the strain \[-1.5, .* det F is not positive"):
        fe2.drive(fe2.UFLLaw(fe2.NeoHookean(10.0, 1.0)), strain=[[-0.5, 0, 0, 0], [-1.5, 0, 0, 0]])


def test_a_free_rotation_is_refused_without_sub_steps():
    domain = meshes.from_labels(np.ones((2, 2), dtype=int), MPI.COMM_SELF)
    rve = fe2.RVE(domain, {1: fe2.NeoHookean(10.0, 1.0)})
    with pytest.raises(fe2.NotConverged) as caught:
        rve.homogenise([[np.nan] * 4], stress=[[0.1, 0.0, 0.0, 0.0]])
    (failure,) = caught.value.failures
    assert len(failure.attempts) == 1 and "rotation" in failure.attempts[0]
    rve.destroy()


@pytest.mark.parametrize("dim", [2, 3])
def test_energies_that_a_rotation_changes_are_refused(dim):
    """‖F − I‖² has no stress at F = I and some at each rotation; a function of FᵀF with stress at rest is objective."""
    wrong = fe2.Energy(lambda F: ufl.inner(F - ufl.Identity(3), F - ufl.Identity(3)), measure="displacement gradient")
    right = fe2.Energy(lambda F: ufl.inner(F, F) - ufl.ln(ufl.det(F)), measure="displacement gradient")
    domain = meshes.from_labels(np.ones((2,) * dim, dtype=int), MPI.COMM_SELF)
    with pytest.raises(ValueError, match="the energy of Energy of tag 1 is not objective: a rotation alone changes"):
        fe2.RVE(domain, {1: wrong}, degree=1)
    with pytest.raises(ValueError, match="the energy of Energy is not objective"):
        fe2.UFLLaw(wrong, dim=dim)
    fe2.RVE(domain, {1: right}, degree=1).destroy()
    fe2.UFLLaw(right, dim=dim)


@pytest.mark.parametrize("degree", [1, 2])
def test_nearly_incompressible_phases_warn_with_the_remedy(degree):
    rubber = fe2.LinearElastic.from_young_poisson(1.0, 0.4999)
    domain = meshes.from_labels(np.ones((2, 2), dtype=int), MPI.COMM_SELF)
    with pytest.warns(UserWarning, match='element="mean dilatation"'):
        fe2.RVE(domain, {1: rubber}, degree=degree).destroy()
