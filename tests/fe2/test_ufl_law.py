# SPDX-License-Identifier: MIT
"""The closed-form law: a material at points answers as the same material in a homogeneous RVE, and as NumPy says."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.mesh import create_interval
from test_materials import LAWS, PATH, STEEL, VOCE, close, follow, homogeneous

import fe2
from fe2.expressions import compile_expression


def evaluate(law, strains):
    initial = law.initial_state(len(strains))
    return law.evaluate(strains, initial, initial, MPI.COMM_SELF)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("dim", [2, 3])
def test_points_answer_as_the_material(name, dim):
    material, reference = LAWS[name]
    d = fe2.mandel.size(dim)
    strains = np.random.default_rng(1).uniform(-0.03, 0.03, (7, d))
    response = evaluate(fe2.UFLLaw(material, dim=dim, chunk=3), strains)  # in chunks of 3, 3 and 1
    keep = ref.components(d)
    for k, strain in enumerate(strains):
        stress, tangent = reference(ref.spatial(strain))
        close(response.stress[k], stress[keep], 1e-12)
        close(response.tangent[k], tangent[np.ix_(keep, keep)], 1e-12)


@pytest.mark.parametrize("name", ["young", "saturating", "ramberg-osgood", "cubic", "stress"])
def test_points_answer_as_a_homogeneous_cell_in_plane_stress(name):
    """The cell's strain is uniform, so both solve the same equations at every point."""
    material, _ = LAWS[name]
    strains = np.random.default_rng(2).uniform(-0.03, 0.03, (3, 3))
    h = homogeneous(material, plane="stress").homogenise(strains)
    response = evaluate(fe2.UFLLaw(material, plane="stress"), strains)
    close(response.stress, h.stress, 1e-12)
    close(response.tangent, h.tangent, 1e-12)


@pytest.mark.parametrize("dim, plane", [(2, "strain"), (2, "stress"), (3, "strain")])
def test_j2_under_load_and_unload_with_its_state(dim, plane):
    """Along a path with reversals, each step from the state of the last, as a homogeneous cell does."""
    d = fe2.mandel.size(dim)
    directions = np.random.default_rng(3).uniform(-1.0, 1.0, (2, d))
    path = PATH[:, None, None] * directions  # (steps, points, d)
    law = fe2.UFLLaw(fe2.J2(**STEEL), dim=dim, plane=plane)
    state, stress, tangent = law.initial_state(2), [], []
    for strains in path:
        response = law.evaluate(strains, state, state, MPI.COMM_SELF)
        state = response.state
        stress.append(response.stress)
        tangent.append(response.tangent)
    assert (state[:, 6] > 0.01).all()  # it did yield
    rve = homogeneous(fe2.J2(**STEEL), dim, plane=plane)
    for k in range(2):
        expected_stress, expected_tangent = follow(rve, path[:, k])
        close(np.array(stress)[:, k], expected_stress, 1e-12)
        close(np.array(tangent)[:, k], expected_tangent, 1e-12)


@pytest.mark.parametrize(
    "material, plane",
    [
        (fe2.SaturatingElastic(), "stress"),
        (LAWS["ramberg-osgood"][0], "stress"),
        (fe2.J2(**STEEL), "strain"),
        (fe2.J2(**STEEL), "stress"),
        (fe2.J2Voce(**VOCE), "strain"),
        (fe2.J2Voce(**VOCE), "stress"),
    ],
    ids=["saturating", "ramberg-osgood", "j2", "j2-stress", "voce", "voce-stress"],
)
def test_the_tangent_is_the_derivative_of_the_stress(material, plane):
    """Central differences of one step from a loaded state; second order in a step of 1e-6 leaves some 1e-7."""
    law = fe2.UFLLaw(material, plane=plane)
    state = evaluate(law, np.array([[0.004, -0.002, 0.003]])).state
    strain, step = np.array([0.006, -0.001, -0.002]), 1e-6
    shifted = np.concatenate([strain + step * np.eye(3), strain - step * np.eye(3)])
    rows = np.repeat(state, 6, axis=0)
    around = law.evaluate(shifted, rows, rows, MPI.COMM_SELF).stress
    tangent = law.evaluate(strain[None], state, state, MPI.COMM_SELF).tangent[0]
    close(tangent, ((around[:3] - around[3:]) / (2 * step)).T, 1e-6)


def test_the_guess_changes_nothing():
    law = fe2.UFLLaw(LAWS["ramberg-osgood"][0], plane="stress")
    strains = np.random.default_rng(4).uniform(-0.03, 0.03, (4, 3))
    cold = evaluate(law, strains)
    warm = law.evaluate(strains, law.initial_state(4), cold.state, MPI.COMM_SELF)
    close(warm.stress, cold.stress, 1e-13)
    close(warm.tangent, cold.tangent, 1e-13)


def test_an_expression_is_compiled_once():
    """Whatever has been made before it; both are the slopes 3 a² − b and −a of a³ − a b at a = 2, b = 5."""
    domain, point = create_interval(MPI.COMM_SELF, 1, (0.0, 1.0)), np.array([[0.5]])
    made = []
    for _ in range(2):
        a, b = (ufl.variable(fem.Constant(domain, value)) for value in (2.0, 5.0))
        slopes = [ufl.diff(a**3 - a * b, v) for v in (a, b)]
        made.append(compile_expression(ufl.as_vector(slopes), point))
        assert np.allclose(made[-1].eval(domain, np.array([0])), [7.0, -2.0], rtol=1e-15)
    assert made[1].code == (None, None)


def test_no_points_at_all():
    response = evaluate(fe2.UFLLaw(fe2.J2(**STEEL), plane="stress"), np.zeros((0, 3)))
    assert response.stress.shape == (0, 3) and response.tangent.shape == (0, 3, 3) and response.state.shape == (0, 8)


def test_a_local_failure_names_the_point_and_its_strain():
    """The energy has a root that ends at tr ε = −1/2; the material has no parameters, which is fine."""
    dies = fe2.Energy(lambda e: ufl.inner(e, e) + ufl.sqrt(ufl.tr(e) + 0.5))
    law = fe2.UFLLaw(dies, plane="stress")
    with pytest.raises(fe2.LocalError, match=r"point 1 with strain \[-0.6 +0\. +0\. *\]"):
        evaluate(law, np.array([[0.0, 0.0, 0.0], [-0.6, 0.0, 0.0]]))


@pytest.mark.parametrize("dim, plane", [(2, "strain"), (2, "stress"), (3, "strain")])
def test_the_sign_of_the_energy_is_asked_for(dim, plane):
    """As an RVE does; what has no stiffness at rest, or a negative bulk modulus but real wave speeds, is taken."""

    def law(shear, bulk):
        def energy(e, G, K):
            return K / 2 * ufl.tr(e) ** 2 + G * ufl.inner(ufl.dev(e), ufl.dev(e))

        return fe2.UFLLaw(fe2.Energy(energy, {"G": shear, "K": bulk}), dim=dim, plane=plane)

    with pytest.raises(ValueError, match="stiffness of Energy at zero strain is not positive: a wave in the direction"):
        law(-1.0, -1.0)
    with pytest.raises(ValueError, match="a wave in the direction"):
        law(-1.0, 1.0)
    law(1.0, -0.1)  # bulk + 4/3 shear > 0, and in plane stress E/(1 − ν²) > 0
    if plane == "strain":
        fe2.UFLLaw(fe2.Energy(lambda e: ufl.inner(e, e) ** 2), dim=dim)
        fe2.UFLLaw(fe2.Energy(lambda e: ufl.sqrt(ufl.inner(e, e))), dim=dim)  # no derivative there


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="dim = 1"):
        fe2.UFLLaw(fe2.SaturatingElastic(), dim=1)
    with pytest.raises(ValueError, match="plane = 'shell'"):
        fe2.UFLLaw(fe2.SaturatingElastic(), plane="shell")
    with pytest.raises(ValueError, match="chunk = 0"):
        fe2.UFLLaw(fe2.SaturatingElastic(), chunk=0)
