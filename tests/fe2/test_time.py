# SPDX-License-Identifier: MIT
"""Responses that depend on time: closed forms, orders of accuracy, limits, and steps of structures that are cut."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref
import ufl
from mpi4py import MPI
from scipy.integrate import simpson, solve_ivp
from scipy.optimize import brentq
from test_materials import PATH, STEEL, close, homogeneous

import fe2
import meshes

# Two branches that also relax in bulk, and one that does not. The longest time is 8 of some unit.
POLYMER = fe2.Zener(4000.0, 900.0, (500.0, 300.0), (1.0, 8.0), (700.0, 0.0))
RUBBER = fe2.Zener(2000.0, 300.0, 700.0, 2.0)
LINEAR = fe2.Perzyna(**STEEL, viscosity=3e4)
POWER = fe2.Perzyna(**STEEL, viscosity=3e4, exponent=3.0)
MATERIALS = {"polymer": POLYMER, "rubber": RUBBER, "linear": LINEAR, "power": POWER}
STRAIN = np.array([0.004, -0.002, 0.001, 0.003, -0.001, 0.002])


@cache
def law(material, dim=3, plane="strain"):
    return fe2.UFLLaw(material, dim=dim, plane=plane, chunk=8)


def walk(law, strains, lengths, state=None, begin=0.0):
    """Responses of a law at one point along strains (n, d), in steps of these lengths in time."""
    state, out = law.initial_state(1) if state is None else state, []
    for strain, length in zip(strains, lengths, strict=True):
        out.append(law.evaluate(strain[None], state, state, MPI.COMM_SELF, step=fe2.TimeStep(begin, length)))
        state, begin = out[-1].state, begin + length
    return out


def stresses(responses):
    return np.array([r.stress[0] for r in responses])


def parts(strain):
    """Pressure and deviator (6,) of a strain (6,), for unit 3 K and unit G."""
    return (ref.ONE @ strain) * ref.ONE, 2 * ref.DEV @ strain


# A step.


@pytest.mark.parametrize(
    ("begin", "length", "what"), [(0, 0, "length"), (0, -1, "length"), (0, np.inf, "length"), (np.nan, 1, "begin")]
)
def test_steps_have_a_length(begin, length, what):
    with pytest.raises(ValueError, match=f"TimeStep: {what} = "):
        fe2.TimeStep(begin, length)


def test_a_step_ends_after_its_length():
    assert fe2.TimeStep(2.0, 0.5).end == 2.5


def test_a_missing_step_is_told_with_the_remedy():
    rve, point = homogeneous(RUBBER), law(RUBBER)
    rows = point.initial_state(1)
    what = r"Zener depends on time and got no step: need MacroProblem.solve\(duration=...\), QuadratureLaw.update\("
    with pytest.raises(ValueError, match=what):
        rve.homogenise([0.0, 0.0, 0.01])
    with pytest.raises(ValueError, match=what):
        point.evaluate(STRAIN[None], rows, rows)
    with pytest.raises(TypeError, match=r"step = 0.5, need a fe2.TimeStep\(begin, length\)"):
        point.evaluate(STRAIN[None], rows, rows, step=0.5)
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)), fe2.ExactLaw(rve))
    with pytest.raises(ValueError, match="ExactLaw depends on time and got no step"):
        problem.sigma.update()
    with pytest.raises(ValueError, match=r"need MacroProblem.solve\(duration=...\)"):
        problem.solve(log=None)
    with pytest.raises(ValueError, match=r"duration = -1\.0: need a finite time above 0"):
        problem.solve(duration=-1.0, log=None)


# Zener: exact where the rate is constant within steps, whatever their lengths.


def zener_at_constant_rate(z, rate, t):
    """σ = ∫ G(t−s) ε̇ ds = (G t + Σ Gᵢ τᵢ (1 − exp(−t/τᵢ))) ε̇, for deviator and pressure alike."""
    bulk, shear = z.bulk * t, z.shear * t
    for i, tau in enumerate(z.relaxation_time):
        gone = -tau * np.expm1(-t / tau)
        shear += z.branch_shear[i] * gone
        bulk += z.branch_bulk[i] * gone if z.branch_bulk else 0.0
    pressure, deviator = parts(rate)
    return bulk * pressure + shear * deviator


@pytest.mark.parametrize("material", [POLYMER, RUBBER])
def test_zener_at_constant_rate(material):
    times = np.array([0.01, 0.5, 3.0, 20.0, 20.001])
    found = stresses(walk(law(material), times[:, None] * STRAIN, np.diff(times, prepend=0.0)))
    for t, stress in zip(times, found, strict=True):
        close(stress, zener_at_constant_rate(material, STRAIN, t), 1e-12)


@pytest.mark.parametrize("ramp", [1e-9, 0.7])
def test_zener_relaxes_after_a_ramp(ramp):
    """The strain grows for some time and is held: two constant rates, by superposition."""
    times = ramp + np.array([0.0, 0.1, 1.0, 1.01, 9.0, 100.0])
    found = stresses(walk(law(POLYMER), np.tile(STRAIN, (len(times), 1)), np.diff(times, prepend=0.0)))
    for t, stress in zip(times, found, strict=True):
        expected = zener_at_constant_rate(POLYMER, STRAIN / ramp, t)
        if t > ramp:
            expected = expected - zener_at_constant_rate(POLYMER, STRAIN / ramp, t - ramp)
        # The difference of two ramps of 1e9 times the rate loses digits in the reference: eps · t/ramp.
        close(stress, expected, 1e-12 if ramp > 0.1 else 1e-15 * max(t, 1.0) / ramp)
    # After a jump, the closed form itself: G + Σ Gᵢ exp(−t/τᵢ), in error by the length of the ramp.
    if ramp < 1e-6:
        shear, bulk = POLYMER.shear, POLYMER.bulk
        for g, k, tau in zip(POLYMER.branch_shear, POLYMER.branch_bulk, POLYMER.relaxation_time, strict=True):
            shear, bulk = shear + g * np.exp(-1.0 / tau), bulk + k * np.exp(-1.0 / tau)
        pressure, deviator = parts(STRAIN)
        close(found[2], bulk * pressure + shear * deviator, 2e-9)


def test_zener_relaxes_in_shear_alone_without_bulk_branches():
    pressure, _ = parts(STRAIN)
    for response in walk(law(RUBBER), np.tile(STRAIN, (3, 1)), [0.1, 1.0, 10.0]):
        close((response.stress[0] @ ref.ONE) * ref.ONE / 3, RUBBER.bulk * pressure, 1e-13)


def creep(count):
    """Shear strain after 4 units of time under constant stress 1, in `count` steps after a jump; each by Newton."""
    state, strain = law(RUBBER).initial_state(1), np.zeros(6)
    for length in [1e-9, *np.full(count, 4.0 / count)]:
        for _ in range(2):  # the material is linear: the second iteration confirms
            r = law(RUBBER).evaluate(strain[None], state, state, MPI.COMM_SELF, step=fe2.TimeStep(0.0, length))
            residual = r.stress[0] - np.eye(6)[5]
            strain = strain - np.linalg.solve(r.tangent[0], residual)
        assert abs(residual).max() < 1e-12
        state = r.state
    return strain[5]


def test_zener_creeps_with_errors_of_second_order():
    """ε = σ/2G (1 − G₁/(G + G₁) exp(−t/τ_c)), τ_c = τ (G + G₁)/G (Simo & Hughes 1998, section 10.1)."""
    g, g1, tau = RUBBER.shear, RUBBER.branch_shear[0], RUBBER.relaxation_time[0]
    exact = (1 - g1 / (g + g1) * np.exp(-4.0 * g / (g + g1) / tau)) / (2 * g)
    errors = [abs(creep(n) / exact - 1) for n in (10, 20, 40)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert abs(orders - 2).max() < 0.05 and errors[-1] < 1e-4


@pytest.mark.parametrize(("length", "share"), [(1e-10, 1.0), (1e12, 0.0)])
def test_zener_is_elastic_in_very_short_and_very_long_steps(length, share):
    """From G + Σ Gᵢ to G: φ = 1 − x/2 + ... for short steps, 1/x for long ones."""
    (found,) = walk(law(POLYMER), STRAIN[None], [length])
    bulk, shear = POLYMER.bulk + share * sum(POLYMER.branch_bulk), POLYMER.shear + share * sum(POLYMER.branch_shear)
    stress, tangent = ref.linear(bulk, shear)(STRAIN)
    close(found.tangent[0], tangent, 1e-10)
    close(found.stress[0], stress, 1e-10)


def test_a_maxwell_fluid_forgets_its_deviator():
    fluid = fe2.Zener(2000.0, 0.0, 700.0, 2.0)
    found = stresses(walk(law(fluid), np.tile(STRAIN, (2, 1)), [1.0, 200.0]))
    close(found[-1], fluid.bulk * parts(STRAIN)[0], 1e-13)


def test_zener_dissipates_what_its_dashpots_do():
    """Work minus stored energy is Σ ∫ 2 Gᵢ ‖dev qᵢ‖²/τᵢ + Kᵢ tr(qᵢ)²/τᵢ dt along a path of random legs.

    Both integrals are taken over 200 short steps h of each leg, by Simpson's rule, whose error for exp(−2 t/τ) is
    8/180 (h/τ)⁴ of it: at most 2e-8.
    """
    point, steps = law(POLYMER), 200
    corners = np.vstack([np.zeros(6), np.random.default_rng(5).uniform(-0.01, 0.01, (4, 6))])
    lengths = [0.3, 2.0, 5.0, 0.1]
    state, stress, work, lost = point.initial_state(1), np.zeros(6), 0.0, 0.0
    moduli = list(zip(POLYMER.branch_shear, POLYMER.branch_bulk, POLYMER.relaxation_time, strict=True))

    def springs(state):
        return point.layout.view(state, "spring_strain")[0]

    def rate(state):
        shares = zip(springs(state), moduli, strict=True)
        return sum((2 * g * q @ ref.DEV @ q + k * (ref.ONE @ q) ** 2) / tau for q, (g, k, tau) in shares)

    def stored(strain, state):
        q = [(strain, (POLYMER.shear, POLYMER.bulk, None)), *zip(springs(state), moduli, strict=True)]
        return sum(g * e @ ref.DEV @ e + k / 2 * (ref.ONE @ e) ** 2 for e, (g, k, _) in q)

    for a, b, length in zip(corners[:-1], corners[1:], lengths, strict=True):
        strains = a + np.linspace(0, 1, steps + 1)[1:, None] * (b - a)
        found = walk(point, strains, np.full(steps, length / steps), state)
        power = np.array([stress @ (b - a), *(r.stress[0] @ (b - a) for r in found)])
        rates = [rate(state), *(rate(r.state) for r in found)]
        work += simpson(power, dx=1 / steps)
        leg = simpson(rates, dx=length / steps)
        assert leg > 0
        lost, state, stress = lost + leg, found[-1].state, found[-1].stress[0]
        assert abs(work - stored(b, state) - lost) < 1e-7 * work


# Perzyna.


def equivalent(stress):
    return np.sqrt(1.5 * stress @ ref.DEV @ stress)


SHEAR = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.01])  # ε_eq = √(2/3) 0.01


def overstress(count, material=LINEAR, time=0.1):
    """Overstress at the beginning and after some time at constant strain."""
    first, *rest = walk(law(material), np.tile(SHEAR, (count + 1, 1)), [1e-14, *np.full(count, time / count)])
    out = []
    for r in (first, rest[-1]):
        (alpha,) = law(material).layout.view(r.state, "accumulated_plastic_strain")
        out.append(equivalent(r.stress[0]) - material.yield_stress - material.hardening * alpha)
    return out


def test_linear_overstress_relaxes_exponentially():
    """ṡ = −(3G + H) α̇ = −(3G + H) s/η; in n steps of backward Euler (1 + (3G + H) Δt/η)⁻ⁿ, of first order."""
    rate = (3 * LINEAR.shear + LINEAR.hardening) / LINEAR.viscosity
    errors = []
    for n in (20, 40, 80):
        start, end = overstress(n)
        # The first step is so short that nothing flows.
        assert start == pytest.approx(3 * LINEAR.shear * np.sqrt(2 / 3) * 0.01 - LINEAR.yield_stress, rel=1e-12)
        assert end == pytest.approx(start * (1 + rate * 0.1 / n) ** -n, rel=1e-10)
        errors.append(abs(end / start / np.exp(-0.1 * rate) - 1))
    assert abs(np.log2(np.divide(errors[:-1], errors[1:])) - 1).max() < 0.1


def test_power_overstress_relaxes_as_its_differential_equation():
    """ṡ = −(3G + H) (σ_y/η) (s/σ_y)^m, whose solution is s₀ (1 + (m−1) k t)^(−1/(m−1)), k = ... (s₀/σ_y)^(m−1)."""
    m, y = POWER.exponent, POWER.yield_stress
    errors = []
    for n in (20, 40, 80):
        start, end = overstress(n, POWER)
        k = (3 * POWER.shear + POWER.hardening) / POWER.viscosity * (start / y) ** (m - 1)
        exact = start * (1 + (m - 1) * k * 0.1) ** (-1 / (m - 1))
        errors.append(abs(end / exact - 1))
    assert abs(np.log2(np.divide(errors[:-1], errors[1:])) - 1).max() < 0.1 and errors[-1] < 0.02


@pytest.mark.parametrize("exponent", [1.0, 3.0, 20.0])
@pytest.mark.parametrize("rate", [1e-6, 0.1])
def test_flow_stress_at_constant_rate(exponent, rate):
    """Without hardening the plastic rate becomes the rate of strain, r = √(2/3) ‖ė‖: q = σ_y (1 + (η r/σ_y)^(1/m))."""
    material = fe2.Perzyna(164e3, 80e3, 240.0, 0.0, viscosity=3e4, exponent=exponent)
    count, length = 60, 0.01 / rate
    strains = np.arange(1, count + 1)[:, None] * SHEAR * np.sqrt(1.5) * rate * length / 0.01
    found = stresses(walk(law(material), strains, np.full(count, length)))
    expected = 240.0 * (1 + (3e4 * rate / 240.0) ** (1 / exponent))
    assert equivalent(found[-1]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 3.0, 20.0])
def test_perzyna_solves_its_step_for_any_length(exponent):
    """q = σ_y + Hα + σ_y (η Δ/(σ_y Δt))^(1/m) with q = q_trial − 3GΔ: a root of one variable, and any guess.

    Steps of lengths over 24 orders of magnitude, strains just above yield and far above.
    """
    material = fe2.Perzyna(**STEEL, viscosity=3e4, exponent=exponent)
    point, rows = law(material), law(material).initial_state(1)
    first = material.yield_stress / (3 * material.shear)
    guess = rows
    for size in (1 + 1e-6, 1.1, 3.0, 100.0):
        for length in 10.0 ** np.array([0, -12, 12, -3, 3]):
            strain = SHEAR / 0.01 * np.sqrt(1.5) * size * first
            r = point.evaluate(strain[None], rows, guess, MPI.COMM_SELF, step=fe2.TimeStep(0.0, length))
            guess = r.state  # of another strain and length: the result may not depend on it
            trial = 3 * material.shear * size * first - material.yield_stress
            whole = trial / (3 * material.shear + material.hardening)

            def excess(u, trial=trial, whole=whole, length=length):
                """Of the overstress, for the share of the trial stress that is left, in logarithms."""
                left = trial * np.exp(u)
                flow = material.viscosity / material.yield_stress / length * whole * -np.expm1(u)
                return np.log(left / material.yield_stress) - np.log(max(flow, 1e-300)) / exponent

            left = trial * np.exp(brentq(excess, -600.0, -1e-280, xtol=1e-15, rtol=1e-15))
            alpha = (trial - left) / (3 * material.shear + material.hardening)
            expected = material.yield_stress + material.hardening * alpha + left
            assert equivalent(r.stress[0]) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("exponent", "viscosity"), [(1.0, 1e-10), (4.0, 1e-60)])
def test_perzyna_without_viscosity_is_j2(exponent, viscosity):
    strains = PATH[:, None] * np.array([0.3, -0.5, 0.7, 0.1, 0.2, -0.4])
    steel = law(fe2.J2(**STEEL))
    state, viscous = steel.initial_state(1), law(fe2.Perzyna(**STEEL, viscosity=viscosity, exponent=exponent))
    for strain, r in zip(strains, walk(viscous, strains, np.ones(len(PATH))), strict=True):
        plastic = steel.evaluate(strain[None], state, state)
        state = plastic.state
        close(r.stress, plastic.stress, 1e-12)
        close(r.tangent, plastic.tangent, 1e-11)


@pytest.mark.parametrize("material", [LINEAR, POWER])
def test_perzyna_is_elastic_in_very_short_steps(material):
    (found,) = walk(law(material), [SHEAR], [1e-20])
    stress, tangent = ref.linear(material.bulk, material.shear)(SHEAR)
    close(found.stress[0], stress, 1e-12)
    close(found.tangent[0], tangent, 1e-12)


@pytest.mark.parametrize("material", [LINEAR, POWER])
def test_perzyna_dissipates(material):
    """σ' : (ε' − ε) is at least the growth of the stored energy K/2 tr² + G ‖e − ε_p‖² + H α²/2, by convexity."""
    point, view = law(material), law(material).layout.view
    rng = np.random.default_rng(6)
    strains, lengths = rng.uniform(-0.01, 0.01, (12, 6)), 10.0 ** rng.uniform(-6, 2, 12)

    def stored(strain, state):
        e = ref.DEV @ strain - view(state, "plastic_strain")[0]
        (alpha,) = view(state, "accumulated_plastic_strain")
        return material.bulk / 2 * (ref.ONE @ strain) ** 2 + material.shear * e @ e + material.hardening / 2 * alpha**2

    before, last = 0.0, np.zeros(6)
    for strain, r in zip(strains, walk(point, strains, lengths), strict=True):
        after = stored(strain, r.state)
        work = r.stress[0] @ (strain - last)
        assert work - (after - before) > 0
        before, last = after, strain


# All of them.


@pytest.mark.parametrize("plane", ["3D", "strain", "stress"])
@pytest.mark.parametrize("name", MATERIALS)
def test_tangents_are_symmetric_and_derivatives_of_the_step(name, plane):
    dim = 3 if plane == "3D" else 2
    point = law(MATERIALS[name], dim, "strain" if dim == 3 else plane)
    d = point.strain_size
    loaded = STRAIN[:d] * (1, 1, 1, 1, 1, 1)[:d] * 2
    (before,) = walk(point, [loaded], [0.4])
    strain, step = np.array([0.005, -0.006, 0.002, 0.001, 0.004, -0.003])[:d], 1e-7
    shifted = np.concatenate([strain[None], strain + step * np.eye(d), strain - step * np.eye(d)])
    rows = np.repeat(before.state, len(shifted), axis=0)
    found = [
        point.evaluate(shifted[k : k + 8], rows[k : k + 8], rows[k : k + 8], step=fe2.TimeStep(0.4, 0.2))
        for k in range(0, len(shifted), 8)
    ]
    stress, tangent = np.concatenate([r.stress for r in found]), found[0].tangent[0]
    close(tangent, ((stress[1 : d + 1] - stress[d + 1 :]) / (2 * step)).T, 1e-6)
    close(tangent, tangent.T, 1e-12)


@pytest.mark.parametrize("plane", ["3D", "strain", "stress"])
@pytest.mark.parametrize("name", MATERIALS)
def test_a_homogeneous_rve_is_its_material(name, plane):
    """Along a path with steps of different lengths; the local stress is that of the end of the step."""
    dim = 3 if plane == "3D" else 2
    plane = "strain" if dim == 3 else plane
    point, rve = law(MATERIALS[name], dim, plane), homogeneous(MATERIALS[name], dim, plane=plane)
    strains = np.random.default_rng(7).uniform(-0.01, 0.01, (5, point.strain_size))
    lengths, state, begin = [0.1, 1e-3, 2.0, 0.5, 0.5], None, 0.0
    for strain, length, r in zip(strains, lengths, walk(point, strains, lengths), strict=True):
        h = rve.homogenise(strain, state, step=fe2.TimeStep(begin, length), fields=True)
        state, begin = h.state, begin + length
        close(h.stress, r.stress, 1e-12)
        close(h.tangent, r.tangent, 1e-11)
        everywhere = np.broadcast_to(r.stress[0], h.local_stress[0].shape)
        close(h.local_stress[0], everywhere, 1e-11)
        close(rve.set_state(h.state[0]).stress(), everywhere, 1e-11)


def laminate_reference(strain, ramp, times):
    """Stress (6,) of the layers RUBBER and an elastic one at half of the volume, normal x, after a ramp of the strain.

    The viscous strain v of the rubber's deviator, v̇ = (dev ε₁ − v)/τ, with ε₁ by equilibrium of the layers at each
    time: Bᵀ (σ₁ − σ₂) = 0 for ε₁ = E + B a/2, ε₂ = E − B a/2. The differential equation by SciPy.
    """
    b = ref.jump_map(np.array([1.0, 0.0, 0.0]))
    c1 = ref.linear(RUBBER.bulk, RUBBER.shear + RUBBER.branch_shear[0])(strain)[1]
    c2 = ref.linear(9000.0, 3000.0)(strain)[1]
    branch, tau = 2 * RUBBER.branch_shear[0], RUBBER.relaxation_time[0]

    def layers(t, v):
        E = strain * min(t / ramp, 1.0)
        a = np.linalg.solve(b.T @ (c1 + c2) @ b / 2, -b.T @ ((c1 - c2) @ E - branch * v))
        e1, e2 = E + b @ a / 2, E - b @ a / 2
        return e1, (c1 @ e1 - branch * v + c2 @ e2) / 2

    def rate(t, v):
        return (ref.DEV @ layers(t, v)[0] - v) / tau

    first = solve_ivp(rate, (0.0, ramp), np.zeros(6), rtol=1e-11, atol=1e-16, method="DOP853")
    second = solve_ivp(rate, (ramp, times[-1]), first.y[:, -1], t_eval=times, rtol=1e-11, atol=1e-16, method="DOP853")
    return np.array([layers(t, v)[1] for t, v in zip(times, second.y.T, strict=True)])


def test_a_laminate_relaxes_with_errors_of_second_order():
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    rve = fe2.RVE(cell, {1: RUBBER, 2: fe2.LinearElastic(9000.0, 3000.0)}, degree=1)
    strain = np.array([0.01, -0.004, 0.006])
    (expected,) = laminate_reference(ref.spatial(strain), 1.0, [3.0])[:, ref.PLANE]
    errors = []
    for n in (4, 8, 16):  # per unit of time, so that the kink of the path is at the end of a step
        state = None
        for k in range(3 * n):
            h = rve.homogenise(strain * min((k + 1) / n, 1.0), state, step=fe2.TimeStep(k / n, 1 / n))
            state = h.state
        errors.append(abs(h.stress[0] - expected).max() / abs(expected).max())
    assert abs(np.log2(np.divide(errors[:-1], errors[1:])) - 2).max() < 0.1 and errors[-1] < 1e-4


def test_points_side_by_side_and_in_substeps_take_the_same_step():
    """Sub-steps of the strain within an RVE problem are one step of the materials, of the whole length."""
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    materials = {1: POWER, 2: fe2.LinearElastic(9000.0, 3000.0)}
    strains = np.array([[0.02, 0.0, 0.01], [0.0, 0.01, -0.03], [0.001, 0.0, 0.0]])
    step = fe2.TimeStep(0.0, 0.3)
    together = fe2.RVE(cell, materials, degree=1).homogenise(strains, step=step)
    hurried = fe2.RVE(cell, materials, degree=1, solver=fe2.SolverOptions(max_iterations=5))
    alone = [hurried.homogenise(e, step=step, on_failure="report") for e in strains]
    assert max(len(h.failures) for h in alone) == 0 and together.iterations.max() > 5  # it took sub-steps
    close(np.concatenate([h.stress for h in alone]), together.stress, 1e-9)


# Materials of users.


@dataclass(frozen=True)
class Ageing(fe2.Material):
    """An elastic material whose shear modulus grows with time: linear, and without state."""

    bulk: float
    shear: float
    rate_dependent = True

    def energy(self, strain, state=None, local=None):
        e = ufl.dev(strain)
        return self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * (1 + self.time) * ufl.inner(e, e)


def test_a_material_may_take_the_time():
    """Also where its stiffness does not depend on the displacement: it is assembled anew for each step."""
    rve, material = homogeneous(Ageing(4000.0, 1000.0)), Ageing(4000.0, 1000.0)
    strain = np.array([0.01, -0.004, 0.006])
    for begin, length in ((0.0, 1.0), (3.0, 0.5), (0.0, 0.25)):
        h = rve.homogenise(strain, step=fe2.TimeStep(begin, length))
        stress, tangent = ref.linear(4000.0, 1000.0 * (1 + begin + length))(ref.spatial(strain))
        close(h.stress[0], stress[ref.PLANE], 1e-12)
        close(h.tangent[0], tangent[np.ix_(ref.PLANE, ref.PLANE)], 1e-12)
        close(rve.set_state(h.state[0]).stress()[0, 0], stress[ref.PLANE], 1e-12)
    with pytest.raises(AttributeError, match=r"Ageing.time is known only during a step: use it in energy, stress or"):
        _ = material.time
    with pytest.raises(AttributeError, match="'Ageing' object has no attribute 'colour'"):
        _ = material.colour


class Forgetful(fe2.Material):
    def energy(self, strain, state=None, local=None):
        return (1 + self.dt) * ufl.inner(strain, strain)


@dataclass(frozen=True)
class Taken(Ageing):
    dt: float = 1.0


@dataclass(frozen=True)
class OwnStep(fe2.Material):
    dt: float
    time: float

    def energy(self, strain, state=None, local=None):
        return (self.dt + self.time) * ufl.inner(strain, strain)


def test_how_materials_name_time():
    with pytest.raises(AttributeError, match=r"`rate_dependent = True` \(this one has False\)"):
        fe2.UFLLaw(Forgetful())
    with pytest.raises(ValueError, match="an attribute 'dt' of its own"):
        fe2.UFLLaw(Taken(1.0, 1.0))
    # Without `rate_dependent` the names are free.
    rows = np.zeros((1, 0))
    close(fe2.UFLLaw(OwnStep(1.0, 2.0)).evaluate(np.eye(3)[:1], rows, rows).stress, np.array([[6.0, 0, 0]]), 1e-14)


@dataclass(frozen=True)
class KelvinVoigt(fe2.Material):
    """A dashpot beside a spring: the stress has a part 2 η ε̇, which no state has."""

    shear: float
    viscosity: float
    layout = fe2.StateLayout(last_strain=6)
    state_size = layout.size
    rate_dependent = True

    def energy(self, strain, state=None, local=None):
        change = strain - fe2.mandel.ufl_tensor(ufl.as_vector(self.layout.entries(state, "last_strain")))
        return self.shear * ufl.inner(strain, strain) + self.viscosity / self.dt * ufl.inner(change, change)

    def update(self, strain, state, local=None):
        vector = fe2.mandel.ufl_vector(strain)
        return [vector[i] for i in range(6)]


def test_a_stress_that_is_lost_with_the_rate_is_not_made_up():
    rve, strain = homogeneous(KelvinVoigt(1000.0, 50.0)), np.array([0.01, -0.004, 0.006])
    h = rve.homogenise(strain, step=fe2.TimeStep(0.0, 0.5), fields=True)
    close(h.stress[0], (2 * 1000.0 + 2 * 50.0 / 0.5) * strain, 1e-12)
    close(h.local_stress[0, 0, 0], h.stress[0], 1e-12)
    with pytest.raises(ValueError, match=r"is 2 MPa from .*: KelvinVoigt has .* homogenise\(..., fields=True"):
        rve.set_state(h.state[0])
    held = rve.homogenise(strain, h.state, step=fe2.TimeStep(0.5, 0.5))
    close(rve.set_state(held.state[0]).stress()[0, 0], 2 * 1000.0 * strain, 1e-12)
    rve.set_state(rve.initial_state(1)[0])


def test_a_wrong_sign_is_found_in_the_first_step():
    wrong = KelvinVoigt(-1000.0, 1.0)
    rve = homogeneous(wrong)
    with pytest.raises(ValueError, match="stiffness at zero strain is not positive"):
        rve.homogenise([0.0, 0.0, 0.1], step=fe2.TimeStep(0.0, 1.0))
    point = fe2.UFLLaw(wrong)
    rows = point.initial_state(1)
    with pytest.raises(ValueError, match="stiffness of KelvinVoigt at zero strain is not positive"):
        point.evaluate(np.zeros((1, 3)), rows, rows, step=fe2.TimeStep(0.0, 1.0))


def test_linear_elements_that_lock_are_warned_of_in_the_first_step():
    """In the user's own line; Poisson's ratio is that of the stiffness in the step."""
    rve, step = homogeneous(fe2.Zener(2000.0, 10.0, 1000.0, 1.0)), fe2.TimeStep(0.0, 1e6)
    with pytest.warns(UserWarning, match=r"Zener of tag 1 is nearly incompressible \(Poisson's ratio 0.49") as found:
        rve.homogenise([0.0, 0.0, 0.01], step=step)
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: fe2.Zener(-1.0, 1.0, 1.0, 1.0), "bulk"),
        (lambda: fe2.Zener(1.0, -1.0, 1.0, 1.0), "shear"),
        (lambda: fe2.Zener(1.0, 0.0, 0.0, 1.0), "all zero"),
        (lambda: fe2.Zener(1.0, 1.0, (1.0, 2.0), 1.0), r"branch_shear = \(1.0, 2.0\): need one number for each branch"),
        (lambda: fe2.Zener(1.0, 1.0, 1.0, 0.0), "relaxation_time"),
        (lambda: fe2.Zener(1.0, 1.0, (), ()), "need one number for each branch"),
        (lambda: fe2.Zener(1.0, 1.0, 1.0, 1.0, np.nan), "branch_bulk"),
        (lambda: fe2.Perzyna(1.0, 1.0, 1.0, 0.0, viscosity=0.0), "viscosity"),
        (lambda: fe2.Perzyna(1.0, 1.0, 1.0, -1.0, viscosity=1.0), "hardening"),
        (lambda: fe2.Perzyna(1.0, 1.0, 1.0, 0.0, viscosity=1.0, exponent=0.5), "exponent"),
    ],
)
def test_numbers_that_are_not_physical_are_refused(make, what):
    with pytest.raises(ValueError, match=what):
        make()


def test_what_depends_on_the_strain_alone_refuses_time(tmp_path):
    rve = homogeneous(Ageing(4000.0, 1000.0))
    with pytest.raises(ValueError, match="Ageing depends on time, which no varying RVE may"):
        fe2.VaryingLaw(rve, np.ones((1, 4), dtype=int))
    with pytest.raises(ValueError, match="Ageing, depends on time, and a snapshot has the strain alone"):
        fe2.rve_snapshots.compute(rve, np.zeros((1, 3)), tmp_path / "snapshots.h5", MPI.COMM_SELF)
    with pytest.raises(ValueError, match="Ageing, depends on time: snapshots and models have"):
        fe2.fingerprints.fingerprint(rve)


# Structures.


def pulled(comm, law, **options):
    """A bar in uniform strain, pulled by 1 % at constant rate and held in y."""
    problem = fe2.MacroProblem(meshes.bar(comm, size=(2.0, 1.0), n=(2, 1)), law)
    problem.prescribe("left", (0.0, None))
    problem.prescribe("right", (0.02, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("top", (None, 0.0))
    problem.record("right")
    problem.solve(**{"log": None} | options)
    return problem


def test_a_bar_at_constant_rate():
    problem = pulled(MPI.COMM_SELF, law(RUBBER, 2), steps=3, duration=7.0)
    for step, share in zip(problem.history, (1 / 3, 2 / 3, 1.0), strict=True):
        assert step.physical_time == pytest.approx(7.0 * share, rel=1e-14)
        stress = zener_at_constant_rate(RUBBER, 0.01 / 7.0 * np.eye(6)[0], 7.0 * share)
        assert step.force["right"][0] == pytest.approx(stress[0], rel=1e-10)


class Moody:
    """A law that refuses steps above some length."""

    rate_dependent = True

    def __init__(self, law, longest):
        self.law, self.longest, self.taken = law, longest, set()
        self.strain_size, self.state_size, self.initial_state = law.strain_size, law.state_size, law.initial_state

    def evaluate(self, strain, state, guess, comm, step):
        if step.length > self.longest:
            raise fe2.NotConverged([fe2.Failure(0, strain[0], ("too long",))])
        self.taken.add((step.begin, step.length))
        return self.law.evaluate(strain, state, guess, comm, step=step)


def test_a_step_that_is_cut_is_shorter_in_time():
    """As a run with the shorter steps from the beginning; the other way steps would keep their length in time."""

    def bar(law, **options):
        problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(4.0, 1.0), n=(4, 2)), law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.08, None))
        problem.solve(duration=5.0, log=None, **options)
        return problem

    moody, calm = Moody(law(LINEAR, 2), 3.0), Moody(law(LINEAR, 2), 9.0)
    cut, straight = bar(moody, steps=1), bar(calm, steps=2)
    assert [s.cuts for s in cut.history] == [1, 0] and [s.cuts for s in straight.history] == [0, 0]
    assert moody.taken == calm.taken == {(0.0, 2.5), (2.5, 2.5)}
    assert [s.physical_time for s in cut.history] == [2.5, 5.0]
    assert np.array_equal(cut.u.x.array, straight.u.x.array)
    coarse = bar(calm, steps=1)
    assert abs(coarse.sigma.stresses() - cut.sigma.stresses()).max() > 1e-3 * abs(cut.sigma.stresses()).max()


@cache
def composite():
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    return fe2.ExactLaw(fe2.RVE(cell, {1: RUBBER, 2: LINEAR}, degree=1))


def bent(comm, **options):
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), composite())
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.08, None))
    problem.body_force((0.0, -0.2))
    problem.record("right")
    problem.solve(**{"steps": 4, "duration": 6.0, "load": lambda t: min(2 * t, 1.0), "log": None} | options)
    return problem


@pytest.mark.mpi
def test_ranks_agree(comm):
    a, b = bent(comm), bent(MPI.COMM_SELF)
    forces = [[s.force["right"][0] for s in p.history] for p in (a, b)]
    assert forces[0] == pytest.approx(forces[1], rel=1e-9) and forces[1][-1] < 0.95 * max(forces[1])  # it relaxes
    (micro,) = a.micro([[2.0, 0.5]])  # the fields of the RVE there have its stress
    mean = np.einsum("cq,cqi->i", rve_weights(), micro.body().stress())
    close(mean, micro.stress, 1e-8)


def rve_weights():
    rve = composite().rve
    return rve.body.weights / rve.volume


@pytest.mark.mpi
def test_a_run_continues_bit_equal_with_its_duration_alone(comm, mpi_tmp_path):
    whole = bent(comm)
    bent(comm, until=0.5, folder=mpi_tmp_path)
    for other in (5.0, None):
        what = r"written with duration = 6.0, this run has 5.0" if other else "need MacroProblem.solve"
        with pytest.raises((fe2.CheckpointError, ValueError), match=what):
            bent(comm, duration=other, folder=mpi_tmp_path, restart=True)
    last = bent(comm, folder=mpi_tmp_path, restart=True)
    assert np.array_equal(last.u.x.array, whole.u.x.array)
    assert np.array_equal(last.sigma.stress.x.array, whole.sigma.stress.x.array)
    assert [s.physical_time for s in last.history] == [1.5, 3.0, 4.5, 6.0]


def test_laws_without_time_are_called_as_before():
    """Beside one that has it: each gets what it takes."""

    class Plain:
        strain_size, state_size = 3, 0

        def initial_state(self, n):
            return np.zeros((n, 0))

        def evaluate(self, strain, state, guess, comm):
            tangent = np.tile(100.0 * np.eye(3), (len(strain), 1, 1))
            return fe2.Response(100.0 * strain, tangent, guess)

    domain = meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)).with_tags(np.array([1, 2]))
    for laws, duration in ((Plain(), None), (Plain(), 3.0), ({1: Plain(), 2: law(RUBBER, 2)}, 3.0)):
        problem = fe2.MacroProblem(domain, laws)
        problem.prescribe("left", (0.0, 0.0))
        problem.traction("right", (1.0, 0.0))
        (step,) = problem.solve(steps=1, duration=duration, log=None)
        assert step.physical_time == duration
