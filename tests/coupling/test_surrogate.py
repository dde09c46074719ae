# SPDX-License-Identifier: MIT
"""Laws of a trained model, with the exact law where it is needed."""

import copy
import os
import shutil
import warnings

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import meshio
import torch
from mpi4py import MPI
from trained import AMPLITUDE, make_rve, strains

import coupling
import fe2
import meshes
import spon
import spon.equino.evaluate.evaluator
import spon.jit
from spon import equino
from spon.equino.networks import Potential


def evaluate(law, strain, state=None, guess=None, comm=MPI.COMM_SELF):
    state = law.initial_state(len(strain)) if state is None else state
    return law.evaluate(strain, state, state if guess is None else guess, comm)


def is_model(trained, response, strain):
    """Whether a stress is the model's, but for rounding: it is machine code that gives it."""
    with torch.no_grad():
        right = trained.model(torch.from_numpy(strain))[0].numpy()
    return abs(response.stress - right).max() < 1e-13 * abs(right).max()


def spoilt(model):
    """The model with every number that was learned off by about a tenth."""
    bad = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in bad.parameters():
            p *= 1 + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return bad


# The surrogate law is the model.


def test_surrogate_law_is_the_model(trained):
    e = strains(50)
    law = coupling.SurrogateLaw(trained.model, compiled=False)
    assert (law.strain_size, law.state_size) == (3, 0) and law.way == "torch"
    h = evaluate(law, e)
    stress, tangent = trained.model(torch.from_numpy(e))
    assert np.array_equal(h.stress, stress.numpy()) and np.array_equal(h.tangent, tangent.numpy())
    assert h.state.shape == (50, 0)
    # Other chunks multiply matrices of other shapes, which differ by rounding.
    parts = evaluate(coupling.SurrogateLaw(trained.model, chunk=7, compiled=False), e)
    assert np.allclose(parts.stress, h.stress, rtol=1e-12, atol=1e-12 * abs(h.stress).max())
    none = evaluate(law, np.empty((0, 3)))
    assert none.stress.shape == (0, 3) and none.tangent.shape == (0, 3, 3)


def test_machine_code_is_used_where_it_can_be(trained, monkeypatch):
    e, law = strains(50), coupling.SurrogateLaw(trained.model)
    assert law.way == "machine code" and is_model(trained, evaluate(law, e), e)
    monkeypatch.setenv("CC", "no-such-compiler")
    law = coupling.SurrogateLaw(trained.model)
    assert law.way == "torch" and is_model(trained, evaluate(law, e), e)
    monkeypatch.setenv("CC", shutil.which("false"))
    spon.jit._library.cache_clear()
    with pytest.warns(UserWarning, match="evaluated by torch: .*false"):
        law = coupling.SurrogateLaw(trained.model)
    assert law.way == "torch"


def test_the_kernel_for_gpus_is_the_model(trained, monkeypatch):
    """In batches as on a GPU, by Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("with a GPU Triton compiles; tests/coupling/test_gpu.py has this")
    cpu, e = torch.device("cpu"), strains(50)
    fused = spon.equino.evaluate.evaluator._fused(trained.model, cpu, torch.float64, None)
    found = np.empty((50, 3)), np.empty((50, 3, 3))
    spon.equino.evaluate.cuda_graphs.CudaGraphs(fused, 3, cpu, 64)(e, *found)
    right = [x.detach().numpy() for x in trained.model(torch.from_numpy(e))]
    assert all(np.allclose(f, r, rtol=1e-12, atol=1e-12 * abs(r).max()) for f, r in zip(found, right, strict=True))
    monkeypatch.setattr(fused.__class__, "_launch", lambda *arguments, **flags: 1 / 0)
    with pytest.warns(UserWarning, match="cannot be one kernel on cpu and is evaluated by torch: division by zero"):
        assert spon.equino.evaluate.evaluator._fused(trained.model, cpu, torch.float64, None) is None
    wide = copy.deepcopy(trained.model)
    wide.potential = Potential(torch.eye(3, dtype=torch.float64), wide.upper, 1.0, width=65)
    assert spon.equino.evaluate.evaluator._fused(wide, cpu, torch.float64, None) is None


def test_surrogate_law_follows_the_exact_one(trained):
    """A sanity check of the training: mean error of the stress below 1 %, measured 0.2 %."""
    e = strains(30)
    exact, learned = trained.rve.homogenise(e).stress, evaluate(coupling.SurrogateLaw(trained.model), e).stress
    error = np.linalg.norm(learned - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.mean() < 0.01


def test_single_precision_leaves_the_model_alone(trained):
    e, model = strains(20), copy.deepcopy(trained.model)
    single = evaluate(coupling.SurrogateLaw(model, dtype=torch.float32), e)
    double = evaluate(coupling.SurrogateLaw(model), e)
    assert single.stress.dtype == np.float64
    difference = abs(single.stress - double.stress).max() / abs(double.stress).max()
    assert 0 < difference < 1e-5  # some tens of eps = 1.2e-7
    assert all(p.dtype == torch.float64 for p in model.parameters())
    for name, value in trained.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_tangent_is_the_slope_of_the_stress(trained):
    law, e, step = coupling.SurrogateLaw(trained.model), strains(10), 1e-5
    tangent = evaluate(law, e).tangent
    for k in range(3):
        change = step * np.eye(3)[k]
        slope = (evaluate(law, e + change).stress - evaluate(law, e - change).stress) / (2 * step)
        # Central differences err by (step / range)² ≈ 1e-7, times what the third derivative is larger.
        assert np.allclose(tangent[:, :, k], slope, rtol=0, atol=1e-5 * abs(tangent).max())


def test_no_stress_at_rest_and_a_symmetric_tangent(trained):
    h = evaluate(coupling.SurrogateLaw(trained.model), np.vstack([np.zeros(3), strains(20)]))
    assert abs(h.stress[0]).max() <= 1e-12 * abs(h.stress).max()
    assert np.allclose(h.tangent, h.tangent.transpose(0, 2, 1), rtol=0, atol=1e-12 * abs(h.tangent).max())


# Structures.


def bar(comm, law, right=0.04, down=-1.0, steps=2):
    """A bar that is stretched by 1 % and bent, with strains up to that of the trained range at its clamped corners."""
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (right, None))
    problem.body_force((0.0, down))
    problem.record("right")
    problem.solve(steps=steps, log=None)
    return problem


def stresses(problem):
    """Stress (points, d) of the structure in the order of the points' coordinates, the same on all ranks."""
    rows = np.hstack([problem.sigma.coordinates(), problem.sigma.stresses()])
    rows = np.concatenate(problem.comm.allgather(rows))
    return rows[np.lexsort(rows[:, :2].round(9).T)][:, 2:]


def distance(a, b):
    return np.linalg.norm(stresses(a) - stresses(b)) / np.linalg.norm(stresses(b))


@pytest.fixture(scope="module")
def exact_bar(trained):
    return bar(MPI.COMM_WORLD, fe2.ExactLaw(trained.rve))


class Watched(coupling.CertifiedLaw):
    """A certified law that keeps (accepted numbers of exact solutions, is_exact, gap) of each evaluation."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = []

    def evaluate(self, strain, state, guess, comm):
        response = super().evaluate(strain, state, guess, comm)
        self.seen.append((self.layout.view(state, "solutions").copy(), self.is_exact.copy(), self.gap.copy()))
        return response


@pytest.fixture(scope="module")
def tolerance(trained):
    """What about half of the bar's points meet in all iterations, whatever the training made of the model."""
    law = Watched(trained.model, fe2.ExactLaw(trained.rve), tolerance=1e9)
    bar(MPI.COMM_SELF, law)
    assert not law.is_exact.any()
    return float(np.median(np.max([gap for _, _, gap in law.seen], axis=0)))


@pytest.mark.mpi
def test_structure_with_the_surrogate(trained, exact_bar, comm):
    learned = bar(comm, coupling.SurrogateLaw(trained.model))
    force, reference = (np.array(p.history[-1].force["right"]) for p in (learned, exact_bar))
    assert np.linalg.norm(force - reference) < 0.005 * np.linalg.norm(reference)
    assert distance(learned, exact_bar) < 0.01


class Rounded(coupling.SurrogateLaw):
    """The tangent in single precision, as a GPU may compute it."""

    def evaluate(self, *arguments):
        out = super().evaluate(*arguments)
        out.tangent[:] = out.tangent.astype(np.float32)
        return out


def test_newton_does_with_a_tangent_in_single_precision(trained):
    """The same solution, by one more iteration a step at most."""
    right, found = (bar(MPI.COMM_SELF, kind(trained.model)) for kind in (coupling.SurrogateLaw, Rounded))
    least, count = ([len(step.residuals) for step in problem.history] for problem in (right, found))
    assert 0 < distance(found, right) < 1e-8
    assert all(b <= a + 1 for a, b in zip(least, count, strict=True))


@pytest.mark.mpi
def test_certified_structure_without_tolerance_is_the_exact_one(trained, exact_bar, comm):
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=0.0)
    certified = bar(comm, law)
    assert law.is_exact.all()
    # Both residuals fell below 1e-10 of what they were.
    assert distance(certified, exact_bar) < 1e-8


@pytest.mark.mpi
@pytest.mark.parametrize("everywhere", [True, False])
def test_certified_structure_with_a_tolerance_is_near_the_exact_one(trained, exact_bar, tolerance, comm, everywhere):
    at = trained.model.rve_modes.at_points if everywhere else None
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=tolerance, at=at, modes=False)
    certified = bar(comm, law)
    exact, points = comm.allreduce(int(law.is_exact.sum())), comm.allreduce(law.is_exact.size)
    assert 0 < exact < points  # or it would be one of the two other tests
    assert f"in the last 0 and {exact} of {points} (" in law.summary(comm)
    # An error of the stress whose energy is a fraction `tolerance` of all.
    assert 1e-8 < distance(certified, exact_bar) < np.sqrt(tolerance)


def test_exact_points_start_from_the_fluctuation_of_the_model(trained):
    """Less work for the same result."""
    e = strains(6)
    laws = [
        coupling.CertifiedLaw(model, fe2.ExactLaw(trained.rve), tolerance=0.0)
        for model in (trained.model, spon.load(trained.path))
    ]
    ahead, plain = (evaluate(law, e) for law in laws)
    fewer, more = (law.layout.view(h.state, "work") for law, h in zip(laws, (ahead, plain), strict=True))
    assert (fewer < more).all()
    # Residuals are below 1e-11 of the internal forces; Newton's last step leaves far less.
    assert np.allclose(ahead.stress, plain.stress, rtol=1e-9, atol=1e-9 * abs(plain.stress).max())


@pytest.mark.mpi
def test_a_spoilt_model_is_caught(trained, exact_bar, tolerance, comm):
    """Its networks are used at no point; without its modes, which are as they were, all of them are exact."""
    law = coupling.CertifiedLaw(spoilt(trained.model), fe2.ExactLaw(trained.rve), tolerance=tolerance)
    certified = bar(comm, law)
    assert (law.tier > 0).all()
    assert distance(certified, exact_bar) < np.sqrt(tolerance)
    law = coupling.CertifiedLaw(spoilt(trained.model), fe2.ExactLaw(trained.rve), tolerance=tolerance, modes=False)
    certified = bar(comm, law)
    assert law.is_exact.all()
    assert distance(certified, exact_bar) < 1e-8


def test_a_model_that_is_softer_than_nothing_is_caught(trained):
    """Whatever the network's stiffness at rest is, what the error is relative to is above zero.

    Below a hundredth of the range the error of any model is nothing beside the floor.
    """
    bad = copy.deepcopy(trained.model)
    with torch.no_grad():
        bad.potential.stiffness.neg_()
    law = coupling.CertifiedLaw(bad, fe2.ExactLaw(trained.rve))
    for size in (0.05, 0.3, 1.0):
        assert not (law.gaps(strains(20, scale=size)) <= law.tolerance).any()
    assert law.floor_energy == coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve)).floor_energy > 0


def test_a_model_of_another_class_is_evaluated_by_its_forward(trained):
    """Though it has a potential, which a fast evaluation would take."""

    class Twice(spon.Model):
        def __init__(self, model):
            super().__init__(model.lower, model.upper)
            self.potential = model.potential

        def forward(self, strain):
            stress, tangent = self.potential(strain)
            return 2 * stress, 2 * tangent

    e = strains(10)
    law = coupling.SurrogateLaw(Twice(trained.model))
    assert law.way == "torch"
    assert np.allclose(
        evaluate(law, e).stress, 2 * evaluate(coupling.SurrogateLaw(trained.model), e).stress, rtol=1e-12
    )


@pytest.mark.mpi
def test_ranks_agree(trained, tolerance, comm):
    def law():
        return coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=tolerance)

    ours, alone = law(), law()
    spread, serial = bar(comm, ours), bar(MPI.COMM_SELF, alone)
    assert distance(spread, serial) < 1e-9
    assert ours.summary(comm) == alone.summary()
    # Where the largest strain of a box is nearly that of another point, rounding decides; most are the same.
    assert len(ours.collected(comm)) == len(alone.collected()) > 0


@pytest.mark.mpi
def test_ranks_without_points_take_part(trained, tolerance, comm):
    e = strains(6, scale=1.5)
    exact = fe2.ExactLaw(trained.rve)
    for law in (
        coupling.SurrogateLaw(trained.model),
        coupling.SurrogateLaw(trained.model, outside=exact),
        coupling.CertifiedLaw(trained.model, exact, tolerance=tolerance),
    ):
        given = e if law.state_size else e / 2  # the first of them takes nothing from outside
        whole = evaluate(law, given)
        part = evaluate(law, given if comm.rank == comm.size - 1 else given[:0], comm=comm)
        if comm.rank == comm.size - 1:
            assert np.allclose(part.stress, whole.stress, rtol=1e-9, atol=1e-9 * abs(whole.stress).max())
        else:
            assert part.stress.shape == (0, 3) and part.state.shape == (0, law.state_size)


# What changes between model and exact law.


def test_a_point_that_was_exact_stays_so_until_the_step_is_accepted(trained):
    many = strains(200)
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=1e9, modes=False)
    evaluate(law, many)
    good, bad = many[[law.gap.argmin()]], many[[law.gap.argmax()]]
    law.tolerance = float(np.median(law.gap))
    start = law.initial_state(1)

    first = evaluate(law, bad, start)
    assert law.is_exact[0]
    again = evaluate(law, good, start, first.state)
    assert law.is_exact[0] and law.gap[0] <= law.tolerance  # though the model would do
    assert np.allclose(again.stress, trained.rve.homogenise(good).stress, rtol=1e-9)
    accepted = evaluate(law, good, again.state)
    assert not law.is_exact[0]
    assert is_model(trained, accepted, good)
    evaluate(law, good, start)  # the step was given up: the guess is the accepted state again
    assert not law.is_exact[0]


@pytest.mark.mpi
def test_points_change_at_most_once_per_step(trained, tolerance, comm):
    law = Watched(trained.model, fe2.ExactLaw(trained.rve), tolerance=tolerance)
    problem = bar(comm, law, steps=3)
    changes = 0
    for (step, before, _), (next_step, after, _) in zip(law.seen, law.seen[1:]):
        if np.array_equal(step, next_step):  # of the same load step
            assert (after >= before).all()
            changes += int((after > before).sum())
    assert comm.allreduce(changes) > 0
    # No step was cut, and Newton's method needs few iterations more than with one smooth law, which takes 4 or 5.
    assert all(s.cuts == 0 and len(s.residuals) <= 8 for s in problem.history)


# Outside of the trained range.


@pytest.mark.mpi
def test_outside_is_an_error_on_all_ranks(trained, comm):
    e = strains(4)
    if comm.rank == comm.size - 1:
        e[2, 1] = -0.123
    law = coupling.SurrogateLaw(trained.model)
    lower = trained.model.lower[1].item()
    with pytest.raises(coupling.OutsideRange, match=rf"1 of 4 .* component 1 of point 2, -0.123, need {lower:.9g} to"):
        evaluate(law, e, comm=comm)
    assert law.count_outside(comm) == 1


@pytest.mark.mpi
def test_outside_with_a_warning(trained, comm):
    e = strains(4, scale=0.5)
    law = coupling.SurrogateLaw(trained.model, outside="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(law, e, comm=comm)
    if comm.rank == comm.size - 1:
        e[0, 2] = 0.2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        h = evaluate(law, e, comm=comm)
    assert [w.category for w in caught] == [coupling.OutsideRangeWarning] * (comm.rank == 0)
    assert all(f"rank {comm.size - 1}: 1 of 4" in str(w.message) and " 0.2, need" in str(w.message) for w in caught)
    assert is_model(trained, h, e)


def test_outside_with_the_exact_law(trained):
    e = np.vstack([strains(5), strains(5, scale=2.0)])
    outside = (abs(e) > trained.model.upper.numpy()).any(axis=1)
    assert outside.any()
    law = coupling.SurrogateLaw(trained.model, outside=fe2.ExactLaw(trained.rve))
    h, exact = evaluate(law, e), trained.rve.homogenise(e)
    assert np.array_equal(law.is_exact, outside) and law.count_outside() == outside.sum()
    assert np.allclose(h.stress[outside], exact.stress[outside], rtol=1e-9)
    assert np.allclose(h.tangent[outside], exact.tangent[outside], rtol=1e-7, atol=1e-7 * abs(exact.tangent).max())
    assert np.array_equal(h.stress[~outside], evaluate(coupling.SurrogateLaw(trained.model), e[~outside]).stress)


@pytest.mark.mpi
def test_a_structure_that_leaves_the_range_fails(trained, comm):
    with pytest.raises(fe2.StepFailed, match=r"outside the trained range; farthest is component 0"):
        bar(comm, coupling.SurrogateLaw(trained.model), right=4 * 1.5 * AMPLITUDE)


@pytest.mark.mpi
def test_what_was_exact_is_there_to_learn_from(trained, comm, mpi_tmp_path):
    law = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=1e-4)
    bar(comm, law, steps=1)
    found = law.collected(comm)
    everywhere = comm.allgather(found)
    assert all(np.array_equal(found, other) for other in everywhere) and len(found) > 0
    path = mpi_tmp_path / "more.h5"
    fe2.rve_snapshots.compute(trained.rve, found, path, comm, progress=False)
    assert np.array_equal(fe2.rve_snapshots.read(path).strain, found)


def test_a_model_learns_from_what_it_left_to_the_exact_law(trained, tmp_path):
    """A structure beyond the trained range, where the networks were not used, and again with the model refitted."""
    law, load = coupling.CertifiedLaw(trained.model, fe2.ExactLaw(trained.rve), tolerance=3e-3), {"right": 0.12}
    bar(MPI.COMM_SELF, law, **load)
    assert law.is_outside.any()
    path = tmp_path / "snapshots.h5"
    shutil.copy(trained.path.with_name("snapshots.h5"), path)
    fe2.rve_snapshots.compute(trained.rve, law.collected(), path, MPI.COMM_SELF, progress=False, append=True)
    data = coupling.rve_snapshots(trained.rve, fe2.rve_snapshots.read(path))
    options = equino.RefitOptions(resolved=16, samples=256, lbfgs=200)
    again = equino.refit(trained.model, data, options).model
    better = coupling.CertifiedLaw(again, fe2.ExactLaw(trained.rve), tolerance=3e-3)
    bar(MPI.COMM_SELF, better, **load)
    assert not better.is_outside.any()
    assert (better.tier > 0).sum() < 0.5 * (law.tier > 0).sum()


def test_wrong_arguments_raise(trained):
    exact = fe2.ExactLaw(trained.rve)
    with pytest.raises(ValueError, match="outside = 'ignore': need 'error', 'warn' or a law"):
        coupling.SurrogateLaw(trained.model, outside="ignore")
    with pytest.raises(ValueError, match="chunk = 0"):
        coupling.SurrogateLaw(trained.model, chunk=0)
    for law in (coupling.SurrogateLaw(trained.model), coupling.CertifiedLaw(trained.model, exact)):
        with pytest.raises(ValueError, match=r"shape \(2, 6\), need \(n, 3\) Mandel components"):
            evaluate(law, np.zeros((2, 6)))
    for wrong in (np.nan, np.inf, -1e-3):
        with pytest.raises(ValueError, match=f"tolerance = {wrong}: need a finite number that is not negative"):
            coupling.CertifiedLaw(trained.model, exact, tolerance=wrong)
    with pytest.raises(TypeError, match=r"the model is a ReducedModel: need a spon\.EquiNO"):
        at, half = trained.model.cubature, trained.model.upper
        coupling.CertifiedLaw(spon.ReducedModel(at.laws, at.strain_modes, at.weights, half), exact)
    with pytest.raises(ValueError, match="3 components, the exact law 6"):
        coupling.CertifiedLaw(trained.model, fe2.UFLLaw(fe2.SaturatingElastic(), dim=3))
    steel = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)
    plastic = fe2.RVE(trained.rve.domain, {1: steel, 2: steel}, degree=1)
    with pytest.raises(ValueError, match="J2 has state"):
        coupling.SurrogateLaw(trained.model, outside=fe2.ExactLaw(plastic))


# The certificate, and fields inside of a point.


def test_conjugate_is_found_to_rounding():
    """Fenchel's equality ψ*(σ) = σ·ε − ψ(ε) for σ = σ(ε), also where differences of energies are mere rounding."""
    law = coupling.phase_law(fe2.SaturatingElastic(), 2)
    e = torch.from_numpy(strains(2000))
    e *= 10 ** (-2 * torch.rand(2000, 1, dtype=e.dtype, generator=torch.Generator().manual_seed(0)))
    sigma = law.stress(e)
    known = (sigma * e).sum(-1) - law.energy(e)
    found = spon.constitutive.duality.conjugate(law, sigma, 1.1 * e)
    assert torch.allclose(found, known, rtol=1e-8, atol=0)  # the energy itself has eps (a₂/‖e‖)² ≈ 1e-12
    beyond = torch.tensor([[60.0, -60.0, 0.0]], dtype=e.dtype)  # a deviator above a₁ = 50 MPa has no strain
    assert spon.constitutive.duality.conjugate(law, beyond, torch.zeros_like(beyond)).isinf().all()


def test_micro_fields(trained, tmp_path):
    e = strains(1)[0]
    rve, fields = trained.rve, coupling.micro_fields(trained.rve, trained.model, e)
    weights = rve.body.weights / rve.volume
    one = torch.from_numpy(e)[None]
    assert np.allclose(np.einsum("cq,cqd->d", weights, fields.stress), trained.model(one)[0][0].numpy(), rtol=1e-9)
    assert np.allclose(np.einsum("cq,cqd->d", weights, fields.strain), e, rtol=0, atol=1e-12)
    rve.body.u.x.array[:] = fields.displacement.x.array
    assert np.allclose(rve.body.strain(), fields.strain, rtol=0, atol=1e-10 * abs(fields.strain).max())
    certificate = spon.certify(trained.model, one, trained.model.rve_modes.at_points)
    relation_error = fields.constitutive_relation_error
    assert np.isclose((weights * relation_error).sum(), certificate.gap.item(), rtol=1e-6)
    assert relation_error.min() > -1e-12 * certificate.upper.item()
    with pytest.warns(DeprecationWarning, match="now MicroFields.constitutive_relation_error"):
        assert fields.indicator is relation_error
    fields.write(tmp_path / "micro.xdmf")
    file = meshio.read(tmp_path / "micro.xdmf")
    cells = file.cell_data
    assert len(file.point_data["displacement"]) and {"tag", "constitutive_relation_error"} < set(cells)
    means = np.einsum("cq,cq->c", relation_error, rve.body.weights) / rve.body.weights.sum(axis=1)
    written = np.ravel(cells["constitutive_relation_error"])
    assert np.allclose(np.sort(written), np.sort(means), rtol=1e-12)  # cells in the file's order
    exact = rve.homogenise(e)
    body = rve.set_state(exact.state[0])
    error = np.sqrt((weights * ((fields.stress - body.stress()) ** 2).sum(-1)).sum())
    assert error < 0.05 * np.sqrt((weights * (body.stress() ** 2).sum(-1)).sum())


def test_micro_fields_of_another_rve_are_refused(trained):
    with pytest.raises(ValueError, match="another RVE"):
        coupling.micro_fields(make_rve(radius=0.25), trained.model, np.zeros(3))
    for wrong in (np.zeros(2), np.eye(2), np.full(3, np.nan), np.zeros(3, complex)):
        with pytest.raises(ValueError, match=r"need (\(n, 3\)|finite numbers|real numbers)"):
            coupling.micro_fields(trained.rve, trained.model, wrong)
    with pytest.raises(ValueError, match="loaded without its RVE modes"):
        coupling.micro_fields(trained.rve, spon.load(trained.path), np.zeros(3))
