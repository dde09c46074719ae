# SPDX-License-Identifier: MIT
"""Prescribed strains and stresses: material tests with known answers, at points and for RVEs."""

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import ufl
from mpi4py import MPI
from scipy.optimize import brentq
from test_materials import HISTORY, close, homogeneous
from test_rve_solver import MATRICES, SHEARS, SOFT, cell, rve

import fe2
import meshes
from fe2.step_length import take_step

NAN = np.nan
E, NU = 70e3, 0.3
ELASTIC = fe2.LinearElastic.from_young_poisson(E, NU)
STEEL = {"bulk": 170e3, "shear": 80e3, "yield_stress": 250.0, "hardening": 2e3}


def zeros_elsewhere(strain):
    """The stress that is zero in the components that `strain` leaves free."""
    return np.where(np.isnan(strain), 0.0, NAN)


def tension(values, d, component=0):
    """Strain rows (steps, d) with one prescribed component."""
    strain = np.full((len(values), d), NAN)
    strain[:, component] = values
    return strain


def both_laws(material, dim, plane="strain"):
    """The material at a point, whose free strains are found by its tangent, and in an RVE, where they are unknowns."""
    return fe2.UFLLaw(material, dim=dim, plane=plane), fe2.ExactLaw(homogeneous(material, dim, plane=plane))


class PointLaw:
    """A law that only evaluates: `drive` finds the free strains of any law of this interface."""

    def __init__(self, law):
        self.law, self.strain_size, self.state_size = law, law.strain_size, law.state_size
        self.initial_state, self.evaluate = law.initial_state, law.evaluate


class Formula:
    """S = f(E), with dS/dE, at points; the state is the strain, and evaluations are listed with their steps in time."""

    def __init__(self, f, d, reach=np.inf, rate_dependent=False):
        self.f, self.strain_size, self.state_size, self.reach, self.seen = f, d, d, reach, []
        self.rate_dependent, self.steps = rate_dependent, []

    def initial_state(self, n):
        return np.zeros((n, self.state_size))

    def evaluate(self, strain, state, guess, comm=MPI.COMM_SELF, step=None):
        self.steps.append(step)
        if len(strain) and abs(strain - state).max() > self.reach:
            raise fe2.LocalError(f"farther than {self.reach}")
        found = [self.f(e) for e in strain]
        self.seen += list(strain)
        shape = (len(strain), self.strain_size)
        s, c = np.reshape([f[0] for f in found], shape), np.reshape([f[1] for f in found], (*shape, shape[1]))
        return fe2.Response(s, c, strain.copy())


# Linear elasticity: Young's modulus and Poisson's ratio, in plane strain E/(1 − ν²) and ν/(1 − ν).


@pytest.mark.parametrize(
    ("dim", "plane", "young", "poisson"),
    [(2, "strain", E / (1 - NU**2), NU / (1 - NU)), (2, "stress", E, NU), (3, "strain", E, NU)],
)
def test_uniaxial_stress(dim, plane, young, poisson):
    d = fe2.mandel.size(dim)
    strain = tension([1e-3, -2e-3], d, component=1)
    for law in both_laws(ELASTIC, dim, plane):
        path = fe2.drive(law, strain=strain, stress=zeros_elsewhere(strain))
        close(path.stress[:, 1], young * strain[:, 1], 1e-12)
        close(path.strain[:, 0], -poisson * strain[:, 1], 1e-12)
        assert abs(path.strain[:, dim:]).max() < 1e-15
        assert (path.strain[:, 1] == strain[:, 1]).all()
        # The same test with its stress prescribed.
        stress = np.zeros((2, d))
        stress[:, 1] = path.stress[:, 1]
        close(fe2.drive(law, stress=stress).strain, path.strain, 1e-12)


@pytest.mark.parametrize(("dim", "plane"), [(2, "strain"), (2, "stress"), (3, "strain")])
def test_shear_with_free_normal_strains_and_biaxial_stress(dim, plane):
    """τ = G γ; equal stresses σ along x and y give the strains (1 − ν) σ/E, or (1 − ν − 2 ν²) σ/E where ε_zz = 0."""
    d, shear, size = fe2.mandel.size(dim), E / (2 * (1 + NU)), 100.0
    strain = tension([2e-3], d, component=d - 1)
    biaxial = np.zeros((1, d))
    biaxial[0, :2] = size
    for law in both_laws(ELASTIC, dim, plane):
        path = fe2.drive(law, strain=strain, stress=zeros_elsewhere(strain))
        assert path.stress[0, -1] == pytest.approx(2 * shear * 2e-3, rel=1e-12)
        assert abs(path.strain[0, :dim]).max() < 1e-15
        found = fe2.drive(law, stress=biaxial).strain[0]
        held = dim == 2 and plane == "strain"
        close(found[:2], np.full(2, (1 - NU - (2 * NU**2 if held else 0)) * size / E), 1e-12)
        if dim == 3:
            assert found[2] == pytest.approx(-2 * NU * size / E, rel=1e-12)


def test_moduli_of_boron_and_aluminium():
    """The stress over the strain of a tensile test is what the stiffness says, see test_published.py."""
    radius = np.sqrt(0.47 / np.pi)
    domain = meshes.rve(
        [meshes.Cylinder((0.0, 0.0, 0.0), "x", radius)], MPI.COMM_SELF, mesh_size=0.2, size=(0.2, 1.0, 1.0), order=2
    )
    aluminium, boron = (fe2.LinearElastic.from_young_poisson(*m) for m in ((68.3, 0.30), (379.3, 0.10)))
    problem = fe2.RVE(domain, {meshes.MATRIX: aluminium, meshes.INCLUSION: boron})
    constants = fe2.engineering_constants(problem.homogenise(np.zeros(6)).tangent[0])
    assert (constants.E1, constants.E2) == pytest.approx((215.3, 144.0), rel=2e-3)  # the values of fine meshes
    law = fe2.ExactLaw(problem)
    for axis, young in enumerate((constants.E1, constants.E2, constants.E3)):
        strain = tension([1e-3], 6, component=axis)
        path = fe2.drive(law, strain=strain, stress=zeros_elsewhere(strain))
        assert path.stress[0, axis] / 1e-3 == pytest.approx(young, rel=1e-9)
        if axis == 0:
            assert -path.strain[0, 1] / 1e-3 == pytest.approx(constants.nu12, rel=1e-9)
            assert -path.strain[0, 2] / 1e-3 == pytest.approx(constants.nu13, rel=1e-9)
        assert path.energy[0] == pytest.approx(path.stress[0, axis] * 1e-3 / 2, rel=1e-9)
        assert path.iterations[0] <= problem.homogenise(path.strain).iterations[0] + 2
    shear = fe2.drive(law, stress=np.eye(6)[[3, 4, 5]] * 0.05).strain  # from one shear to the other
    close(0.05 / np.diagonal(shear[:, 3:]) / 2, [constants.G23, constants.G13, constants.G12], 1e-9)


def test_uniaxial_stress_along_any_axis():
    """Along a, ε_aa = n·C⁻¹ n σ with n the Mandel vector of a ⊗ a; the stress is σ n."""
    fibres = fe2.transversely_isotropic(230e3, 15e3, 24e3, 0.2, 0.35)
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    directions = fe2.mandel.rotation(q).T
    n = fe2.mandel.vector(np.outer(q[:, 0], q[:, 0]))
    close(directions[0], n, 1e-14)
    strain = tension([1e-3], 6)
    expected = 1e-3 / (n @ np.linalg.solve(fibres.stiffness, n)) * n
    for law in both_laws(fibres, 3):
        path = fe2.drive(law, strain=strain, stress=zeros_elsewhere(strain), directions=directions)
        close(path.stress[0], expected, 1e-11)
        close(path.strain[0], np.linalg.solve(fibres.stiffness, expected), 1e-11)
        # What is not prescribed along the axes is the same in the material turned to them.
        turned = fe2.drive(fe2.UFLLaw(fibres.rotated(q.T), dim=3), strain=strain, stress=zeros_elsewhere(strain))
        close(directions @ path.strain[0], turned.strain[0], 1e-11)


# Other measures.


def test_uniaxial_stress_of_a_neo_hookean_solid():
    """P₁ = μ (a − 1/a) + λ ln J/a at the stretch a; b across from μ (b − 1/b) + λ ln J/b = 0 with J = a b²."""
    shear, bulk = 2.0, 5.0
    first = bulk - 2 * shear / 3

    def stress(a, across, log_j):
        return shear * (a - 1 / a) + first * log_j / across

    stretches = np.array([1.5, 3.0, 0.4])
    across = [brentq(lambda b, a=a: stress(b, b, np.log(a * b * b)), 0.1, 10.0, xtol=1e-15) for a in stretches]
    strain = np.zeros((3, 9))
    strain[:, 0], strain[:, [4, 8]] = stretches - 1, NAN
    for law in both_laws(fe2.NeoHookean(bulk, shear), 3):
        path = fe2.drive(law, strain=strain, stress=zeros_elsewhere(strain))
        for k, (a, b) in enumerate(zip(stretches, across)):
            assert path.stress[k, 0] == pytest.approx(stress(a, a, np.log(a * b * b)), rel=1e-9)
            assert path.strain[k, [4, 8]] == pytest.approx(b - 1, rel=1e-9)
        # A rotation about the axis of the stress is left free, which no stress determines.
        free = np.full((1, 9), NAN)
        free[0, 0] = 0.1
        with pytest.raises(fe2.StepFailed, match=r"(?s)step 0.*do not determine.* a rotation at finite strain"):
            fe2.drive(law, strain=free, stress=zeros_elsewhere(free), max_cuts=1)


@pytest.mark.parametrize("boundary", ["periodic", "uniform traction"])
def test_a_composite_at_finite_strain_as_by_its_tangent(boundary):
    soft, stiff = fe2.NeoHookean(5.0, 1.0), fe2.NeoHookean(50.0, 10.0)
    law = fe2.ExactLaw(fe2.RVE(cell(), {meshes.MATRIX: soft, meshes.INCLUSION: stiff}, boundary=boundary))
    strain = np.array([[0.2, 0.0, 0.0, NAN], [0.4, 0.1, NAN, NAN], [-0.05, 0.0, 0.1, NAN]])
    stress = np.where(np.isnan(strain), [[0.0], [0.05], [-0.1]], NAN)
    path, by_tangent = (fe2.drive(each, strain=strain, stress=stress) for each in (law, PointLaw(law)))
    close(by_tangent.stress, path.stress, 1e-8)
    close(by_tangent.strain, path.strain, 1e-8)
    assert (path.cuts == 0).all()


def test_prescribed_fluxes():
    """The gradient is k⁻¹ times the flux; with one component of each, what is left of two equations."""
    k = np.array([[3.0, 1.0], [1.0, 2.0]])
    for law in both_laws(fe2.Conductive(k), 2):
        path = fe2.drive(law, strain=[[NAN, NAN], [5.0, NAN]], stress=[[1.0, -2.0], [NAN, 3.0]])
        close(path.strain[0], np.linalg.solve(k, [1.0, -2.0]), 1e-12)
        close(path.strain[1], [5.0, (3.0 - 5.0) / 2.0], 1e-12)


# Plasticity.


def one_dimensional(strains, young, yield_stress, hardening):
    """Stress along a path of uniaxial stress: slope E, and E H/(E + H) beyond ±(σ_y + H α); both are straight lines."""
    stress, alpha, last, out = 0.0, 0.0, 0.0, []
    for e in strains:
        trial = stress + young * (e - last)
        plastic = max(0.0, abs(trial) - yield_stress - hardening * alpha) / (young + hardening)
        stress, alpha, last = trial - np.sign(trial) * young * plastic, alpha + plastic, e
        out.append(stress)
    return np.array(out)


@pytest.mark.parametrize("kind", ["point", "RVE"])
def test_plasticity_in_uniaxial_stress(kind):
    """Loading, unloading, reversed yielding, then down to no stress at all, which is repeated."""
    young = 9 * STEEL["bulk"] * STEEL["shear"] / (3 * STEEL["bulk"] + STEEL["shear"])
    axial = np.array([0.5, 0.9, 2.0, 6.0, 12.0, 11.0, 0.0, -9.0]) * STEEL["yield_stress"] / young
    law = both_laws(fe2.J2(**STEEL), 3)[kind == "RVE"]
    strain = np.concatenate([tension(axial, 6), np.full((3, 6), NAN)])
    stress = zeros_elsewhere(strain)
    path = fe2.drive(law, strain=strain, stress=stress)
    expected = one_dimensional(axial, young, STEEL["yield_stress"], STEEL["hardening"])
    close(path.stress[:8, 0], expected, 1e-9)
    assert abs(path.stress[:8, 1:]).max() < 1e-9 * abs(expected).max()
    assert abs(path.stress[8:]).max() < 1e-9 * STEEL["yield_stress"]
    close(path.strain[8:, 0], np.full(3, axial[-1] - expected[-1] / young), 1e-9)  # elastic unloading
    slopes = [1 / np.linalg.inv(c)[0, 0] for c in path.tangent]
    tangent = young * STEEL["hardening"] / (young + STEEL["hardening"])
    for k, slope in enumerate(slopes):
        assert slope == pytest.approx(tangent if k in (2, 3, 4, 6, 7) else young, rel=1e-8), k
    assert (path.cuts == 0).all() and path.iterations.max() <= 6
    # With the stresses found as those prescribed, the same strains.
    again = fe2.drive(law, stress=path.stress)
    close(again.strain, path.strain, 1e-8)


def test_viscous_materials_creep():
    """A Maxwell deviator creeps under shear stress: backward Euler gives e = s/(2 G) (1 + t/τ) in any steps."""
    names = {"dataclass": dataclass, "fe2": fe2, "ufl": ufl}
    exec(HISTORY.read_text().split("```python\n")[1].split("```")[0], names)
    stress, time = np.zeros((5, 3)), np.array([0.1, 0.2, 1.0, 5.0, 5.5])
    stress[:, 2] = 3.0
    for law in both_laws(names["Maxwell"](4000.0, 1500.0, 10.0), 2):
        path = fe2.drive(law, stress=stress, time=time)
        close(path.strain[:, 2], 3.0 / 3000.0 * (1 + time / 10.0), 1e-10)
        assert (path.time == time).all()
        with pytest.raises(ValueError, match="depends on time and got no step"):
            fe2.drive(law, stress=stress)


# RVEs: stresses as equations of their iteration.


def outer_loop(problem, strain, stress, state, given):
    """Newton's method for the free strains around prescribed strains; a step is halved until the gap shrinks."""
    free = np.isnan(strain)
    e, step, last = np.where(free, given, strain), np.zeros(free.sum()), np.inf
    for _ in range(60):
        h = problem.homogenise(e, state)
        gap = (h.stress[0] - stress)[free]
        if np.linalg.norm(gap) <= 1e-13 * np.linalg.norm(h.stress):
            break
        if np.linalg.norm(gap) < last:
            last, step = np.linalg.norm(gap), np.linalg.solve(h.tangent[0][np.ix_(free, free)], gap)
            e[free] -= step
        else:
            step = step / 2
            e[free] += step
    return e, h


@pytest.mark.parametrize("boundary", ["periodic", "linear displacement", "uniform traction"])
@pytest.mark.parametrize("name", MATRICES)
def test_an_rve_as_by_a_loop_around_prescribed_strains(name, boundary):
    problem = rve(MATRICES[name], boundary=boundary)
    strain = np.array([[0.006, NAN, NAN], [0.012, NAN, 0.004], [NAN, NAN, NAN], [0.01, 0.0, 0.0]])
    stress = np.array([[NAN, 0.0, 0.0], [NAN, -0.1, NAN], [0.1, 0.0, 0.05], [NAN, NAN, NAN]])
    law = fe2.ExactLaw(problem)
    path = fe2.drive(law, strain=strain, stress=stress)
    state, given = None, np.zeros(3)
    for k in range(4):
        given, h = outer_loop(problem, strain[k], stress[k], state, given)
        before, state = state, h.state
        close(path.strain[k], given, 1e-9)
        close(path.stress[k], h.stress[0], 1e-9)
        close(path.tangent[k], h.tangent[0], 1e-8)
        assert path.energy[k] == pytest.approx(h.energy[0], rel=1e-8, abs=1e-12)
        if k == 0:
            assert path.iterations[k] <= problem.homogenise(path.strain[k], before).iterations[0] + 2
    by_tangent = fe2.drive(PointLaw(law), strain=strain, stress=stress)
    close(by_tangent.stress, path.stress, 1e-9)
    close(by_tangent.strain, path.strain, 1e-9)
    assert np.isnan(by_tangent.energy).all()


MIXED = np.array(
    [[0.01, NAN, NAN], [0.02, NAN, 0.01], [NAN, NAN, NAN], [0.01, 0.005, 0.0], [NAN, 0.004, NAN], [0.0, NAN, 0.02]]
)
GIVEN = np.array(
    [[NAN, 0.0, 0.0], [NAN, 0.2, NAN], [0.2, 0.1, -0.1], [NAN, NAN, NAN], [0.1, NAN, -0.2], [NAN, 0.0, NAN]]
)


def odd(b):
    """σ = K tr(ε) (1 + β ε₁₁) I + 2G dev ε derives from no potential."""
    return fe2.Stress(
        lambda e, b: 100.0 * ufl.tr(e) * (1 + b * e[0, 0]) * ufl.Identity(3) + 80.0 * ufl.dev(e), parameters={"b": b}
    )


@pytest.mark.parametrize("boundary", ["periodic", "uniform traction"])
@pytest.mark.parametrize("name", [*MATRICES, "odd"])
def test_points_side_by_side_as_one_by_one_and_as_at_the_strains_found(name, boundary):
    problem = rve(MATRICES.get(name, odd(8.0)), boundary=boundary)
    problem.group = 4
    first = problem.homogenise(MIXED, stress=GIVEN)
    second = problem.homogenise(MIXED[::-1], first.state, stress=GIVEN[::-1])
    for h, strain, stress in ((first, MIXED, GIVEN), (second, MIXED[::-1], GIVEN[::-1])):
        assert (h.strain[~np.isnan(strain)] == strain[~np.isnan(strain)]).all()
        close(h.stress[~np.isnan(stress)], stress[~np.isnan(stress)], 1e-11)
        assert (problem.layout.view(h.state, "strain") == h.strain).all()
        before = None if h is first else first.state
        same = problem.homogenise(h.strain, before)
        for k in range(len(MIXED)):
            row = None if before is None else before[[k]]
            alone = problem.homogenise(strain[k], row, stress=stress[k])
            for what in ("strain", "stress", "tangent", *(["energy"] if name in MATRICES else [])):
                close(getattr(h, what)[k], getattr(alone, what)[0], 1e-8)
                close(getattr(h, what)[k], getattr(same, what)[k], 1e-8)
        uniaxial = 0 if h is first else -1
        assert h.iterations[uniaxial] <= same.iterations[uniaxial] + 2


def test_prescribed_strains_are_solved_as_ever():
    problem = rve(MATRICES["plastic"])
    strains = np.random.default_rng(3).uniform(-0.03, 0.03, (5, 3))
    h, same = problem.homogenise(strains), problem.homogenise(strains, stress=np.full((5, 3), NAN))
    for what in ("strain", "stress", "tangent", "energy", "state", "iterations", "work", "residual"):
        assert (getattr(h, what) == getattr(same, what)).all(), what
    assert (h.strain == strains).all()
    q = fe2.mandel.rotation([[0.6, -0.8], [0.8, 0.6]])
    turned = problem.homogenise(strains @ q.T, directions=q)
    close(turned.strain, strains, 1e-14)
    close(turned.stress, h.stress, 1e-9)


@pytest.mark.parametrize(
    ("name", "strain", "stress"),
    [
        ("saturating", [0.2, NAN, NAN], [NAN, -0.5, 0.3]),
        ("plastic", [NAN, NAN, 0.02], [0.1, 0.2, NAN]),
        ("implicit", [0.03, NAN, NAN], [NAN, 0.0, 0.0]),
    ],
)
def test_sub_steps_lead_to_the_solution_of_the_whole_step(name, strain, stress):
    """With few Newton iterations allowed the way must be divided; the materials still see one step from their state."""
    whole = rve(MATRICES[name])
    divided = rve(MATRICES[name], solver=fe2.SolverOptions(max_iterations=5, max_substeps=64))
    before = whole.homogenise([0.002, -0.001, 0.001])
    a, b = (problem.homogenise(strain, before.state, stress=stress) for problem in (whole, divided))
    assert b.iterations[0] > a.iterations[0] > 5
    for what in ("strain", "stress", "state"):
        close(getattr(a, what), getattr(b, what), 1e-8)
    close(a.tangent, b.tangent, 1e-7)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_do_not_matter(unit):
    """In another unit of stress all scales, with the same iterations but for one that rounding may decide on."""
    strain = tension([0.004, 0.012, 0.011], 3)
    stress = np.concatenate([zeros_elsewhere(strain), np.zeros((1, 3))])
    strain = np.concatenate([strain, np.full((1, 3), NAN)])

    def path(unit, wrap):
        steel = fe2.J2(100.0 * unit, 40.0 * unit, 0.4 * unit, 2.0 * unit)
        stiff = fe2.LinearElastic(200.0 * unit, 90.0 * unit)
        problem = fe2.RVE(cell(), {meshes.MATRIX: steel, meshes.INCLUSION: stiff})
        return fe2.drive(wrap(fe2.ExactLaw(problem)), strain=strain, stress=stress)

    for wrap in (lambda law: law, PointLaw):
        one, other = path(1.0, wrap), path(unit, wrap)
        close(other.strain, one.strain, 1e-8)
        close(other.stress, unit * one.stress, 1e-8)
        assert abs(other.iterations - one.iterations).max() <= 1


def test_an_equilibrium_that_prescribed_stresses_do_not_hold_is_marked():
    """Beyond the peak of a softening material the strain is stable if it is prescribed, and not if the stress is."""
    problem = homogeneous(SOFT)
    shear = [0.0, 0.0, SHEARS[2]]
    held = problem.homogenise(shear)
    assert np.linalg.eigvalsh(held.tangent[0])[0] < 0
    with pytest.warns(fe2.UnstableWarning):
        free = problem.homogenise([NAN] * 3, held.state, stress=held.stress[0])
    assert free.unstable[0]
    close(free.strain[0], shear, 1e-9)


def test_a_laminate_with_a_void_carries_no_stress_across():
    labels = np.ones((4, 4), dtype=int)
    labels[:, 3] = 0
    with pytest.warns(meshes.PeriodWarning):
        problem = fe2.RVE(meshes.from_labels(labels, MPI.COMM_SELF), {1: ELASTIC}, degree=2)
    tangent = problem.homogenise(np.zeros(3)).tangent[0]
    across = int(np.argmin(np.diagonal(tangent)[:2]))
    strain = np.zeros((1, 3))
    strain[0, across] = NAN
    for law in (fe2.ExactLaw(problem), PointLaw(fe2.ExactLaw(problem))):
        with pytest.raises(fe2.StepFailed, match=r"(?s)step 0.*do not determine the strains.*no stiffness against"):
            fe2.drive(law, strain=strain, stress=np.where(np.isnan(strain), 1.0, NAN), max_cuts=2)


# The length of a step.


def test_a_step_of_newtons_method_that_goes_too_far():
    """A potential with slopes 1 within |x| ≤ 1 and 0.001 beyond: the step from x = −3 ends at 999."""
    seen = []

    def slope(x):
        return x if abs(x) <= 1 else np.sign(x) * (1 + 1e-3 * (abs(x) - 1))

    def trial(length):
        seen.append(-3.0 + length * 1002.0)
        return abs(slope(seen[-1])), -slope(seen[-1])

    take_step(trial, abs(slope(-3.0)), -slope(-3.0))
    assert seen[0] == 999.0 and abs(slope(seen[-1])) <= 0.5 * abs(slope(-3.0)) and len(seen) < 12


def test_a_step_is_shortened_where_there_is_no_stress_and_left_as_it_is_where_it_does_not_go_too_far():
    seen = []

    def logarithm(length):
        seen.append(length)
        return (NAN, NAN) if length > 0.3 else (0.9, 0.9)

    take_step(logarithm, 1.0, 1.0)
    assert seen == [1.0, 0.25]
    for norm, slope_there, slope in ((0.9, 0.9, 1.0), (0.4, -0.9, 1.0), (2.0, -0.4, 1.0), (2.0, -2.0, -1.0)):
        seen.clear()
        take_step(lambda t, n=norm, s=slope_there: (seen.append(t) or n, s), 1.0, slope)
        assert seen == [1.0]


# Any law.


def stiffening(strain):
    """S = C E + b |E|² E in four components, with a C that is not symmetric."""
    c = np.diag([4.0, 3.0, 2.0, 1.0]) + np.triu(np.full((4, 4), 0.3), 1)
    b = 50.0
    return c @ strain + b * (strain @ strain) * strain, c + b * (
        (strain @ strain) * np.eye(4) + 2 * np.outer(strain, strain)
    )


def test_any_law_of_any_number_of_components():
    law = Formula(stiffening, 4)
    strain = np.array([[0.1, NAN, NAN, 0.0], [NAN, 0.2, NAN, 0.1], [NAN] * 4])
    stress = np.where(np.isnan(strain), 0.3, NAN)
    path = fe2.drive(law, strain=strain, stress=stress)
    for k in range(3):
        s, c = stiffening(path.strain[k])
        close(path.stress[k], s, 1e-14)
        close(path.tangent[k], c, 1e-14)
        free = np.isnan(strain[k])
        close(s[free], stress[k][free], 1e-9)
        assert (path.strain[k][~free] == strain[k][~free]).all()
    assert (path.state == path.strain).all() and path.iterations.max() <= 7
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))
    turned = fe2.drive(law, strain=strain, stress=stress, directions=q)
    reached = np.where(np.isnan(strain), turned.stress @ q.T, turned.strain @ q.T)
    close(reached, np.where(np.isnan(strain), stress, strain), 1e-9)


LINEAR = np.array([[3.0, 1.0, 0.2], [1.0, 2.0, 0.1], [0.2, 0.1, 1.0]])


def test_a_step_that_fails_is_cut():
    """On lines from the last strain and stress, also of a component that changes from one to the other."""
    law = Formula(lambda e: (LINEAR @ e, LINEAR), 3, reach=0.2, rate_dependent=True)
    strain = np.array([[0.2, NAN, 0.0], [NAN, -0.5, NAN]])
    stress = np.array([[NAN, 0.1, NAN], [1.0, NAN, 0.5]])
    path = fe2.drive(law, strain=strain, stress=stress, time=[2.0, 6.0])
    assert list(dict.fromkeys((s.begin, s.length) for s in law.steps)) == [
        *[(0.0, 2.0), (2.0, 4.0), (2.0, 2.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0), (5.0, 1.0)]
    ]
    assert path.cuts.tolist() == [0, 2]
    begin_strain, begin_stress = path.strain[0], path.stress[0]
    for share in (0.25, 0.5, 0.75, 1.0):
        held = begin_strain[1] + share * (-0.5 - begin_strain[1])
        wanted = begin_stress[[0, 2]] + share * (stress[1][[0, 2]] - begin_stress[[0, 2]])
        block = LINEAR[np.ix_([0, 2], [0, 2])]
        free = np.linalg.solve(block, wanted - LINEAR[[0, 2], 1] * held)
        expected = np.array([free[0], held, free[1]])
        assert min(abs(e - expected).max() for e in law.seen) < 1e-12
    with pytest.raises(fe2.StepFailed, match=r"step 1, from 0 to 0.5 of .* strain .*stress .*after 1 cuts: farther"):
        fe2.drive(law, strain=strain, stress=stress, time=[1.0, 2.0], max_cuts=1)
    first = fe2.drive(Formula(law.f, 3, reach=0.2), strain=strain[1:], stress=stress[1:])  # from the undeformed state
    close(first.stress[0], path.stress[1], 1e-12)


def test_stresses_that_a_law_never_has():
    """S = tanh(E) < 1: no strain has the stress 2; the message says what was reached."""

    def saturating(e):
        return np.tanh(e), np.diag(1 / np.cosh(e) ** 2)

    assert fe2.drive(Formula(saturating, 2), stress=[[0.9, -0.99]]).strain[0] == pytest.approx(np.arctanh([0.9, -0.99]))
    with pytest.raises(fe2.StepFailed, match=r"step 1, from 0\.\d+ to 0\.\d+ of .* stress \[2. 0.\], after 6"):
        fe2.drive(Formula(saturating, 2), stress=[[0.5, 0.0], [2.0, 0.0]])
    problem = rve(fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.4, hardening=0.0))
    with pytest.raises(fe2.StepFailed, match=r"(?s)step 0.*stress \[ *0. +0. +50.*residuals"):
        fe2.drive(fe2.ExactLaw(problem), stress=[[0.0, 0.0, 50.0]], max_cuts=1)


def test_a_law_of_few_digits_needs_a_larger_tolerance():
    def rounded(e):
        return (LINEAR @ e).astype(np.float32).astype(float), LINEAR

    strain = tension([0.1], 3)
    stress = np.array([[NAN, 0.1, 0.3]])
    with pytest.raises(fe2.StepFailed, match="a law of few digits needs a larger tolerance than 1e-10"):
        fe2.drive(Formula(rounded, 3), strain=strain, stress=stress)
    path = fe2.drive(Formula(rounded, 3), strain=strain, stress=stress, tolerance=1e-6)
    close(path.stress[0, 1:], stress[0, 1:], 1e-6)


def test_a_law_without_stiffness_at_rest():
    """S = E/√|E| has no derivative at zero, where the path begins."""

    def root(e):
        n = np.linalg.norm(e)
        with np.errstate(invalid="ignore", divide="ignore"):
            return e / np.sqrt(n), (np.eye(2) - np.outer(e, e) / n**2 / 2) / np.sqrt(n)

    path = fe2.drive(Formula(root, 2), strain=[[0.01, NAN]], stress=[[NAN, 0.05]])
    close(path.stress[0], root(path.strain[0])[0], 1e-14)
    assert path.stress[0, 1] == pytest.approx(0.05, rel=1e-9)
    with pytest.raises(fe2.StepFailed, match="not finite at the strain"):
        fe2.drive(Formula(root, 2), stress=[[0.05, 0.05]])
    problem = rve(fe2.Energy(lambda e: 50 * ufl.inner(e, e) + ufl.inner(e, e) ** 0.75))
    h = problem.homogenise([0.01, NAN, NAN], stress=[NAN, 0.0, 0.1])
    close(problem.homogenise(h.strain).stress, h.stress, 1e-9)


def test_wrong_use_is_told():
    law, one = Formula(lambda e: (LINEAR @ e, LINEAR), 3), [[0.1, NAN, 0.0]]
    with pytest.raises(ValueError, match="step 0, component 1: both strain and stress"):
        fe2.drive(law, strain=[[0.1, 0.0, 0.0]], stress=[[NAN, 0.0, NAN]])
    with pytest.raises(ValueError, match="step 1, component 2: neither strain nor stress"):
        fe2.drive(law, strain=[[0.1, NAN, 0.0], [0.1, NAN, NAN]], stress=[[NAN, 0.0, NAN]] * 2)
    with pytest.raises(ValueError, match="neither strain nor stress is prescribed"):
        fe2.drive(law)
    with pytest.raises(ValueError, match=r"stress has the shape \(2, 3\)"):
        fe2.drive(law, strain=one, stress=[[NAN, 0.0, NAN]] * 2)
    with pytest.raises(ValueError, match=r"strain has the shape \(1, 2\), need \(steps, 3\)"):
        fe2.drive(law, strain=[[0.1, 0.0]])
    with pytest.raises(ValueError, match="stress of step 0, component 1, is inf"):
        fe2.drive(law, strain=one, stress=[[NAN, np.inf, NAN]])
    with pytest.raises(ValueError, match="real numbers"):
        fe2.drive(law, strain=[[0.1, 1j, 0.0]])
    with pytest.raises(ValueError, match="directions are not orthonormal"):
        fe2.drive(law, strain=np.zeros((1, 3)), directions=LINEAR)
    with pytest.raises(ValueError, match=r"directions have the shape \(2, 2\), need \(3, 3\)"):
        fe2.drive(law, strain=np.zeros((1, 3)), directions=np.eye(2))
    with pytest.raises(ValueError, match=r"time of step 1 is 1.0: need more than 1.0"):
        fe2.drive(law, strain=np.zeros((2, 3)), time=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"time of step 0 is 0.0: need more than 0.0"):
        fe2.drive(law, strain=np.zeros((1, 3)), time=[0.0])
    with pytest.raises(ValueError, match=r"time has the shape \(3,\), need \(2,\)"):
        fe2.drive(law, strain=np.zeros((2, 3)), time=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="tolerance = 0"):
        fe2.drive(law, strain=np.zeros((1, 3)), tolerance=0.0)
    with pytest.raises(ValueError, match="max_cuts = -1"):
        fe2.drive(law, strain=np.zeros((1, 3)), max_cuts=-1)
    with pytest.raises(TypeError, match="the law is"):
        fe2.drive(ELASTIC, strain=np.zeros((1, 3)))
    problem = homogeneous(ELASTIC)
    with pytest.raises(ValueError, match="point 0, component 1: neither"):
        problem.homogenise([0.1, NAN, 0.0], stress=[NAN] * 3)
    with pytest.raises(ValueError, match="the strain of point 0 is"):
        problem.homogenise([0.1, NAN, 0.0])
    with pytest.raises(fe2.NotConverged, match=r"point 1, .*strain \[0.9 nan nan\], stress \[nan +0. +0.\]: from"):
        stiff = rve(MATRICES["saturating"], solver=fe2.SolverOptions(max_iterations=1, max_substeps=1))
        stiff.homogenise([[0.0] * 3, [0.9, NAN, NAN]], stress=[[NAN] * 3, [NAN, 0.0, 0.0]])
    assert len(fe2.drive(law, strain=np.zeros((0, 3))).strain) == 0


@pytest.mark.mpi
def test_one_path_on_several_ranks_and_a_path_on_each(comm):
    plastic = rve(MATRICES["plastic"])
    point = fe2.UFLLaw(MATRICES["plastic"])
    strain = tension([0.004, 0.012, 0.006], 3)
    for law in (fe2.ExactLaw(plastic), PointLaw(fe2.ExactLaw(plastic)), point):
        alone = fe2.drive(law, strain=strain, stress=zeros_elsewhere(strain))
        # The arguments of rank 0 count.
        mine = strain if comm.rank == 0 else np.zeros((1, 1))
        path = fe2.drive(law, strain=mine, stress=zeros_elsewhere(strain), comm=comm)
        for what in ("strain", "stress", "tangent", "state"):
            close(getattr(path, what), getattr(alone, what), 1e-12)
            values = comm.allgather(getattr(path, what))
            assert all((v == values[0]).all() for v in values)
        # Each rank another path, of another length.
        own = (1 + comm.rank) * strain[: 1 + comm.rank % 3]
        path = fe2.drive(law, strain=own, stress=zeros_elsewhere(own))
        assert len(path.strain) == len(own) and (path.strain[:, 0] == own[:, 0]).all()


@pytest.mark.mpi
def test_errors_reach_all_ranks(comm):
    law = fe2.ExactLaw(rve(MATRICES["saturating"], solver=fe2.SolverOptions(max_iterations=1, max_substeps=1)))
    strain = tension([0.3], 3)
    for each in (law, PointLaw(law)):
        with pytest.raises(fe2.StepFailed, match=r"(?s)step 0, from 0 to 0.5 .*no convergence"):
            fe2.drive(each, strain=strain, stress=zeros_elsewhere(strain), max_cuts=1, comm=comm)
    with pytest.raises(ValueError, match="both"):
        fe2.drive(law, strain=np.zeros((1, 3)), stress=np.zeros((1, 3)), comm=comm)
