# SPDX-License-Identifier: MIT
"""Translation from UFL: the laws that torch evaluates are those that DOLFINx compiles."""

import json

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

import basix.ufl
import references as ref
import scipy.special
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem

import coupling
import fe2
import meshes
import spon


def close(value, expected, relative):
    """The largest difference is small next to the largest entry."""
    assert tuple(value.shape) == tuple(expected.shape)
    assert abs(np.asarray(value) - np.asarray(expected)).max() <= relative * abs(np.asarray(expected)).max()


def spd():
    a = np.random.default_rng(0).normal(size=(6, 6))
    return 100 * (a @ a.T + 3 * np.eye(6))


def two_sided(e, K, G, ratio):
    """Stiffer in compression than in tension, and stiffer again beyond 2 % of shear."""
    shear = ufl.inner(ufl.dev(e), ufl.dev(e))
    volume = ufl.conditional(ufl.gt(ufl.tr(e), 0), K / 2 * ufl.tr(e) ** 2, K * ratio / 2 * ufl.tr(e) ** 2)
    return volume + G * shear + G * ufl.max_value(shear - 4e-4, 0) ** 2 / 1e-3


def functions(e, K, weights):
    """Convex enough, and with much of what UFL offers."""
    w = ufl.dot(weights, ufl.as_vector([e[0, 0], e[1, 1], e[2, 2]]))
    smooth = ufl.cosh(ufl.tr(e)) + ufl.exp(w) - w + ufl.cos(e[0, 1]) * ufl.sin(w) ** 2 - ufl.erf(e[0, 1] ** 2)
    soft = ufl.ln(1 + ufl.inner(e, e)) + ufl.sqrt(1 + w**2) + ufl.atan2(e[0, 1], 1 + w) * ufl.tanh(w) + ufl.tan(w) ** 4
    sharp = abs(e[0, 0] - 3e-3) ** 3 + (1 + w) ** 2.5 + ufl.min_value(w, e[0, 0]) ** 2 + 2 ** ufl.sinh(w) + ufl.atan(w)
    inside = ufl.And(ufl.le(w, 0.01), ufl.Not(ufl.Or(ufl.lt(w, -0.01), ufl.ge(e[0, 1], 0.02))))
    return K * (smooth + soft + sharp + ufl.conditional(inside, w**3, ufl.asin(w) ** 3 - ufl.acos(w)))


def without_potential(e, A, b):
    i, j, k, l = ufl.indices(4)
    quadratic = ufl.as_tensor(A[i, k] * e[k, l] * e[l, j], (i, j))
    pressure = ufl.conditional(ufl.ne(e[0, 1], 0), e[1, 1], e[2, 2])
    return b * ufl.sym(quadratic) + ufl.exp(e[0, 0]) * e + pressure * ufl.Identity(3)


RO = (4780.0, 1200.0, 40.0, 0.4, 5.0)
MATERIALS = {
    "linear": fe2.LinearElastic(4780.0, 1200.0),
    "anisotropic": fe2.Anisotropic(spd()),
    "cubic": fe2.cubic(168400.0, 121400.0, 75400.0),
    "transversely isotropic": fe2.transversely_isotropic(230e3, 15e3, 24e3, 0.2, 0.35),
    "saturating": fe2.SaturatingElastic(),
    "Ramberg-Osgood": fe2.RambergOsgood(*RO),
    "two-sided": fe2.Energy(two_sided, parameters={"K": 5000.0, "G": 1000.0, "ratio": 3}),
    "functions": fe2.Energy(functions, parameters={"K": 70.0, "weights": [1.0, -0.5, 2.0]}),
    "without potential": fe2.Stress(without_potential, parameters={"A": np.arange(9.0).reshape(3, 3), "b": 5.0}),
}
SETTINGS = [(2, "strain"), (3, "strain"), (2, "stress")]
CASES = [(name, dim, plane) for name in MATERIALS for dim, plane in SETTINGS]


def strains(d, n=12):
    """Random strains of 0.1 % to 5 %."""
    rng = np.random.default_rng(d)
    e = rng.normal(size=(n, d))
    return e / np.linalg.norm(e, axis=1, keepdims=True) * np.geomspace(1e-3, 5e-2, n)[:, None]


def dolfinx_answers(material, dim, plane, e):
    """Energy, stress and tangent of `fe2`'s compiled forms: those of a homogeneous body, averaged or at a point."""
    cell = meshes.from_labels(np.ones((2,) * dim, dtype=int), MPI.COMM_SELF)
    body = fe2.Body(cell, {1: material}, degree=1, plane=plane)
    affine, volume, rest = body.affine(), body.weights.sum(), body.memory
    energy, stress, tangent = [], [], []
    for strain in e:
        body.memory = rest
        body.u.x.array[:] = affine @ strain
        body.find_local()
        energy.append(body.energy() / volume)
        stress.append(body.stress()[0, 0])
        tangent.append(affine.T @ (body.stiffness() @ affine) / volume)
    return np.array(energy), np.array(stress), np.array(tangent)


@pytest.mark.parametrize(("name", "dim", "plane"), CASES)
def test_law_is_that_of_dolfinx(name, dim, plane):
    material = MATERIALS[name]
    law = coupling.phase_law(material, dim, plane)
    e = strains(law.strain_size)
    energy, stress, tangent = dolfinx_answers(material, dim, plane, e)
    e = torch.from_numpy(e)
    if not np.isnan(energy).any():
        close(law.energy(e), energy, 1e-12)
    else:
        assert law.energy_program is None
    close(law.stress(e), stress, 1e-12)
    close(law.tangent(e), tangent, 1e-12)
    assert law.linear == (name in ("linear", "anisotropic", "cubic", "transversely isotropic"))
    # Single precision: 1e-7 times the cancellation in 1 − 1/(1 + n/a₂) of the saturating law at small strains n.
    close(law.stress(e.float()), stress, 1e-4)


@pytest.mark.parametrize(("name", "dim", "plane"), CASES)
def test_derivatives_agree_with_autograd(name, dim, plane):
    material = MATERIALS[name]
    law = coupling.phase_law(material, dim, plane)
    e = torch.from_numpy(strains(law.strain_size))
    tangent = law.tangent(e)
    for derivative in (torch.func.jacrev, torch.func.jacfwd):
        close(torch.func.vmap(derivative(law.stress))(e), tangent, 1e-11)
    e.requires_grad_()
    if law.energy_program is not None:
        (slope,) = torch.autograd.grad(law.energy(e).sum(), e)
        close(slope, law.stress(e).detach(), 1e-11)
    if material.symmetric:
        assert torch.equal(tangent, tangent.mT)


# Exact tangents at rest, in 3D Mandel components; these laws are smooth there.
def isotropic(bulk, shear):
    return bulk * np.outer(ref.ONE, ref.ONE) + 2 * shear * ref.DEV


AT_REST = {
    "linear": (isotropic(4780.0, 1200.0), 1e-14),
    "anisotropic": (spd(), 1e-14),
    # ‖e‖ is regularised at 1e-15, and 1 − 1/(1 + 1e-15/a₂) has two digits in double precision. So has DOLFINx's value.
    "saturating": (isotropic(4780.0, 50.0 / 0.06 / 2), 1e-2),
    "Ramberg-Osgood": (isotropic(4780.0, 1200.0), 1e-14),
    "two-sided": (isotropic(15000.0, 1000.0), 1e-14),
}


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", AT_REST)
def test_at_rest(name, dim):
    """At zero strain there is no stress, and the tangent is the elastic one; nothing divides by zero."""
    law = coupling.phase_law(MATERIALS[name], dim)
    expected, relative = AT_REST[name]
    at = ref.components(law.strain_size)
    zero = torch.zeros(1, law.strain_size, dtype=torch.float64)
    assert abs(law.energy(zero)).item() <= 1e-15
    assert not law.stress(zero).any()
    close(law.tangent(zero)[0], expected[np.ix_(at, at)], relative)
    single = zero.float()
    for value in (law.energy(single), law.stress(single), law.tangent(single)):
        assert value.isfinite().all()
    zero.requires_grad_()
    (slope,) = torch.autograd.grad(law.energy(zero).sum(), zero)
    assert not slope.any()


@pytest.mark.parametrize("name", ["saturating", "Ramberg-Osgood", "two-sided"])
def test_isotropic_law_does_not_thicken_in_shear(name):
    """There plane stress is plane strain. The thickness strain is rounding and its Newton step is no smaller."""
    material = fe2.Energy(two_sided, {"K": 5e3, "G": 1e3, "ratio": 1.0}) if name == "two-sided" else MATERIALS[name]
    shear = torch.tensor([[0.1, 0.2 - 0.3, 0.0], [0.0, 0.0, 0.02], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert shear[0, 0] != -shear[0, 1]
    stress = [coupling.phase_law(material, 2, plane).stress(shear) for plane in ("strain", "stress")]
    close(stress[1], stress[0], 1e-12)


@pytest.mark.parametrize("name", ["cubic", "Ramberg-Osgood", "functions", "without potential"])
def test_round_trip_through_json_is_exact(name):
    law = coupling.phase_law(MATERIALS[name], 3)
    again = spon.PhaseLaw.from_json(json.loads(json.dumps(law.to_json())))
    assert again == law
    e = torch.from_numpy(strains(6))
    assert torch.equal(again.stress(e), law.stress(e))
    assert torch.equal(again.tangent(e), law.tangent(e))


@pytest.mark.parametrize("plane", ["strain", "stress"])
def test_laws_of_a_cell_at_its_quadrature_points(plane):
    """Stress and energy of a random displacement of two phases, whose cells are mingled."""
    labels = np.random.default_rng(1).integers(1, 3, size=(4, 5))
    rve = fe2.RVE(
        meshes.from_labels(labels, MPI.COMM_SELF),
        {2: MATERIALS["linear"], 1: MATERIALS["Ramberg-Osgood"]},
        boundary="linear displacement",
        plane=plane,
    )
    found = coupling.local_laws(rve)
    laws, order = found
    assert found.laws is laws and found.order is order
    body = rve.body
    body.u.x.array[:] = 1e-2 * np.random.default_rng(0).normal(size=body.u.x.array.size)
    body.find_local()
    assert [law.name for law in laws.laws] == ["RambergOsgood", "LinearElastic"]
    assert laws.size == order.size == body.weights.size
    assert (np.sort(order) == np.arange(order.size)).all()
    strain = torch.from_numpy(body.strain().reshape(-1, 3)[order])
    close(laws.stress(strain), body.stress().reshape(-1, 3)[order], 1e-12)
    assert (laws.energy(strain).numpy() @ body.weights.ravel()[order]) == pytest.approx(body.energy(), rel=1e-12)
    few = np.arange(0, order.size, 7)
    assert torch.equal(laws.subset(few).stress(strain[few]), laws.stress(strain)[few])


# Expressions.

MESH = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,)))
X, Y = ufl.variable(ufl.Constant(MESH)), ufl.Constant(MESH, (2, 2))
POINTS = np.array([-0.8, -0.3, 0.2, 0.7])
ONE_ARGUMENT = {
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "sign": np.sign,
}


def evaluate(expression, points=POINTS):
    return coupling.translate(expression, {"x": X})(torch.tensor(points, dtype=torch.float64)[:, None]).numpy()


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_functions_and_their_derivatives(name):
    """Values are NumPy's; derivatives are central differences of them, whose error is 1e-16/h + h²."""
    function, h = ONE_ARGUMENT[name], 1e-5
    expression = getattr(ufl, name)(X)
    close(evaluate(expression), function(POINTS), 1e-14)
    slope = (function(POINTS + h) - function(POINTS - h)) / (2 * h)
    assert abs(evaluate(ufl.diff(expression, X)) - slope).max() <= 1e-9


@pytest.mark.parametrize("p", [-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 2.5, 3, 4, 5])
def test_powers(p):
    x = abs(POINTS)
    close(evaluate((2 * X) ** p + X, x), (2 * x) ** p + x, 1e-14)


def test_power_with_exponent_that_varies():
    x = abs(POINTS)
    close(evaluate(3.0**X + (1 + X) ** X, x), 3.0**x + (1 + x) ** x, 1e-14)


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_comparisons(name):
    """Below, at and above the number that is compared with, on either side; a choice between constants is a number."""
    expected = {
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
    }[name]
    compare, number = getattr(ufl, name), POINTS[2]
    for left, right, truth in ((X, number, expected(POINTS, number)), (number, X, expected(number, POINTS))):
        close(evaluate(ufl.conditional(compare(left, right), 2.0, 5.0)), np.where(truth, 2.0, 5.0), 0)


def test_logic():
    """Also with conditions that are constant at translation, and in sums of choices by one and by two conditions."""
    above, yes, no = ufl.gt(X, 0), ufl.gt(fem.Constant(MESH, 1.0), 0), ufl.lt(fem.Constant(MESH, 1.0), 0)
    up = POINTS > 0
    for condition, truth in (
        (ufl.And(above, yes), up),
        (ufl.And(no, above), up & False),
        (ufl.Or(above, yes), up | True),
        (ufl.Or(no, above), up),
        (ufl.Not(ufl.Or(above, ufl.lt(X, -0.5))), ~(up | (POINTS < -0.5))),
    ):
        close(evaluate(ufl.conditional(condition, X, 3.0)), np.where(truth, POINTS, 3.0), 0)
    same = ufl.conditional(above, X, 1.0) - 2 * ufl.conditional(above, 3.0, X)
    close(evaluate(same), np.where(up, POINTS - 6, 1 - 2 * POINTS), 1e-15)
    other = ufl.conditional(above, X, 1.0) - 2 * ufl.conditional(ufl.gt(X, 0.5), 3.0, X)
    close(evaluate(other), np.where(up, POINTS, 1) - 2 * np.where(POINTS > 0.5, 3, POINTS), 1e-15)


def test_sums_cancel_to_rounding_and_no_further():
    third = (X / 3 + X / 3 + X / 3) - X
    assert coupling.translate(third, {"x": X}).values == (0.0,)
    close(evaluate((1 + 1e-12) * X - X), 1e-12 * POINTS, 1e-3)  # 1 + 1e-12 itself is rounded by 1e-16
    close(evaluate((1 + 1e-12) * ufl.exp(X) - ufl.exp(X)), 1e-12 * np.exp(POINTS), 1e-3)


def test_a_function_of_a_constant_is_folded():
    law = coupling.translate(ufl.exp(fem.Constant(MESH, 2.0)) * X + 0 * ufl.sin(X), {"x": X})
    assert law.constants == (np.exp(2.0),)
    assert [s[0] for s in law.steps] == ["mul"]


def test_equal_parts_are_evaluated_once():
    program = coupling.translate(ufl.exp(X * X) + ufl.sqrt(3 + ufl.exp(X**2)) / ufl.exp(X * X), {"x": X})
    assert [s[0] for s in program.steps].count("exp") == 1


def test_components_of_tensors():
    program = coupling.translate(ufl.dot(Y, ufl.transpose(Y)) - ufl.det(Y) * ufl.Identity(2), {"y": Y})
    y = np.random.default_rng(0).normal(size=(5, 2, 2))
    expected = y @ y.swapaxes(1, 2) - np.linalg.det(y)[:, None, None] * np.eye(2)
    close(program(torch.from_numpy(y.reshape(5, 4))), expected, 1e-14)


def test_derivative_of_a_conditional_is_finite_beyond_its_branch():
    """√x for x > 0 and x elsewhere: its slope is written as one choice, so that √ does no harm at 0."""
    for expression in (ufl.conditional(ufl.gt(X, 0), ufl.sqrt(X), X), ufl.max_value(ufl.sqrt(X), 0)):
        slope = evaluate(ufl.diff(expression, X), [0.0, 0.25])
        assert slope[1] == 1.0
        assert np.isfinite(slope[0])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (lambda: X * ufl.SpatialCoordinate(MESH)[0], "expression: SpatialCoordinate x is neither an input .'x'. nor"),
        (lambda: ufl.FacetNormal(MESH)[1], "FacetNormal n is neither"),
        (lambda: ufl.Constant(MESH), "Constant c_.* is neither"),
        (lambda: ufl.Coefficient(ufl.FunctionSpace(MESH, basix.ufl.element("P", "triangle", 1))), "Coefficient"),
        (lambda: ufl.bessel_J(1, X), "BesselJ .* has no translation"),
        (lambda: X / fem.Constant(MESH, 0.0), "Division .* cannot be evaluated: a division by a constant zero"),
        (lambda: ufl.ln(fem.Constant(MESH, -1.0)), "Ln .* cannot be evaluated: ln"),
    ],
)
def test_what_has_no_translation_is_named(expression, message):
    with pytest.raises(coupling.TranslationError, match=message):
        coupling.translate(expression(), {"x": X})


def test_without_plane_stress_state_there_is_no_answer():
    """ε_xx + 0.02 ε_zz + ε_zz² vanishes for no ε_zz if ε_xx > 1e-4: `fe2` raises, and the law says NaN there."""
    material = fe2.Stress(lambda e: e + (e[0, 0] - 0.98 * e[2, 2] + e[2, 2] ** 2) * ufl.Identity(3))
    e = np.array([[0.01, 0.0, 0.0], [-0.01, 0.0, 0.0]])
    with pytest.raises(fe2.LocalError):
        dolfinx_answers(material, 2, "stress", e[:1])
    law = coupling.phase_law(material, 2, "stress")
    for value in (law.stress(torch.from_numpy(e)), law.tangent(torch.from_numpy(e))):
        assert value[0].isnan().all()
        assert value[1].isfinite().all()


def test_expressions_of_hundreds_of_levels_are_refused():
    with pytest.raises(coupling.TranslationError, match="nested too deeply"):
        coupling.translate(sum((ufl.sin(k * X) for k in range(1, 800)), X), {"x": X})


def test_an_input_is_a_terminal():
    with pytest.raises(TypeError, match="not Product"):
        coupling.translate(X, {"x": X * X})


def test_materials_without_law_are_refused():
    with pytest.raises(coupling.TranslationError, match="J2 has 7 state variables"):
        coupling.phase_law(fe2.J2(1.0, 1.0, 1.0, 1.0), 2)
    graded = fe2.Energy(lambda e: (1 + ufl.SpatialCoordinate(MESH)[0]) * ufl.inner(e, e))
    with pytest.raises(coupling.TranslationError, match="Energy: SpatialCoordinate x is neither an input"):
        coupling.phase_law(graded, 2)
    with pytest.raises(ValueError, match="dim = 1"):
        coupling.phase_law(fe2.SaturatingElastic(), 1)
    with pytest.raises(ValueError, match="plane = 'stretch'"):
        coupling.phase_law(fe2.SaturatingElastic(), 2, "stretch")
