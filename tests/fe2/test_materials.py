# SPDX-License-Identifier: MIT
"""Materials: a homogeneous RVE answers as its material, which NumPy evaluates on its own."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref
import ufl
from mpi4py import MPI
from scipy.optimize import brentq

import fe2
import meshes

HISTORY = Path(__file__).parents[2] / "docs" / "howto" / "history.md"


def close(value, expected, relative):
    """The largest difference is small next to the largest entry."""
    assert np.shape(value) == np.shape(expected)
    assert abs(np.asarray(value) - expected).max() <= relative * abs(np.asarray(expected)).max()


def homogeneous(material, dim=2, **more):
    cell = meshes.from_labels(np.ones((2,) * dim, dtype=int), MPI.COMM_SELF)
    return fe2.RVE(cell, {1: material}, degree=1, **more)


# c11, c12, c44 of copper [MPa]; in Mandel components the shear entries are 2 c44.
COPPER = np.diag([168400.0 - 121400.0] * 3 + [2 * 75400.0] * 3) + 121400.0 * np.outer(ref.ONE, ref.ONE)


def fibre_stiffness(axial, transverse, shear, nu_a, nu_t):
    """Stiffness of a solid with the fibres along x: inverse of the compliance of the engineering constants."""
    s = np.zeros((6, 6))
    s[:3, :3] = [
        [1 / axial, -nu_a / axial, -nu_a / axial],
        [-nu_a / axial, 1 / transverse, -nu_t / transverse],
        [-nu_a / axial, -nu_t / transverse, 1 / transverse],
    ]
    s[3, 3] = (1 + nu_t) / transverse  # 1/(2 G_yz)
    s[4, 4] = s[5, 5] = 1 / (2 * shear)
    return np.linalg.inv(s)


def spd():
    a = np.random.default_rng(0).normal(size=(6, 6))
    return 100 * (a @ a.T + 3 * np.eye(6))


FIBRES = (230e3, 15e3, 24e3, 0.2, 0.35)
YOUNG, NU = 3100.0, 0.35
RO = (4780.0, 1200.0, 40.0, 0.4, 5.0)
LAWS = {
    "linear": (fe2.LinearElastic(4780.0, 1200.0), ref.linear(4780.0, 1200.0)),
    "young": (
        fe2.LinearElastic.from_young_poisson(YOUNG, NU),
        ref.linear(YOUNG / 3 / (1 - 2 * NU), YOUNG / 2 / (1 + NU)),
    ),
    "cubic": (fe2.cubic(168400.0, 121400.0, 75400.0), ref.matrix(COPPER)),
    "fibres": (fe2.transversely_isotropic(*FIBRES), ref.matrix(fibre_stiffness(*FIBRES))),
    "anisotropic": (fe2.Anisotropic(spd()), ref.matrix(spd())),
    "saturating": (fe2.SaturatingElastic(), ref.saturating()),
    "ramberg-osgood": (fe2.RambergOsgood(*RO), ref.ramberg_osgood(*RO)),
    "energy": (
        fe2.Energy(
            lambda e, K, G: K / 2 * ufl.tr(e) ** 2 + G * ufl.inner(ufl.dev(e), ufl.dev(e)),
            parameters={"K": 4.0, "G": 1.5},
        ),
        ref.linear(4.0, 1.5),
    ),
    "stress": (
        fe2.Stress(
            lambda e, K, G: K * ufl.tr(e) * ufl.Identity(3) + 2 * G * ufl.dev(e), parameters={"K": 4.0, "G": 1.5}
        ),
        ref.linear(4.0, 1.5),
    ),
    "energy without parameters": (
        fe2.Energy(lambda e: 2.0 * ufl.tr(e) ** 2 + 1.5 * ufl.inner(ufl.dev(e), ufl.dev(e))),
        ref.linear(4.0, 1.5),
    ),
    "stress without parameters": (
        fe2.Stress(lambda e: 4.0 * ufl.tr(e) * ufl.Identity(3) + 3.0 * ufl.dev(e)),
        ref.linear(4.0, 1.5),
    ),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("dim", [2, 3])
def test_homogeneous_cell_answers_as_its_material(name, dim):
    material, law = LAWS[name]
    d = fe2.mandel.size(dim)
    strains = np.random.default_rng(1).uniform(-0.03, 0.03, (3, d))
    h = homogeneous(material, dim).homogenise(strains)
    keep = ref.components(d)
    for k, strain in enumerate(strains):
        stress, tangent = law(ref.spatial(strain))
        close(h.stress[k], stress[keep], 1e-12)
        close(h.tangent[k], tangent[np.ix_(keep, keep)], 1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-6])
def test_saturating_elasticity_next_to_zero_strain(size):
    """There its stress is K tr ε I + a₁/a₂ dev ε, up to the relative size of the strain to a₂ and rounding."""
    strain = size * np.array([1.0, -0.3, 0.5])
    h = homogeneous(fe2.SaturatingElastic()).homogenise(strain)
    stress, tangent = ref.linear(4780.0, 50.0 / 0.06 / 2)(ref.spatial(strain))
    close(h.tangent[0], tangent[np.ix_(ref.PLANE, ref.PLANE)], 1e-12 + 2 * size / 0.06)
    close(h.stress[0], stress[ref.PLANE], 1e-12 + 2 * size / 0.06)


def test_the_energy_of_saturating_elasticity_has_its_stress_as_slope():
    """Energy and stress are written apart; central differences, second order in 1e-5 next to strains of 0.02."""
    rve, strain, step = homogeneous(fe2.SaturatingElastic()), np.array([0.02, -0.01, 0.015]), 1e-5
    ahead, behind = (rve.homogenise(strain + s * step * np.eye(3)).energy for s in (1, -1))
    close((ahead - behind) / (2 * step), rve.homogenise(strain).stress[0], 1e-6)


def test_stiffness_turns_with_the_crystal():
    """A quarter turn about z exchanges x and y: the fibres along x then lie along y."""
    turned = fe2.transversely_isotropic(*FIBRES).rotated([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    close(turned.stiffness, fe2.transversely_isotropic(*FIBRES, axis=1).stiffness, 1e-12)


def test_plane_stress_of_linear_elasticity():
    """E/(1−ν²) [[1, ν, 0], [ν, 1, 0], [0, 0, 1−ν]] in Mandel components (2 G = E/(1+ν))."""
    c = YOUNG / (1 - NU**2) * np.array([[1, NU, 0], [NU, 1, 0], [0, 0, 1 - NU]])
    strain = np.array([0.01, -0.02, 0.015])
    h = homogeneous(fe2.LinearElastic.from_young_poisson(YOUNG, NU), plane="stress").homogenise(strain)
    close(h.tangent[0], c, 1e-12)
    close(h.stress[0], c @ strain, 1e-12)


@pytest.mark.parametrize("name", ["saturating", "ramberg-osgood"])
def test_plane_stress_of_nonlinear_laws(name):
    material, law = LAWS[name]
    strains = np.random.default_rng(2).uniform(-0.03, 0.03, (3, 3))
    h = homogeneous(material, plane="stress").homogenise(strains)
    for k, strain in enumerate(strains):
        stress, tangent = ref.plane_stress(law, strain)
        close(h.stress[k], stress, 1e-10)
        close(h.tangent[k], tangent, 1e-10)


def test_ramberg_osgood_in_pure_shear():
    """γ = τ/G + √3 α σ₀/E (√3 τ/σ₀)ⁿ, from ε_eq = γ/√3 and q = √3 τ."""
    bulk, shear, reference, alpha, n = RO
    young = 9 * bulk * shear / (3 * bulk + shear)
    offset = alpha * reference / young
    gammas = np.array([0.001, 0.02, 0.1])
    h = homogeneous(fe2.RambergOsgood(*RO)).homogenise([[0, 0, g / np.sqrt(2)] for g in gammas])
    for gamma, stress in zip(gammas, h.stress):
        tau = brentq(
            lambda t, g=gamma: t / shear + np.sqrt(3) * offset * (np.sqrt(3) * t / reference) ** n - g,
            0.0,
            shear * gamma,
            xtol=1e-300,
            rtol=1e-15,
        )
        close(stress, np.array([0, 0, np.sqrt(2) * tau]), 1e-11)


STEEL = {"bulk": 164e3, "shear": 80e3, "yield_stress": 240.0, "hardening": 1500.0}
PATH = np.array([0.0005, 0.004, 0.01, 0.009, 0.002, -0.006, -0.005, 0.012])


def follow(rve, strains, **more):
    """Stress and tangent along a path, each step beginning where the last one ended."""
    state, out = None, []
    for strain in strains:
        h = rve.homogenise(strain, state, **more)
        state = h.state
        out.append((h.stress[0], h.tangent[0]))
    return map(np.array, zip(*out))


@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, -0.5, 0.7)])
def test_j2_along_a_radial_path(direction):
    """The deviator keeps its direction N, so s = √(2/3) q N with q of the bilinear curve; the pressure is elastic."""
    full = ref.spatial(direction)
    dev = ref.DEV @ full
    size = np.linalg.norm(dev)
    stresses, _ = follow(homogeneous(fe2.J2(**STEEL)), PATH[:, None] * np.array(direction))
    curve = ref.bilinear(np.sqrt(2 / 3) * size * PATH, STEEL["shear"], STEEL["yield_stress"], STEEL["hardening"])
    for e, (q, _), stress in zip(PATH, curve, stresses):
        expected = STEEL["bulk"] * e * (ref.ONE @ full) * ref.ONE + np.sqrt(2 / 3) * q * dev / size
        close(stress, expected[ref.PLANE], 1e-10)


def test_j2_tension_and_compression_in_plane_stress():
    """ε_x = σ/E + ε_p, ε_y = −ν σ/E − ε_p/2 with |σ| = σ_y + H α on each plastic branch gives σ_y = σ_z = 0."""
    young, poisson = 206e3, 0.29
    bulk, shear = young / (3 * (1 - 2 * poisson)), young / (2 * (1 + poisson))
    first, hardening = 240.0, 1500.0
    sigma = np.array([100.0, 240.0, 260.0, 290.0, 0.0, -290.0, -320.0, 50.0])
    plastic = np.array([0.0, 0.0, 20.0, 50.0, 50.0, 50.0, 20.0, 20.0]) / hardening  # reversed from −290 on
    strains = np.stack([sigma / young + plastic, -poisson * sigma / young - plastic / 2, 0 * sigma], axis=1)
    stresses, _ = follow(homogeneous(fe2.J2(bulk, shear, first, hardening), plane="stress"), strains)
    for stress, s in zip(stresses, sigma):
        assert abs(stress - [s, 0, 0]).max() <= 1e-7 * first


VOCE = {"bulk": 164e3, "shear": 80e3, "yield_stress": 240.0, "saturation": 400.0, "rate": 60.0, "hardening": 300.0}


@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0), (0.3, -0.5, 0.7)])
def test_voce_hardening_along_a_radial_path(direction):
    """As for J2: the deviator keeps its direction, and what is left is a scalar root per step."""
    full = ref.spatial(direction)
    dev = ref.DEV @ full
    size = np.linalg.norm(dev)
    stresses, _ = follow(homogeneous(fe2.J2Voce(**VOCE)), PATH[:, None] * np.array(direction))
    curve = ref.voce(np.sqrt(2 / 3) * size * PATH, **{k: v for k, v in VOCE.items() if k != "bulk"})
    for e, q, stress in zip(PATH, curve, stresses):
        expected = VOCE["bulk"] * e * (ref.ONE @ full) * ref.ONE + np.sqrt(2 / 3) * q * dev / size
        close(stress, expected[ref.PLANE], 1e-10)


def test_voce_without_saturation_is_linear_hardening():
    linear = fe2.J2(**STEEL)
    voce = fe2.J2Voce(**STEEL, saturation=STEEL["yield_stress"], rate=10.0)
    path = PATH[:, None] * np.array([0.3, -0.5, 0.7])
    for plane in ("strain", "stress"):
        for a, b in zip(*(follow(homogeneous(m, plane=plane), path) for m in (voce, linear))):
            close(a, b, 1e-9)


def test_voce_tangent_is_the_derivative_of_the_step():
    rve = homogeneous(fe2.J2Voce(**VOCE))
    state = rve.homogenise([0.004, -0.002, 0.003]).state
    strain, step = np.array([0.006, -0.001, -0.002]), 1e-7
    h = rve.homogenise(strain, state)
    shifted = np.concatenate([strain + step * np.eye(3), strain - step * np.eye(3)])
    around = rve.homogenise(shifted, np.repeat(state, 6, axis=0)).stress
    close(h.tangent[0], ((around[:3] - around[3:]) / (2 * step)).T, 1e-6)


def test_j2_tangent_is_the_derivative_of_the_step():
    """Central differences of one step from a hardened state, in a direction that is not the last one."""
    rve = homogeneous(fe2.J2(**STEEL))
    state = rve.homogenise([0.004, -0.002, 0.003]).state
    strain, step = np.array([0.006, -0.001, -0.002]), 1e-7
    h = rve.homogenise(strain, state)
    shifted = rve.homogenise(
        np.concatenate([strain + step * np.eye(3), strain - step * np.eye(3)]), np.repeat(state, 6, axis=0)
    )
    close(h.tangent[0], ((shifted.stress[:3] - shifted.stress[3:]) / (2 * step)).T, 1e-6)
    close(h.tangent[0], h.tangent[0].T, 1e-10)


def test_the_maxwell_element_of_the_documentation_relaxes():
    """s = 2 G (1 + Δt/τ)⁻ⁿ e of backward Euler, exp(−t/τ) up to a part t Δt/2τ²; the pressure is elastic."""
    names = {"dataclass": dataclass, "fe2": fe2, "ufl": ufl, "__name__": __name__}
    exec(re.search(r"```python\n(.*?)```", HISTORY.read_text(), flags=re.DOTALL)[1], names)
    bulk, shear, time, dt = 4000.0, 1500.0, 10.0, 0.5
    rve = homogeneous(names["Maxwell"](bulk, shear, time))
    strain = np.array([0.003, -0.001, 0.01])
    full = ref.spatial(strain)
    n = np.arange(1, 21)
    stresses, tangents = follow(rve, np.tile(strain, (len(n), 1)), step=fe2.TimeStep(0.0, dt))
    decay = (1 + dt / time) ** -n
    pressure, deviator = bulk * (ref.ONE @ full) * ref.ONE, 2 * shear * ref.DEV @ full
    close(stresses, (pressure + decay[:, None] * deviator)[:, ref.PLANE], 1e-12)
    assert (abs(decay / np.exp(-n * dt / time) - 1) <= np.expm1(n * (dt / time) ** 2 / 2)).all()
    stiffness = bulk * np.outer(ref.ONE, ref.ONE) + 2 * shear * decay[0] * ref.DEV
    close(tangents[-1], stiffness[np.ix_(ref.PLANE, ref.PLANE)], 1e-12)


def test_numbers_that_are_not_physical_are_refused():
    with pytest.raises(ValueError, match="bulk"):
        fe2.LinearElastic(-1.0, 1.0)
    with pytest.raises(ValueError, match="poisson"):
        fe2.LinearElastic.from_young_poisson(1.0, 0.5)
    with pytest.raises(ValueError, match="a2"):
        fe2.SaturatingElastic(a2=0.0)
    with pytest.raises(ValueError, match="hardening"):
        fe2.J2(1.0, 1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="saturation"):
        fe2.J2Voce(1.0, 1.0, 2.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="exponent"):
        fe2.RambergOsgood(1.0, 1.0, 1.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="shape"):
        fe2.Anisotropic(np.eye(3))
    with pytest.raises(ValueError, match="symmetric"):
        fe2.Anisotropic(np.eye(6) + np.eye(6, k=1) / 2)
    with pytest.raises(ValueError, match="eigenvalue"):
        fe2.Anisotropic(-np.eye(6))


def test_the_old_name_of_from_young_poisson_warns():
    with pytest.warns(DeprecationWarning, match="from_young_poisson"):
        old = fe2.LinearElastic.young(YOUNG, NU)
    assert old == fe2.LinearElastic.from_young_poisson(YOUNG, NU)
