# SPDX-License-Identifier: MIT
"""The modes of a model between its networks and the exact law: response, certificate, and structures that need them."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from trained import AMPLITUDE, strains

import coupling
import fe2
import meshes
import spon
from spon.reduced.galerkin import ReducedModel


def beyond(n, scale, seed=5):
    """n strains (n, 3) on random rays, up to `scale` times as long as those in the trained range."""
    e = fe2.strain_sampling.box(n, 2, AMPLITUDE, seed=seed)
    sizes = np.random.default_rng(seed).uniform(0.2, scale, (n, 1))
    return e / abs(e / AMPLITUDE).max(axis=1, keepdims=True) * sizes


def evaluate(law, e, state=None, guess=None):
    state = law.initial_state(len(e)) if state is None else state
    return law.evaluate(e, state, state if guess is None else guess)


@pytest.mark.parametrize("compiled", [True, False])
def test_modes_are_the_reduced_model(trained, compiled):
    """The least energy in the modes: Galerkin's solution, with a tangent that is the slope of its stress."""
    at = trained.model.cubature
    reduced = ReducedModel(at.laws, at.strain_modes, at.weights, trained.model.upper)
    e = torch.from_numpy(beyond(12, 2.0))
    refine = spon.ModalCorrector(trained.model, compiled=compiled)
    found, right = refine(e), reduced.solve(e)
    for mine, other in ((found.stress, right.stress), (found.tangent, right.tangent)):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8 * float(other.abs().max()))
    torch.testing.assert_close(found.tangent, found.tangent.mT, rtol=0, atol=1e-12 * float(found.tangent.abs().max()))
    step = 1e-5 * AMPLITUDE
    for k in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[k] = step
        slope = (refine(e + shift).stress - refine(e - shift).stress) / (2 * step)
        torch.testing.assert_close(found.tangent[:, :, k], slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max()))
    rest = refine(torch.zeros(1, 3, dtype=torch.float64))
    # Of an energy that is a difference of a1 n and a1 a2 ln(1 + n/a2), with a1 = 50 MPa and a2 = 0.06.
    eps = torch.finfo(torch.float64).eps
    assert rest.stress.abs().max() == 0.0 and 0 < rest.gap.max() < 8 * eps * 50.0 * 0.06


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_bounds_of_modes_hold_in_the_range_and_beyond(trained, scale):
    """At all points of the RVE: the exact energy is between them, and their gap is far below that of the networks."""
    e = beyond(30, scale)
    exact = trained.rve.homogenise(e)
    refined = spon.ModalCorrector(trained.model)(torch.from_numpy(e), trained.model.rve_modes.at_points)
    slack = 1e-9 * exact.energy  # of the exact solution
    assert (refined.upper.numpy() >= exact.energy - slack).all()
    assert ((refined.upper - refined.gap).numpy() <= exact.energy + slack).all()
    assert (refined.gap > 0).all()
    with torch.no_grad():
        of_networks = spon.certify(trained.model, torch.from_numpy(e), trained.model.rve_modes.at_points).gap
    assert (refined.gap <= of_networks).all()
    # The error of the stress has an energy of the order of the gap.
    off = np.linalg.norm(refined.stress.numpy() - exact.stress, axis=1) / np.linalg.norm(exact.stress, axis=1)
    assert (off < 2 * np.sqrt((refined.gap / refined.upper).numpy())).all()


def test_a_strain_without_solution_takes_no_other_with_it(trained):
    e = torch.from_numpy(strains(4))
    wrong = e.clone()
    wrong[2, 1] = torch.nan
    for compiled in (True, False):
        refine = spon.ModalCorrector(trained.model, compiled=compiled)
        found, right = refine(wrong), refine(e)
        others = [0, 1, 3]
        torch.testing.assert_close(found.stress[others], right.stress[others], rtol=1e-10, atol=1e-10)
        assert found.stress[2].isnan().all() and found.gap[2] == torch.inf


def test_each_point_climbs_as_far_as_it_must(trained):
    """Tolerances between the gaps of networks and modes; each tier has the response of its own law."""
    e = beyond(60, 1.5)
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=1e9)
    evaluate(law, e)
    gaps = law.gap[~law.is_outside]
    law.tolerance = float(np.quantile(gaps, 0.3))
    out = evaluate(law, e)
    assert set(law.tier) == {0, 1, 2} and not (law.tier == 0)[law.is_outside].any()
    assert (law.gap[law.tier < 2] <= law.tolerance).all() and (law.gap[law.tier == 2] > law.tolerance).all()
    assert law.is_exact.tolist() == (law.tier == 2).tolist()
    rows = torch.from_numpy(e)
    with torch.no_grad():
        responses = (
            trained.model(rows)[0].numpy(),
            spon.ModalCorrector(trained.model)(rows).stress.numpy(),
            trained.rve.homogenise(e).stress,
        )
    for tier, right in enumerate(responses):
        here = law.tier == tier
        assert np.allclose(out.stress[here], right[here], rtol=1e-9, atol=1e-9 * abs(right).max())
    counts = np.bincount(law.tier)
    assert f"in the last {counts[1]} and {counts[2]} of 60 ({int(law.is_outside.sum())} outside" in law.summary()


def test_a_point_stays_as_high_as_it_was_until_the_step_is_accepted(trained):
    e = beyond(60, 1.0)
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=1e9)
    evaluate(law, e)
    order = np.argsort(law.gap)
    law.tolerance = float(law.gap[order[30]])
    evaluate(law, e)
    good, bad = e[[order[0]]], e[law.tier == 1][:1]
    start = law.initial_state(1)
    first = evaluate(law, bad, start)
    assert law.tier.tolist() == [1]
    again = evaluate(law, good, start, first.state)
    assert law.tier.tolist() == [1]  # though the network would do
    evaluate(law, good, again.state)  # accepted
    assert law.tier.tolist() == [0]
    evaluate(law, good, start)  # given up
    assert law.tier.tolist() == [0]


@pytest.mark.mpi
def test_a_structure_beyond_the_range(trained, comm):
    """Many points leave the trained range: few are exact, and the forces are those of exact FE² within the
    tolerance."""

    def solve(law):
        problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.14, None))
        problem.record("right")
        problem.solve(steps=2, log=None)
        return problem.history[-1].force["right"][0]

    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=3e-3)
    force = solve(law)
    outside, exact, points = (comm.allreduce(int(x)) for x in (law.is_outside.sum(), law.is_exact.sum(), law.tier.size))
    assert outside > points / 4 and exact <= points / 10
    assert force == pytest.approx(solve(fe2.ExactLaw(trained.rve)), rel=3e-3)
    # Without the modes all of these are exact.
    plain = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=3e-3, modes=False)
    solve(plain)
    assert comm.allreduce(int(plain.is_exact.sum())) >= outside


class Noting(fe2.ExactLaw):
    """The exact law, and what it was given to start from."""

    def evaluate(self, strain, state, guess, comm):
        self.start = guess.copy()
        return super().evaluate(strain, state, guess, comm)


def test_exact_solutions_start_from_what_the_model_foresees(trained):
    """The fluctuation moves by as much as that of the model, in the trained range; beyond it stays where it was."""
    exact = Noting(trained.rve)
    law = coupling.CertifiedLaw(trained.model, exact, tolerance=0.0, modes=False)
    first, then = strains(2, scale=0.5, seed=1), np.vstack([strains(1, scale=0.5, seed=2), [[3 * AMPLITUDE, 0.0, 0.0]]])
    guess = evaluate(law, first).state
    evaluate(law, then, guess=guess)
    d, w = law.strain_size, slice(law.strain_size, law.strain_size + trained.rve.unknowns.size)
    np.testing.assert_array_equal(exact.start[:, :d], first)
    np.testing.assert_array_equal(exact.start[1], guess[1, 1:-1])
    moved = trained.rve.unknowns.expand(exact.start[0, w]) - trained.rve.unknowns.expand(guess[0, 1:][w])
    with torch.no_grad():
        now, before = (trained.model.displacement(torch.from_numpy(e[:1]))[0].numpy() for e in (then, first))
    right = (trained.model.rve_modes.displacements @ (now - before)).reshape(-1, 2)
    held = np.flatnonzero(trained.rve.unknowns.index[::2] < 0)[0]  # where every fluctuation is zero
    np.testing.assert_allclose(moved.reshape(-1, 2), right - right[held], rtol=0, atol=1e-12 * abs(right).max())


def test_strains_to_learn_from_are_the_largest_of_each_twentieth_of_the_range(trained):
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=0.0)
    box = 0.05 * (law.range.upper - law.range.lower)
    e = np.array([[2.0, 0.0, 0.0], [2.4, 0.0, 0.0], [1.6, 0.0, 0.0], [0.0, -3.0, 0.0], [0.0, -3.6, 0.0]]) * box
    evaluate(law, e)
    np.testing.assert_array_equal(law.collected(), e[[4, 3, 1]])
