# SPDX-License-Identifier: MIT
"""Laws as plain functions of arrays: state, notation, and what they refuse."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import ufl
from mpi4py import MPI

import coupling
import fe2
from coupling.fallback import Fallback

STEEL = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)


def path(steps=4):
    """Strains (steps, 1, 3) into the plastic range and back."""
    return np.linspace(0, 1, steps + 1)[1:, None, None] * np.array([0.02, -0.01, 0.015]) * [[[1]], [[2]], [[1]], [[-1]]]


def followed(law, strains):
    """Stresses by the interface of `fe2.Law` itself, each step accepted."""
    state, found = law.initial_state(strains.shape[1]), []
    for e in strains:
        out = law.evaluate(e, state, state, MPI.COMM_SELF)
        state, found = out.state, [*found, out.stress]
    return np.array(found)


def test_a_path_step_by_step():
    """Evaluations in between change nothing, and a rejected step leaves no trace."""
    law = fe2.UFLLaw(STEEL)
    right, respond = followed(law, path()), coupling.PointLaw(law, 1)
    for e, stress in zip(path(), right, strict=True):
        respond(0.5 * e)
        respond(3.0 * e)
        respond.reject()
        found, tangent = respond(e)
        assert np.allclose(found, stress, rtol=1e-10)
        step = 1e-7
        for k in range(3):
            shift = step * np.eye(3)[k]
            slope = (respond(e + shift)[0] - respond(e - shift)[0]) / (2 * step)
            assert np.allclose(tangent[0, :, k], slope[0], rtol=0, atol=1e-5 * abs(tangent).max())
        respond(e)
        respond.accept()


@pytest.mark.parametrize("dim", [2, 3])
def test_engineering_notation(dim):
    """Work and stiffness are the same numbers in both."""
    law, d = fe2.UFLLaw(fe2.LinearElastic(bulk=100.0, shear=40.0), dim=dim), dim * (dim + 1) // 2
    mandel = np.random.default_rng(0).standard_normal((5, d)) * 0.01
    engineering = fe2.mandel.to_engineering(mandel)
    stress, tangent = coupling.PointLaw(law, 5)(mandel)
    other, stiffness = coupling.PointLaw(law, 5, notation="engineering")(engineering)
    assert np.allclose((stress * mandel).sum(1), (other * engineering).sum(1), rtol=1e-13)
    assert np.allclose(stiffness, fe2.mandel.stiffness_to_engineering(tangent), rtol=1e-13)
    assert np.allclose(np.einsum("nij,nj->ni", stiffness, engineering), other, rtol=1e-12)


@pytest.mark.mpi
def test_ranks_share_the_work(trained, comm):
    """A law that spreads its points over the ranks, some of which have none."""
    count = 0 if comm.rank == 1 else 2
    respond = coupling.PointLaw(fe2.ExactLaw(trained.rve), count, comm=comm)
    e = np.tile([0.01, 0.0, 0.005], (count, 1))
    stress, _ = respond(e)
    right = trained.rve.homogenise(np.array([[0.01, 0.0, 0.005]])).stress
    assert np.allclose(stress, right, rtol=1e-9)


def test_wrong_strains_raise():
    respond = coupling.PointLaw(fe2.UFLLaw(STEEL), 2)
    with pytest.raises(ValueError, match=r"strain has the shape \(3,\), need \(2, 3\)"):
        respond([0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="the strain of point 1 is"):
        respond([[0.0] * 3, [np.nan] * 3])
    with pytest.raises(ValueError, match="complex128, need real numbers"):
        respond(np.zeros((2, 3), dtype=complex))
    with pytest.raises(ValueError, match="notation = 'Voigt'"):
        coupling.PointLaw(fe2.UFLLaw(STEEL), 2, notation="Voigt")
    with pytest.raises(ValueError, match="n = -1 points, need 0 or more"):
        coupling.PointLaw(fe2.UFLLaw(STEEL), -1)
    with pytest.raises(TypeError, match=r"the law is J2.*: give fe2.UFLLaw\(material\)"):
        coupling.PointLaw(STEEL, 2)


class Ageing(fe2.Material):
    """An elastic material that depends on time alone."""

    rate_dependent = True

    def energy(self, strain, state=None, local=None):
        return (1 + self.time) * ufl.inner(strain, strain)


def test_a_law_that_depends_on_time_takes_the_step():
    zener = fe2.UFLLaw(fe2.Zener(4000.0, 300.0, 1200.0, 10.0))
    respond, state = coupling.PointLaw(zener, 1), zener.initial_state(1)
    for k, e in enumerate(path()):
        step = fe2.TimeStep(2.0 * k, 2.0)
        right = zener.evaluate(e, state, state, MPI.COMM_SELF, step=step)
        assert np.array_equal(respond(e, step).stress, right.stress)
        respond.accept()
        state = right.state
    with pytest.raises(ValueError, match="UFLLaw depends on time and got no step"):
        respond(path()[0])
    coupling.PointLaw(fe2.UFLLaw(STEEL), 1)(path()[0], fe2.TimeStep(0.0, 1.0))  # of no effect


@pytest.mark.parametrize(
    "make",
    [
        coupling.ExternalLaw,
        coupling.micro_simulation,
        lambda law: Fallback(law, 3),
        lambda law: coupling.phase_law(law.material, 2),
        lambda law: coupling.GridLaw(np.ones((1, 2, 2), dtype=int), {1: law.material}),
    ],
)
def test_what_has_no_time_refuses_laws_that_depend_on_it(make):
    with pytest.raises(ValueError, match=r"(UFLLaw|Ageing) depends on time"):
        make(fe2.UFLLaw(Ageing()))


RUBBER = fe2.UFLLaw(fe2.NeoHookean(9.0, 2.0))
CONDUCTOR = fe2.UFLLaw(fe2.Conductive([[2.0, 0.6], [0.6, 1.0]]))


@pytest.mark.parametrize("law", [RUBBER, CONDUCTOR])
def test_laws_of_other_measures(law):
    """In their own components; engineering notation is refused, and messages name the components."""
    strain = np.random.default_rng(0).uniform(-0.2, 0.2, (3, law.strain_size))
    rest = law.initial_state(3)
    right = law.evaluate(strain, rest, rest)
    found = coupling.PointLaw(law, 3)(strain)
    assert np.array_equal(found.stress, right.stress) and np.array_equal(found.tangent, right.tangent)
    with pytest.raises(ValueError, match=f"is for small strains, and the law takes a {law.measure.name}"):
        coupling.PointLaw(law, 3, notation="engineering")
    what = "components of a gradient" if law.measure.scalar else "components of H = F − I, row by row"
    with pytest.raises(ValueError, match=what):
        coupling.PointLaw(law, 3)(np.zeros((3, 7)))
    operator = coupling.ExternalLaw(law)
    assert np.array_equal(operator((0,))(strain[None]), right.stress.ravel())
    assert np.array_equal(operator((1,))(strain[None]), right.tangent.ravel())
    with pytest.raises(ValueError, match=rf"{what}, such as law\.measure\.of\(u\)"):
        operator((0,))(np.zeros((1, 3, 7)))
