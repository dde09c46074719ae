# SPDX-License-Identifier: MIT
"""Learned laws at finite strain and of conduction: objectivity, certificates, tiers, and what they refuse."""

import copy
import dataclasses
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import ufl
from mpi4py import MPI
from trained import CASES, MODULI, UNIT

import coupling
import fe2
import meshes
import spon
import spon.jit
from spon import equino
from spon.constitutive import largest_tangent
from spon.equino.baselines import train_as_published, train_sobolev, train_supervised
from spon.equino.vpionet import train_vpionet
from spon.training import TrainingOptions

FINITE = ["finite strain", "finite strain in 3D"]
ALL = [*FINITE, "conduction"]
ROUNDING = 1e-12
FEW = TrainingOptions(steps=3, lbfgs=3)


@pytest.fixture
def case(request, trained_cases):
    return trained_cases(request.param)


def cases(names):
    return pytest.mark.parametrize("case", names, indirect=True)


def rotations(n, dim, seed=0):
    """Random rotations (n, dim, dim)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, dim, dim)))
    q = q * np.sign(np.einsum("nii->ni", r))[:, None]
    q[np.linalg.det(q) < 0, :, 0] *= -1
    return q


def turned(q, h):
    """Displacement gradients Q F − I (n, d) of rotations (n, dim, dim) and gradients (n, d)."""
    dim = q.shape[-1]
    return (q @ (np.eye(dim) + h.reshape(-1, dim, dim)) - np.eye(dim)).reshape(len(h), -1)


def turned_stress(q, p):
    """Q P (n, ..., d)."""
    dim = q.shape[-1]
    return np.einsum("nij,n...jk->n...ik", q, p.reshape(*p.shape[:-1], dim, dim)).reshape(p.shape)


def turned_tangent(q, a):
    dim = q.shape[-1]
    moduli = np.einsum("nai,nbk,nijkl->najbl", q, q, a.reshape(-1, *[dim] * 4))
    return moduli.reshape(a.shape)


def anywhere(case, n, scale=0.9, seed=3):
    """Strains (n, d) of the range, turned by any rotation where that is finite."""
    e = case.strains(n, scale, seed)
    return turned(rotations(n, case.dim, seed), e) if case.rve.measure.finite else e


def predict(model, e):
    with torch.no_grad():
        return [x.numpy() for x in model(torch.from_numpy(e))]


def evaluate(law, e, state=None, guess=None, comm=MPI.COMM_SELF):
    state = law.initial_state(len(e)) if state is None else state
    return law.evaluate(e, state, state if guess is None else guess, comm)


def certify(case, e, everywhere=True, model=None):
    model = case.model if model is None else model
    with torch.no_grad():
        return spon.certify(model, e, case.model.rve_modes.at_points if everywhere else None)


def close(found, right, tolerance=ROUNDING):
    np.testing.assert_allclose(found, right, rtol=0, atol=tolerance * abs(right).max())


def relative(found, right):
    return np.linalg.norm(found - right, axis=1) / np.linalg.norm(right, axis=1)


# The model.


@cases(ALL)
def test_stress_is_in_equilibrium_at_any_strain(case):
    """Modes and, at finite strain, turned fields: no force on any unknown, relative to those of single points."""
    data = coupling.rve_snapshots(case.rve, case.snapshots)
    at, index = case.model.rve_modes.at_points, case.rve.unknowns.index
    components = case.rve.measure.components(case.dim)
    e = anywhere(case, 5)
    with torch.no_grad():
        fields = case.model.fields(torch.from_numpy(e), at).stress.numpy()
    for stress in (at.stress_modes.numpy().transpose(2, 0, 1), fields):
        weighted = (data.weights[:, None] * stress).reshape(len(stress), -1)
        forces, sizes = weighted @ data.space.strain_operator, abs(weighted) @ abs(data.space.strain_operator)
        held = index < 0
        assert 0 < held.sum() < len(index) / 2 and components == len(index) // len(data.space.nodes)
        summed, scale = np.zeros((2, len(stress), index.max() + 1))
        for k in np.flatnonzero(~held):
            summed[:, index[k]] += forces[:, k]
            scale[:, index[k]] += sizes[:, k]
        # The solver leaves 1e-11 of each snapshot, and modes are combinations of them.
        assert (abs(summed).max(axis=1) < 1e-8 * scale.max(axis=1)).all()


@cases(ALL)
def test_means_of_the_fields_are_those_of_the_macroscale(case):
    e = anywhere(case, 20)
    at = case.model.rve_modes.at_points
    with torch.no_grad():
        local = case.model.fields(torch.from_numpy(e), at)
    w = at.weights.numpy()
    np.testing.assert_allclose(np.einsum("p,npd->nd", w, local.strain.numpy()), e, rtol=0, atol=1e-10 * abs(e).max())
    close(np.einsum("p,npd->nd", w, local.stress.numpy()), predict(case.model, e)[0], 1e-10)


@cases(FINITE)
def test_everything_turns_with_the_frame(case):
    """P(Q F) = Q P(F): the network, its tangent, the fields at the points, the modes, and the bounds stay."""
    e, q = anywhere(case, 20), rotations(20, case.dim, 7)
    there = turned(q, e)
    (stress, tangent), (stress_there, tangent_there) = predict(case.model, e), predict(case.model, there)
    close(stress_there, turned_stress(q, stress))
    close(tangent_there, turned_tangent(q, tangent))
    close(tangent, tangent.transpose(0, 2, 1))
    with torch.no_grad():
        fields, fields_there = (case.model.fields(torch.from_numpy(x)) for x in (e, there))
    close(fields_there.stress.numpy(), turned_stress(q, fields.stress.numpy()))
    one = np.eye(case.dim).ravel()
    close(fields_there.strain.numpy() + one, turned_stress(q, fields.strain.numpy() + one))
    here, at_there = certify(case, e), certify(case, there)
    close(at_there.corrected.numpy(), turned_stress(q, here.corrected.numpy()))
    for mine, other in ((at_there.upper, here.upper), (at_there.gap, here.gap)):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-8)
    correct = spon.ModalCorrector(case.model)
    found, found_there = correct(torch.from_numpy(e)), correct(torch.from_numpy(there))
    # Newton's method leaves some digits less.
    close(found_there.stress.numpy(), turned_stress(q, found.stress.numpy()), 1e-9)
    close(found_there.tangent.numpy(), turned_tangent(q, found.tangent.numpy()), 1e-8)


@cases(FINITE)
def test_fields_of_the_body_turn_with_the_frame(case):
    """By the networks and by the modes: of a rotation about the origin, I + ∇u is turned, and so is x + u(x)."""
    e, q = case.strains(1), rotations(1, case.dim, 4)
    there = turned(q, e)
    x = case.rve.body.V.tabulate_dof_coordinates()[:, : case.dim]
    one = np.eye(case.dim).ravel()
    for law in (coupling.SurrogateLaw(case.model, rve=case.rve), certified(case, tolerance=0.0)):
        state = law.initial_state(1)
        here, at_there = law.micro_fields(e[0], state[0]), law.micro_fields(there[0], state[0])
        close(at_there.stress.reshape(1, -1, one.size), turned_stress(q, here.stress.reshape(1, -1, one.size)), 1e-9)
        strains = [f.strain.reshape(1, -1, one.size) + one for f in (here, at_there)]
        close(strains[1], turned_stress(q, strains[0]), 1e-9)
        places = [x + f.displacement.x.array.reshape(x.shape) for f in (here, at_there)]
        np.testing.assert_allclose(places[1], places[0] @ q[0].T, rtol=0, atol=1e-9)


@cases(ALL)
def test_rest_has_no_stress_and_tangents_are_slopes(case):
    zero = np.zeros((1, case.rve.strain_size))
    stress, tangent = predict(case.model, zero)
    assert not stress.any()
    close(tangent, tangent.transpose(0, 2, 1))
    e, step = anywhere(case, 8), 1e-5 * case.amplitude
    tangent = predict(case.model, e)[1]
    for k in range(case.rve.strain_size):
        change = step * np.eye(case.rve.strain_size)[k]
        slope = (predict(case.model, e + change)[0] - predict(case.model, e - change)[0]) / (2 * step)
        close(tangent[:, :, k], slope, 1e-6)


@cases(FINITE)
def test_small_displacement_gradients_are_small_strains(case):
    """A neo-Hookean solid is linear elastic with the same moduli, and a small rotation has no stress. Differences are
    the model's error at rest, and the size of the strain."""
    dim = case.dim
    materials = {tag: fe2.LinearElastic(**moduli) for tag, moduli in MODULI.items()}
    linear = fe2.RVE(case.rve.domain, materials, degree=1)
    h = 1e-6 * np.random.default_rng(0).uniform(-1, 1, (10, dim, dim))
    small = fe2.mandel.basis(dim).reshape(-1, dim * dim) @ h.reshape(10, -1).T
    right = linear.homogenise(small.T).stress @ fe2.mandel.basis(dim).reshape(-1, dim * dim)
    found = predict(case.model, h.reshape(10, -1))[0]
    assert relative(found, right).max() < 0.03
    symmetric = (h + h.transpose(0, 2, 1)) / 2
    close(found, predict(case.model, symmetric.reshape(10, -1))[0], 1e-5)
    linear.destroy()


@cases(FINITE)
def test_snapshots_with_and_without_rotation_are_the_same_data(case, tmp_path):
    """The stretch is what the networks learn from; the solutions agree to the tolerance of the solver."""
    e = case.strains(6)
    found = []
    for name, strain in (("still", e), ("turned", turned(rotations(6, case.dim, 2), e))):
        path = tmp_path / f"{name}.h5"
        fe2.rve_snapshots.compute(case.rve, strain, path, MPI.COMM_SELF, progress=False)
        found.append(coupling.rve_snapshots(case.rve, path))
    still, moved = found
    close(moved.strain, e, 1e-14 / case.amplitude)
    for name in ("coordinates", "stress", "tangent", "energy", "local_strain", "local_stress", "fluctuation"):
        close(getattr(moved, name), getattr(still, name), 1e-8)
    for mine, other in zip(moved.projected, still.projected, strict=True):
        close(mine, other, 1e-8)
    # And the fields are those of the solutions.
    local = still.strain[:, None] + still.local_strain
    close(still.laws.stress(torch.from_numpy(local)).numpy(), still.local_stress, 1e-9)
    close(np.einsum("p,npd->nd", still.weights, still.local_stress), still.stress, 1e-9)


@cases(ALL)
def test_a_file_gives_the_same_model(case, tmp_path):
    case.model.save(tmp_path / "again.safetensors")
    again, e = spon.load(tmp_path / "again.safetensors"), torch.from_numpy(anywhere(case, 20))
    assert again.measure == case.model.measure == spon.load(tmp_path / "again.safetensors", whole=True).measure
    assert again.measure.name == case.rve.measure.name
    assert torch.equal(again.gap_calibration, case.model.gap_calibration)
    with torch.no_grad():
        for mine, other in zip(again(e), case.model(e), strict=True):
            assert torch.equal(mine, other)
        assert torch.equal(spon.certify(again, e).gap, spon.certify(case.model, e).gap)
    correct = spon.ModalCorrector(case.model)
    correct.save(tmp_path / "corrector.safetensors")
    assert torch.equal(spon.load(tmp_path / "corrector.safetensors")(e).stress, correct(e).stress)


# Certificates.


@cases(FINITE)
def test_at_finite_strain_the_upper_bound_holds_and_the_rest_is_estimated(case):
    """Of 48 snapshots the largest factor, or the one before, calibrates; unseen strains of the range are covered."""
    e = anywhere(case, 200)
    exact, (stress, _) = case.rve.homogenise(e), predict(case.model, e)
    c = certify(case, e)
    assert (c.upper.numpy() >= exact.energy).all() and c.stress_bound.isnan().all()
    for found in (c, certify(case, e, everywhere=False)):
        distance = abs(found.upper.numpy() - exact.energy)
        assert (distance <= found.gap.numpy()).mean() > 0.95
        assert np.median(found.gap.numpy() / distance) < 10
        error, estimate = abs(stress - exact.stress), found.stress_estimate.numpy()
        assert ((estimate >= error).mean(axis=0) > 0.95).all()
        assert np.median(estimate / error) < 4
        assert np.median(abs(found.corrected.numpy() - exact.stress) / error) < 0.5
    # Also in the modes: their displacement has at least the exact energy.
    refined = spon.ModalCorrector(case.model)(torch.from_numpy(e), case.model.rve_modes.at_points)
    assert (refined.upper.numpy() >= exact.energy).all() and (refined.upper <= c.upper).all()
    assert ((refined.upper - refined.gap).numpy() <= exact.energy).mean() > 0.95


@cases(FINITE)
def test_the_upper_bound_holds_for_any_networks_and_far_outside(case):
    """Of learned numbers off by a tenth; wherever det F > 0 at each point, else there is none."""
    bad = spoilt(case.model)
    e = anywhere(case, 40, scale=2.0, seed=8)
    exact = case.rve.homogenise(e)
    upper = certify(case, e, model=bad).upper.numpy()
    known = np.isfinite(upper) & np.isfinite(exact.energy)
    assert known.sum() > 20 and (upper[known] >= exact.energy[known]).all()
    assert np.median(upper[known] / exact.energy[known]) > 1.001  # there is something to be bounded


@cases(FINITE)
def test_the_corrected_stress_is_the_derivative_of_the_upper_bound(case):
    e, step = anywhere(case, 4), 1e-5 * case.amplitude
    found = certify(case, e).corrected.numpy()
    for k in range(case.rve.strain_size):
        change = step * np.eye(case.rve.strain_size)[k]
        slope = (certify(case, e + change).upper - certify(case, e - change).upper).numpy() / (2 * step)
        np.testing.assert_allclose(found[:, k], slope, rtol=0, atol=1e-6 * abs(found).max())


def spoilt(model):
    """The model with every learned number off by about a tenth."""
    bad = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in bad.parameters():
            p *= 1 + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return bad


@pytest.mark.parametrize("learned", [True, False])
@cases(["conduction"])
def test_no_attack_violates_the_bounds_of_conduction(case, learned):
    """1,000 gradients: at random in the range, three times as large and down to 1e-8 of it, and from the worst of
    them uphill on the violation, in units of the gap, by central differences."""
    model = case.model if learned else spoilt(case.model)
    at, tried = case.model.rve_modes.at_points, 0

    def violation(g):
        nonlocal tried
        tried += len(g)
        exact = case.rve.homogenise(g)
        with torch.no_grad():
            c, (stress, _) = spon.certify(model, torch.from_numpy(g), at), model(torch.from_numpy(g))
        assert (c.lower.numpy() <= exact.energy).all() and (exact.energy <= c.upper.numpy()).all()
        assert (abs(stress.numpy() - exact.stress) <= c.stress_bound.numpy()).all()
        return np.maximum(exact.energy - c.upper.numpy(), c.lower.numpy() - exact.energy) / c.gap.numpy()

    rng = np.random.default_rng(0)
    unit = rng.uniform(-1, 1, (360, 2))
    unit[120:240] *= 3
    unit[240:] *= 10 ** rng.uniform(-8, 0, (120, 1))
    g = case.amplitude * unit
    g = g[np.argsort(violation(g))[-16:]]
    first, step = violation(g), 1e-3 * case.amplitude
    for size in (0.3, 0.3, 0.1, 0.1, 0.03, 0.03, 0.01, 0.01):
        slope = [violation(g + step * n) - violation(g - step * n) for n in np.eye(2)]
        slope = np.stack(slope, axis=1) / np.linalg.norm(slope, axis=0)[:, None].clip(min=1e-300)
        g = g + size * np.linalg.norm(g, axis=1, keepdims=True) * slope
    assert tried >= 850
    last = violation(g)
    assert last.max() > first.max()  # it did go uphill
    more = case.amplitude * np.random.default_rng(1).uniform(-1.5, 1.5, (1000 - min(tried, 1000) + 1, 2))
    violation(more)
    assert tried > 1000


def test_energies_of_gradients_are_tested_in_their_own_unit(trained_cases):
    """Convex up to |g| = 1 and not at `UNIT`: ψ = ½ g² − 2 u² exp(−g²/u²), whose stiffness at g = 1.22 u is
    1 − 8 exp(−1.5) < 0."""
    case = trained_cases("conduction")
    density = lambda g: 0.5 * ufl.inner(g, g) - 2 * UNIT**2 * ufl.exp(-ufl.inner(g, g) / UNIT**2)  # noqa: E731
    law = coupling.phase_law(fe2.Energy(density, measure="gradient"), 2)
    assert largest_tangent(law) is not None  # that up to one would pass
    at = case.model.rve_modes.at_points
    laws = dataclasses.replace(at.laws, laws=(law, at.laws.laws[1]))
    with pytest.raises(ValueError, match="Energy: the energy is not convex"):
        spon.certify(case.model, torch.zeros(1, 2).double(), dataclasses.replace(at, laws=laws))


# Modes, and the certified law.


@cases(ALL)
def test_modes_are_near_the_exact_law(case):
    """In the range and beyond it, in machine code as in torch."""
    e = anywhere(case, 30, scale=1.3)
    exact = case.rve.homogenise(e)
    found = spon.ModalCorrector(case.model)(torch.from_numpy(e))
    plain = spon.ModalCorrector(case.model, compiled=False)(torch.from_numpy(e))
    for mine, other in ((found.stress, plain.stress), (found.tangent, plain.tangent)):
        close(mine.numpy(), other.numpy(), 1e-8)
    close(found.tangent.numpy(), found.tangent.numpy().transpose(0, 2, 1))
    errors = relative(found.stress.numpy(), exact.stress)
    of_networks = relative(predict(case.model, e)[0], exact.stress)
    assert errors.max() < 0.01 and np.median(errors) < 0.2 * np.median(of_networks)


def test_machine_code_reaches_the_minimum_where_the_energy_is_not_convex_at_the_start(trained_cases):
    """From no fluctuation, where stiff phases deform as much as others; as in torch from the network's prediction."""
    case = trained_cases("finite strain in 3D")
    correct = spon.ModalCorrector(case.model)
    if correct._code is None:
        pytest.skip("there is no C compiler")
    e, at = torch.from_numpy(case.strains(60, scale=1.3)), case.model.cubature
    tangent = at.laws.tangent(e[:, None].expand(-1, len(at.weights), -1))
    stiffness = torch.einsum("p,pdr,npde,pes->nrs", at.weights, at.strain_modes, tangent, at.strain_modes)
    assert (torch.linalg.eigvalsh(stiffness)[:, 0] < 0).sum() > 3
    start = np.zeros((60, at.strain_modes.shape[2]))
    found = correct._code(correct._rve, np.zeros(60, dtype=int), e.numpy(), start, 1e-9, 30)
    assert (found.iterations > 0).all()
    close(found.coefficients, correct(e).coefficients.numpy(), 1e-8)


def certified(case, **options):
    return coupling.CertifiedLaw(case.model, fe2.ExactLaw(case.rve), **options)


@cases(ALL)
def test_the_certified_law_climbs(case):
    """Each tier has the response of its own law, at turned points, too."""
    e = anywhere(case, 60, scale=1.2)
    law = certified(case, tolerance=1e9)
    evaluate(law, e)
    law.tolerance = float(np.quantile(law.gap[~law.is_outside], 0.3))
    evaluate(law, e)
    raised = law.gap[law.tier == 1]
    law.tolerance = float(np.quantile(raised, 0.5)) if raised.size and (law.tier < 2).all() else law.tolerance
    out = evaluate(law, e)
    assert law.is_outside.any() and not (law.tier == 0)[law.is_outside].any()
    assert len(set(law.tier)) >= 2
    responses = (
        predict(case.model, e)[0],
        spon.ModalCorrector(case.model)(torch.from_numpy(e)).stress.numpy(),
        case.rve.homogenise(e).stress,
    )
    for tier, right in enumerate(responses):
        here = law.tier == tier
        np.testing.assert_allclose(out.stress[here], right[here], rtol=0, atol=1e-8 * abs(right).max())
    assert ("of estimated gaps" in law.summary()) == case.rve.measure.finite
    law.tolerance = 0.0
    out = evaluate(law, e)
    assert law.is_exact.all()
    close(out.stress, responses[2], 1e-8)


class Noting(fe2.ExactLaw):
    """The exact law, and the rows that it was given to start from."""

    def evaluate(self, strain, state, guess, comm):
        self.start = guess.copy()
        return super().evaluate(strain, state, guess, comm)


@cases(ALL)
def test_exact_solutions_start_from_what_the_model_foresees(case):
    """At turned points the fluctuation turns, too: without that a solution takes more iterations."""
    exact = Noting(case.rve)
    law = coupling.CertifiedLaw(case.model, exact, tolerance=0.0, modes=False)
    first, then = (anywhere(case, 6, 0.6, seed=k) for k in (1, 2))
    guess = evaluate(law, first).state
    rows = evaluate(fe2.ExactLaw(case.rve), first).state
    evaluate(law, then, guess=guess)
    size = case.rve.state_size  # of a row of the law, without the cost
    warm = case.rve.homogenise(then, guess=exact.start[:, :size]).iterations
    cold = case.rve.homogenise(then, guess=rows[:, :size]).iterations
    assert (warm <= cold).all() and warm.sum() < cold.sum()
    # What it starts from is near the solution: the model's own error, and not the size of the fluctuation.
    w = case.rve.layout
    right = w.view(case.rve.homogenise(then).state, "fluctuation")
    left = np.linalg.norm(w.view(exact.start[:, :size], "fluctuation") - right, axis=1)
    assert (left < 0.1 * np.linalg.norm(right, axis=1)).all()


@cases(["finite strain", "conduction"])
def test_collected_strains_are_learned_from(case, tmp_path):
    law = certified(case, tolerance=0.0)
    e = anywhere(case, 30, scale=1.3, seed=9)
    evaluate(law, e)
    new = law.collected()
    assert new.shape[1] == case.rve.strain_size and 0 < len(new) <= 30
    if case.rve.measure.finite:  # without rotation
        close(new, case.model.measure.stretch(torch.from_numpy(new)).numpy())
    path = tmp_path / "snapshots.h5"
    shutil.copy(case.snapshots, path)
    fe2.rve_snapshots.compute(case.rve, new, path, MPI.COMM_SELF, append=True, progress=False)
    data = coupling.rve_snapshots(case.rve, path)
    assert len(data.strain) == CASES["finite strain" if case.rve.measure.finite else "conduction"].snapshots + len(new)
    again = equino.refit(case.model, data, equino.RefitOptions(samples=48, lbfgs=40, resolved=16)).model
    assert (again.upper >= case.model.upper).all() and (again.upper > case.model.upper).any()
    assert again.measure == case.model.measure
    some = case.strains(40, scale=1.0, seed=12)
    exact = case.rve.homogenise(some).stress
    assert np.median(relative(predict(again, some)[0], exact)) < 3 * np.median(
        relative(predict(case.model, some)[0], exact)
    )


# The surrogate law.


def single(case, k, value):
    """One strain (1, d), turned at finite strain, whose coordinate k is `value`."""
    coordinates = np.zeros((1, len(case.model.lower)))
    coordinates[0, k] = value
    h = case.model.measure.strain(torch.from_numpy(coordinates)).numpy()
    return turned(rotations(1, case.dim, 3), h) if case.rve.measure.finite else h


@cases(ALL)
def test_strains_outside_of_the_range_are_named_by_their_coordinate(case):
    law = coupling.SurrogateLaw(case.model)
    k = len(case.model.lower) - 1
    inside, beyond = (single(case, k, size * float(case.model.upper[k])) for size in (0.9, 1.5))
    evaluate(law, inside)
    what = f"Mandel component of U − I, number {k}" if case.rve.measure.finite else f"component {k}"
    with pytest.raises(coupling.OutsideRange, match=f"1 of 2 strains .*farthest is {what} of point 1, "):
        evaluate(law, np.vstack([inside, beyond]))
    if case.rve.measure.finite:
        mirror = np.zeros((1, case.rve.strain_size))
        mirror[0, 0] = -2.0
        with pytest.raises(coupling.OutsideRange, match=r"1 of 1 strains .* at point 0 det F is not positive"):
            evaluate(law, mirror)
    exact = coupling.SurrogateLaw(case.model, outside=fe2.ExactLaw(case.rve))
    both = np.vstack([inside, beyond])
    found = evaluate(exact, both)
    assert exact.is_outside.tolist() == exact.is_exact.tolist() == [False, True]
    close(found.stress[1:], case.rve.homogenise(beyond).stress, 1e-9)
    close(found.stress[:1], predict(case.model, inside)[0])


@cases(ALL)
def test_every_way_of_evaluation_is_the_model(case):
    e = anywhere(case, 37)
    right = predict(case.model, e)
    law, plain = coupling.SurrogateLaw(case.model), coupling.SurrogateLaw(case.model, compiled=False)
    assert plain.way == "torch" and law.way == ("machine code" if spon.jit.compiler() else "torch")
    for found in (evaluate(law, e), evaluate(plain, e)):
        close(found.stress, right[0])
        close(found.tangent, right[1])
    rough = evaluate(coupling.SurrogateLaw(case.model, dtype=torch.float32), e)
    assert 0 < abs(rough.stress - right[0]).max() < 1e-4 * abs(right[0]).max()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@cases(ALL)
def test_exported_source_is_the_model(case, tmp_path):
    import ctypes

    path = spon.export_c(case.model, tmp_path, "unit_cell")
    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-O2", "-fPIC", "-shared", str(path),
         "-o", str(tmp_path / "cell.so"), "-lm"],
        check=True,
    )  # fmt: skip
    library, d = ctypes.CDLL(str(tmp_path / "cell.so")), case.rve.strain_size
    k = len(case.model.lower) - 1
    e = np.vstack([anywhere(case, 13), single(case, k, 1.01 * float(case.model.upper[k])), np.full((1, d), np.nan)])
    if case.rve.measure.finite:
        e = np.vstack([e, -2.0 * np.eye(case.dim)[[0]].repeat(case.dim, 0).reshape(1, -1)])
        e[-1], e[-1, 0] = 0.0, -2.0
    stress, tangent = np.empty((len(e), d)), np.empty((len(e), d, d))
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (e, stress, tangent))
    outside = library.unit_cell_response(ctypes.c_long(len(e)), *pointers)
    assert outside == len(e) - 13 and np.isnan(stress[13:]).all() and np.isnan(tangent[13:]).all()
    right = predict(case.model, e[:13])
    close(stress[:13], right[0])
    close(tangent[:13], right[1])
    header = (tmp_path / "unit_cell.h").read_text()
    assert {"finite strain": "Displacement gradients, row by row, (n, 4)", "finite strain in 3D": "(n, 9)"}.get(
        "finite strain" if d == 4 else "finite strain in 3D" if d == 9 else "", "Gradients (n, 2)"
    ) in header


# Pairs.


def test_laws_of_other_measures_and_rves_are_refused(trained, trained_cases):
    """Three components each have small strains in two dimensions and gradients in three."""
    finite, heat = trained_cases("finite strain"), trained_cases("conduction")
    soft = fe2.RVE(finite.rve.domain, {1: fe2.NeoHookean(3.0, 1.0), 2: fe2.NeoHookean(6.0, 2.0)}, degree=1)
    box = meshes.from_labels(np.ones((1, 1, 1), dtype=int), MPI.COMM_SELF)
    in_space = fe2.RVE(box, {1: fe2.Conductive(1.0)}, degree=1)
    for model, rve, match in (
        (finite.model, trained.rve, "the model takes strains of 4 components, the exact law 3"),
        (trained.model, finite.rve, "the model takes strains of 3 components, the exact law 4"),
        (heat.model, trained.rve, "the model takes strains of 2 components, the exact law 3"),
        (trained.model, in_space, "the model takes a small strain, the exact law a gradient"),
        (finite.model, soft, "the model belongs to another RVE; differences: material 2"),
    ):
        for pair in (
            lambda model=model, rve=rve: coupling.SurrogateLaw(model, outside=fe2.ExactLaw(rve)),
            lambda model=model, rve=rve: coupling.CertifiedLaw(model, fe2.ExactLaw(rve)),
        ):
            with pytest.raises(ValueError, match=match):
                pair()
    with pytest.raises(ValueError, match="the model belongs to another RVE"):
        coupling.SurrogateLaw(finite.model, rve=soft)
    with pytest.raises(fe2.rve_snapshots.SnapshotError, match="another RVE"):
        coupling.rve_snapshots(soft, finite.snapshots)
    with pytest.raises(ValueError, match=r"has no RVE to compare with .* pair the model with fe2\.ExactLaw\(rve\)"):
        coupling.CertifiedLaw(finite.model, fe2.UFLLaw(fe2.NeoHookean(3.0, 1.0)))
    for rve in (soft, in_space):
        rve.destroy()


# Structures.


def structure(comm, law, right):
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law)
    components = 1 if problem.sigma.measure.scalar else 2
    problem.prescribe("left", (0.0,) * components)
    problem.prescribe("right", right)
    problem.record("right")
    problem.solve(steps=2, log=None)
    return np.array(problem.history[-1].force["right"])


@pytest.mark.mpi
@pytest.mark.parametrize("name, right, most", [("finite strain", (0.2, 0.5), 0.02), ("conduction", (400.0,), 0.01)])
def test_a_structure_is_that_of_the_exact_law_on_any_number_of_ranks(trained_cases, comm, name, right, most):
    """A bar that is stretched and bent, with rotations of some degrees; within the model's error."""
    case = trained_cases(name)
    found = structure(comm, coupling.SurrogateLaw(case.model, outside=fe2.ExactLaw(case.rve)), right)
    exact = structure(comm, fe2.ExactLaw(case.rve), right)
    assert np.linalg.norm(found - exact) < most * np.linalg.norm(exact)
    alone = structure(MPI.COMM_SELF, coupling.SurrogateLaw(case.model, outside=fe2.ExactLaw(case.rve)), right)
    np.testing.assert_allclose(found, alone, rtol=1e-8, atol=1e-8 * abs(alone).max())
    certified_law = certified(case, tolerance=1e-3)
    force = structure(comm, certified_law, right)
    assert np.linalg.norm(force - exact) < most * np.linalg.norm(exact)
    text = certified_law.summary(comm)
    assert ("estimated" in text) == case.rve.measure.finite
    assert comm.bcast(text) == text


@pytest.mark.mpi
def test_a_rigid_rotation_has_no_force(trained_cases, comm):
    case = trained_cases("finite strain")
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), coupling.SurrogateLaw(case.model))
    angle = 2.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) - np.eye(2)
    problem.u.interpolate(lambda x: turn @ x[:2])
    problem.sigma.update()
    stiffness = abs(problem.sigma.tangent.x.array).max(initial=0.0)
    stress = comm.allreduce(abs(problem.sigma.stress.x.array).max(initial=0.0), MPI.MAX)
    assert stress < 1e-13 * comm.allreduce(stiffness, MPI.MAX)


# Other networks.


@cases(ALL)
def test_sobolev_networks_learn_each_measure(case, tmp_path):
    data = coupling.rve_snapshots(case.rve, case.snapshots)
    model = train_sobolev(data, TrainingOptions(steps=50, lbfgs=150), widths=(16, 16)).model
    e = anywhere(case, 30)
    stress, tangent = predict(model, e)
    exact = case.rve.homogenise(e)
    assert np.median(relative(stress, exact.stress)) < 0.3
    model.save(tmp_path / "network.safetensors")
    again = spon.load(tmp_path / "network.safetensors")
    assert again.measure == model.measure and np.array_equal(predict(again, e)[0], stress)
    found = evaluate(coupling.SurrogateLaw(model), e)
    close(found.stress, stress)
    if not case.rve.measure.finite:
        return
    q = rotations(30, case.dim, 5)
    close(predict(model, turned(q, e))[0], turned_stress(q, stress))
    close(predict(model, turned(q, e))[1], turned_tangent(q, tangent))


@cases(ALL)
def test_other_baselines_know_linear_measures_alone(case):
    data = coupling.rve_snapshots(case.rve, case.snapshots)
    trainings = {
        "POD-DeepONet": lambda: train_supervised(data, FEW, r=6, widths=(8,)).model,
        "the published EquiNO": lambda: train_as_published(data, FEW, r=6, strains=20).model,
        "VPIONet": lambda: train_vpionet(data, FEW, r=4).model,
    }
    for name, train in trainings.items():
        if case.rve.measure.finite:
            with pytest.raises(ValueError, match=f"{name} is for strains that are linear .*not for a displ"):
                train()
            continue
        model, e = train(), case.strains(5)
        assert model.measure.name == "gradient"
        stress, tangent = predict(model, e)
        step = 1e-5 * case.amplitude
        for k in range(2):
            change = step * np.eye(2)[k]
            slope = (predict(model, e + change)[0] - predict(model, e - change)[0]) / (2 * step)
            close(tangent[:, :, k], slope, 1e-5)
        found = evaluate(coupling.SurrogateLaw(model), e)
        close(found.stress, stress)


def test_notations_of_other_programs_are_of_small_strain(trained_cases):
    """A gradient in three dimensions has as many components as a small strain in two, and no shears."""
    box = meshes.from_labels(np.ones((1, 1, 1), dtype=int), MPI.COMM_SELF)
    heat = fe2.ExactLaw(fe2.RVE(box, {1: fe2.Conductive(2.0)}, degree=1))
    finite = coupling.SurrogateLaw(trained_cases("finite strain").model)
    for law, what in ((heat, "gradient"), (finite, "displacement gradient")):
        with pytest.raises(ValueError, match=f"is for small strains, and the law takes a {what}"):
            coupling.PointLaw(law, 2, notation="engineering")
        with pytest.raises(ValueError, match=f"the law takes a {what}: name the data"):
            coupling.micro_simulation(law)
    e = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    close(coupling.PointLaw(heat, 2)(e).stress, 2 * e, 1e-10)
    with pytest.raises(ValueError, match=r"need \(2, 4\) components of H = F − I"):
        coupling.PointLaw(finite, 2)(e)
    h = np.full((2, 4), 0.01)
    close(coupling.PointLaw(finite, 2)(h).stress, predict(trained_cases("finite strain").model, h)[0])
    operator = coupling.ExternalLaw(finite)
    close(operator((0,))(h[:, None]).reshape(2, 4), predict(trained_cases("finite strain").model, h)[0])
    with pytest.raises(ValueError, match="components of H = F − I"):
        operator((0,))(e[:, None])
    heat.rve.destroy()


@cases(ALL)
def test_mode_networks_refuse(case):
    """They would take a gradient in three dimensions for a small strain in two, of as many components."""
    with pytest.raises(ValueError, match="networks of modes are for small strains alone"):
        coupling.mode_network(case.rve, half_range=0.1)


def test_grids_refuse_a_law_of_another_dimension():
    in_space = coupling.phase_law(fe2.Conductive(2.0), 3)
    with pytest.raises(ValueError, match="takes 3 strain components, need 2"):
        spon.GridRVEs(torch.ones(1, 2, 2, dtype=torch.int64), {1: in_space})


def test_a_model_at_finite_strain_has_a_potential(trained_cases):
    model = trained_cases("finite strain").model
    with pytest.raises(ValueError, match="potential = None: at finite strain the stress is that of a potential"):
        spon.EquiNO(
            model.displacement, None, model.stress, lower=model.lower, upper=model.upper, means=model.means,
            cubature=model.cubature,
        )  # fmt: skip


@cases(FINITE)
def test_training_again_gives_the_same_potential_form(case):
    """A short training from the snapshots of this test has zero stress at rest and symmetric tangents, too."""
    data = coupling.rve_snapshots(case.rve, case.snapshots)
    model = equino.train(data, spon.EquiNOOptions(r=10, resolved=10, samples=16, width=6, widths=(6,), lbfgs=2)).model
    e = anywhere(case, 5)
    tangent = predict(model, e)[1]
    close(tangent, tangent.transpose(0, 2, 1))
    assert not predict(model, np.zeros((1, case.rve.strain_size)))[0].any()
    assert model.gap_calibration > 0 and model.calibration.isfinite().all()
