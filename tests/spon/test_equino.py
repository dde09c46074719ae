# SPDX-License-Identifier: MIT
"""EquiNO and its parts: bases, cubature, reduced model, networks' derivatives, exactness, bounds."""

import copy
import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("dolfinx")

import ufl
from mpi4py import MPI
from hypothesis import given, settings
from hypothesis import strategies as st

import coupling
import fe2
import meshes
import spon
from spon import equino
from spon.constitutive.duality import conjugate
from spon.equino import EquiNOOptions, RefitOptions, baselines
from spon.equino.networks import Branch, Potential
from spon.reduced.bases import empirical_cubature, pod
from spon.training import TrainingOptions
from spon.training.fit import FULL_BATCH, fit

RANGE = 0.04 * np.array([1.0, 1.0, 0.5**0.5])
PHASES = {meshes.MATRIX: fe2.SaturatingElastic(), meshes.INCLUSION: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}


def published_schedule(adam, lbfgs):
    return TrainingOptions(steps=adam, batch=10, rate=1e-3, lbfgs=lbfgs)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """An RVE, a model trained with 40 snapshots, its bases, the snapshots, and 12 unseen ones."""
    mesh = meshes.rve([meshes.Circle((0.05, -0.1), 0.28)], MPI.COMM_SELF, mesh_size=0.16)
    rve = fe2.RVE(mesh, PHASES)
    folder = tmp_path_factory.mktemp("snapshots")
    data = []
    for name, n, seed in (("train", 40, 0), ("test", 12, 1)):
        strains = fe2.strain_sampling.latin_hypercube(n, 2, RANGE, seed=seed)
        fe2.rve_snapshots.compute(rve, strains, folder / name, MPI.COMM_SELF, progress=False)
        data.append(coupling.rve_snapshots(rve, fe2.rve_snapshots.read(folder / name)))
    torch.manual_seed(0)
    result = equino.train(data[0], EquiNOOptions(r=10, resolved=18, samples=128, lbfgs=200))
    assert all(h.validation[-1] < 0.01 * h.validation[0] for h in result.histories.values())
    return rve, result.model, result.bases, *data


def relative(a, b):
    a, b = np.asarray(a).reshape(len(a), -1), np.asarray(b).reshape(len(b), -1)
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)


def test_modes_are_orthonormal_best_and_follow_their_fields():
    rng = np.random.default_rng(0)
    fields, weights = rng.standard_normal((9, 40, 3)), rng.uniform(0.5, 2.0, 40)
    factor = rng.standard_normal((40, 3, 3))
    metric = factor @ factor.swapaxes(1, 2) + np.eye(3)
    basis = pod(fields, weights, 5, metric)
    gram = np.einsum("p,pdr,pde,pes->rs", weights, basis.modes, metric, basis.modes)
    assert np.allclose(gram, np.eye(5), atol=1e-12)
    assert np.allclose(np.einsum("npd,nr->pdr", fields, basis.combination), basis.modes)
    # Eckart & Young: what projection leaves is what the other singular values hold.
    coefficients = np.einsum("p,npd,pde,per->nr", weights, fields, metric, basis.modes)
    rest = fields - np.einsum("nr,pdr->npd", coefficients, basis.modes)
    left = np.einsum("p,npd,pde,npe->", weights, rest, metric, rest)
    assert np.isclose(left, (basis.singular_values[5:] ** 2).sum())
    assert pod(fields, weights, 10).modes.shape[2] == 9
    assert pod(np.concatenate([fields, 2 * fields]), weights, 10).modes.shape[2] == 9
    with pytest.raises(ValueError, match="r = 0: need at least one mode"):
        pod(fields, weights, 0)


def test_cubature_integrates_polynomials_with_few_positive_weights():
    x, w = np.polynomial.legendre.leggauss(400)
    powers = x[:, None] ** np.arange(10)
    points, weights = empirical_cubature(powers, w, 1e-10)
    assert len(points) <= 12 and (weights > 0).all() and (np.diff(points) > 0).all()
    exact = np.array([2 / (k + 1) if k % 2 == 0 else 0.0 for k in range(10)])
    assert np.allclose(weights @ powers[points], exact, atol=1e-8)


@pytest.mark.parametrize("through_zero", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "swish"])
def test_the_slopes_of_branches_are_those_of_autograd(activation, through_zero):
    half, scale = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.arange(1.0, 6.0, dtype=torch.float64)
    branch = Branch(half, scale, widths=(7, 6, 5), activation=activation, through_zero=through_zero, seed=3)
    if branch.linear is not None:
        torch.nn.init.normal_(branch.linear)
    strain = 0.1 * torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value, slope = branch.with_tangent(strain)
    right = torch.func.vmap(torch.func.jacrev(lambda e: branch(e[None])[0]))(strain)
    assert torch.allclose(value, branch(strain), rtol=0, atol=1e-14)
    assert torch.allclose(slope, right, rtol=0, atol=1e-13 * float(right.abs().max()))
    assert bool((branch(torch.zeros(1, 3, dtype=torch.float64)) == 0).all()) == through_zero


def test_stress_and_tangent_are_derivatives_of_the_potential():
    half = torch.tensor([0.04, 0.05, 0.03], dtype=torch.float64)
    stiffness = torch.tensor([[7.0, 2.0, 0.1], [2.0, 6.0, 0.2], [0.1, 0.2, 3.0]], dtype=torch.float64)
    potential = Potential(stiffness, half, 0.02, width=9, seed=4)
    strain = half * (2 * torch.rand(13, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1)
    stress, tangent = potential(strain)
    right = torch.func.vmap(torch.func.grad(lambda e: potential.energy(e[None])[0]))(strain)
    assert torch.allclose(stress, right, rtol=0, atol=1e-13)
    right = torch.func.vmap(torch.func.jacrev(lambda e: potential(e[None])[0][0]))(strain)
    assert torch.allclose(tangent, right, rtol=0, atol=1e-12)
    assert (tangent == tangent.mT).all()
    rest, _ = potential(torch.zeros(1, 3, dtype=torch.float64))
    assert (rest == 0).all() and potential.energy(torch.zeros(1, 3, dtype=torch.float64)) == 0


def test_the_reduced_model_with_all_modes_and_points_solves_the_cell(cell):
    """As many modes as snapshots, no cubature: at the snapshots' own strains the finite element solution is in it."""
    _, _, _, data, unseen = cell
    basis = pod(data.local_strain, data.weights, len(data.strain))
    modes, weights, half = (torch.from_numpy(a) for a in (basis.modes, data.weights, data.half_range))
    model = spon.ReducedModel(data.laws, modes, weights, half)
    solution = model.solve(torch.from_numpy(data.strain[:8]))
    assert relative(solution.stress, data.stress[:8]).max() < 1e-9
    # Elsewhere it is stiffer than the RVE, which minimises its energy over more displacements.
    others = model.solve(torch.from_numpy(unseen.strain))
    energy = data.laws.energy(others.strain) @ model.weights
    assert (energy.numpy() >= unseen.energy * (1 - 1e-12)).all()
    assert relative(others.stress, unseen.stress).max() < 1e-3
    step = 1e-6
    moved = [model.solve(torch.from_numpy(unseen.strain[:3]) + sign * step * e).stress
             for e in torch.eye(3, dtype=torch.float64) for sign in (1, -1)]  # fmt: skip
    differences = torch.stack([(a - b) / (2 * step) for a, b in zip(moved[::2], moved[1::2], strict=True)], dim=2)
    assert torch.allclose(others.tangent[:3], differences, rtol=0, atol=1e-6 * float(differences.abs().max()))


def test_the_cubature_stands_for_all_points(cell):
    _, _, bases, _, unseen = cell
    assert len(bases.points) < 0.5 * len(bases.rve_modes.at_points.weights)
    assert relative(bases.reduced.solve(torch.from_numpy(unseen.strain)).stress, unseen.stress).max() < 2e-3


def test_stress_modes_carry_unit_means_or_none_and_are_in_equilibrium(cell):
    """‖Tᵀ Bᵀ w σ‖ against the internal forces, the stopping criterion of the snapshots."""
    rve, model, bases, *_ = cell
    means = torch.einsum("p,pdr->dr", bases.rve_modes.at_points.weights, bases.rve_modes.at_points.stress_modes)
    assert torch.allclose(means, model.means, rtol=0, atol=1e-10)
    strain = torch.from_numpy(RANGE) * torch.tensor([[0.9, -0.5, 0.7], [1.4, 1.2, -1.3]], dtype=torch.float64)
    _, sigma = model.fields(strain, bases.rve_modes.at_points)
    _, order = coupling.local_laws(rve)
    for field in sigma.detach().numpy():
        forces = internal_forces(rve, field[np.argsort(order)])
        assert np.linalg.norm(rve.unknowns.gather(forces)) < 1e-9 * np.linalg.norm(forces)


def internal_forces(rve, stress):
    """∫ σ : ε(v) of Mandel stresses (P, d) at the quadrature points, assembled by DOLFINx."""
    import basix.ufl
    import ufl
    from dolfinx import fem

    body = rve.body
    q = fe2.body.quadrature_degree(body.mesh, 2)
    element = basix.ufl.quadrature_element(body.mesh.basix_cell(), (3,), degree=q)
    sigma = fem.Function(fem.functionspace(body.mesh, element))
    sigma.x.array[:] = stress.ravel()
    dx = ufl.Measure("dx", domain=body.mesh, metadata={"quadrature_degree": q})
    v = ufl.TestFunction(body.V)
    return fem.assemble_vector(fem.form(ufl.inner(sigma, fe2.mandel.strain(v)) * dx)).array


def test_displacements_are_periodic_and_belong_to_their_strains(cell):
    rve, model, bases, *_ = cell
    strain = torch.tensor([[0.02, -0.03, 0.01]], dtype=torch.float64)
    b, _ = model.coefficients(strain)
    fluctuation = bases.rve_modes.displacements @ b[0].detach().numpy()
    index = rve.unknowns.index
    values = np.zeros(rve.unknowns.size)
    values[index[index >= 0]] = fluctuation[index >= 0]
    assert abs(rve.unknowns.expand(values) - fluctuation).max() <= 1e-14 * abs(fluctuation).max()
    rve.body.u.x.array[:] = fluctuation
    _, order = coupling.local_laws(rve)
    local = model.fields(strain, bases.rve_modes.at_points)[0].detach()
    assert np.allclose(rve.body.strain().reshape(-1, 3)[order], local[0] - strain, rtol=0, atol=1e-12)


def test_prediction_is_accurate_exact_at_rest_and_consistent(cell):
    _, model, bases, _, unseen = cell
    strain = torch.from_numpy(unseen.strain)
    stress, tangent = model(strain)
    assert relative(stress.detach(), unseen.stress).mean() < 5e-3
    assert relative(tangent.detach(), unseen.tangent).mean() < 2e-2
    _, sigma = model.fields(strain, bases.rve_modes.at_points)
    assert relative(sigma.detach(), unseen.local_stress).mean() < 3e-2
    mean = torch.einsum("p,npd->nd", bases.rve_modes.at_points.weights, sigma)
    assert torch.allclose(mean, stress, rtol=0, atol=1e-9 * float(stress.abs().max()))
    assert (model(torch.zeros(1, 3, dtype=torch.float64))[0] == 0).all()
    assert (tangent == tangent.mT).all()
    h = 1e-6
    right = torch.stack([(model(strain + h * e)[0] - model(strain - h * e)[0]) / (2 * h) for e in torch.eye(3)], dim=2)
    assert torch.allclose(tangent, right, rtol=0, atol=1e-7 * float(tangent.abs().max()))


def test_baselines_learn_and_their_stress_is_in_equilibrium(cell):
    """Few solutions alone do not suffice; the law gives the coefficients at any strain."""
    _, model, _, data, unseen = cell
    strain = torch.from_numpy(unseen.strain)

    def error(stress):
        return np.linalg.norm(stress - unseen.stress) / np.linalg.norm(unseen.stress)

    linear = error(unseen.strain @ np.linalg.lstsq(data.strain, data.stress, rcond=None)[0])
    short = replace(FULL_BATCH, lbfgs=100)
    supervised = baselines.train_supervised(data, short, r=8)
    sobolev = baselines.train_sobolev(data, short, widths=(32, 32))
    published = baselines.train_as_published(data, published_schedule(100, 100), r=8, strains=40)
    assert published.history.loss[-1] < 0.5 * published.history.loss[0]
    assert all(h.loss[-1] < 0.1 * h.loss[0] for h in supervised.histories.values())
    models = (model, supervised.model, sobolev.model, published.model)
    own, *others = (error(m(strain)[0].detach().numpy()) for m in models)
    assert others[1] < linear and own < min(others)
    for other in (supervised.model, published.model):
        _, sigma = other.fields(strain, other.rve_modes.at_points)
        mean = torch.einsum("p,npd->nd", other.rve_modes.at_points.weights, sigma)
        assert torch.allclose(mean, other(strain)[0], rtol=0, atol=1e-9 * float(mean.abs().max()))


def test_hill_mandel_holds_between_the_branches(cell):
    """⟨σ·ε⟩ = S·E for any σ in equilibrium and any ε that is admissible, for any networks."""
    _, model, bases, *_ = cell
    generator = torch.Generator().manual_seed(2)
    strain = torch.from_numpy(RANGE) * torch.randn(30, 3, dtype=torch.float64, generator=generator)
    epsilon, sigma = model.fields(strain, bases.rve_modes.at_points)
    work = torch.einsum("p,npd,npd->n", bases.rve_modes.at_points.weights, sigma, epsilon)
    size = torch.einsum("p,npd,npd->n", bases.rve_modes.at_points.weights, sigma.abs(), epsilon.abs())
    assert ((work - (strain * model(strain)[0]).sum(-1)).abs() < 1e-9 * size).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    bulk=st.floats(10.0, 1e5), a1=st.floats(1.0, 1e3), a2=st.floats(1e-3, 1.0), size=st.floats(-6.0, -0.5),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_the_conjugate_obeys_fenchel(bulk, a1, a2, size, seed):
    """ψ*(σ(ε)) = σ·ε − ψ(ε), and ψ(η) + ψ*(σ) ≥ σ·η for every other strain η."""
    law = coupling.phase_law(fe2.SaturatingElastic(bulk=bulk, a1=a1, a2=a2), 2)
    generator = torch.Generator().manual_seed(seed)
    epsilon, eta = 10**size * torch.randn(2, 20, 3, dtype=torch.float64, generator=generator)
    sigma = law.stress(epsilon)
    value = conjugate(law, sigma, torch.zeros_like(sigma))
    right = (sigma * epsilon).sum(-1) - law.energy(epsilon)
    # The energy is a difference of a1 ‖e‖ and a1 a2 ln(1 + ‖e‖/a2), which are far larger than it at small strains.
    rounding = 8 * torch.finfo(torch.float64).eps * a1 * (a2 + torch.maximum(epsilon.norm(dim=-1), eta.norm(dim=-1)))
    # Where the stress is nearly saturated its strain is lost in its rounding, and so is the energy.
    close = (value - right).abs() <= 1e-8 * (sigma * epsilon).sum(-1).abs() + rounding
    assert (close | value.isinf()).all() and close.any()
    slack = 1e-12 * (sigma * eta).sum(-1).abs() + rounding
    assert (law.energy(eta) + value - (sigma * eta).sum(-1) >= -slack).all()


def test_bounds_hold_for_every_strain_and_a_spoilt_network(cell):
    """In the trained range, outside it, and with a network of random weights."""
    rve, model, bases, _, unseen = cell
    generator = np.random.default_rng(5)
    strains = np.vstack([unseen.strain, RANGE * generator.uniform(-2.5, 2.5, (20, 3))])
    exact = rve.homogenise(strains)
    with torch.no_grad():
        good = spon.certify(model, torch.from_numpy(strains), bases.rve_modes.at_points)
        spoilt = copy.deepcopy(model)
        for p in spoilt.displacement.weights:
            p.normal_(generator=torch.Generator().manual_seed(9))
        bad = spon.certify(spoilt, torch.from_numpy(strains), bases.rve_modes.at_points)
    for c, m in ((good, model), (bad, spoilt)):
        slack = 1e-10 * exact.energy
        assert (c.lower.numpy() <= exact.energy + slack).all()
        assert (c.upper.numpy() >= exact.energy - slack).all()
        error = abs(m(torch.from_numpy(strains))[0].detach().numpy() - exact.stress)
        assert (error <= c.stress_bound.numpy() * (1 + 1e-9)).all()
    gaps = good.gap.numpy()[: len(unseen.strain)]
    assert np.median(gaps / exact.energy[: len(gaps)]) < 2e-2
    assert (bad.gap.numpy()[: len(gaps)] > 10 * np.where(np.isfinite(gaps), gaps, 0.0)).all()


def test_the_mismatch_on_the_cubature_is_that_at_all_points(cell):
    _, model, bases, _, unseen = cell
    strain = torch.from_numpy(unseen.strain)
    few, everywhere = (model.mismatch(strain, at) for at in (None, bases.rve_modes.at_points))
    assert torch.allclose(few, everywhere, rtol=0.1, atol=0.0)
    # Stress and law differ at least by what the modes of one cannot tell of the other.
    assert (everywhere > 0).all() and everywhere.mean() < 3e-2


def test_a_branch_in_other_modes_gives_the_same_field():
    generator = torch.Generator().manual_seed(0)
    half = torch.tensor([0.04, 0.05, 0.03], dtype=torch.float64)
    branch = Branch(half, torch.arange(1.0, 6.0, dtype=torch.float64), widths=(7, 6), norms=3, seed=3)
    torch.nn.init.normal_(branch.linear)
    change = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    other = branch.in_modes(change, torch.rand(4, dtype=torch.float64, generator=generator) + 0.5)
    strain = 0.1 * torch.randn(11, 3, dtype=torch.float64, generator=generator)
    (value, slope), (right, right_slope) = other.with_tangent(strain), branch.with_tangent(strain)
    assert torch.allclose(value, right @ change.T, rtol=0, atol=1e-12)
    assert torch.allclose(slope, change @ right_slope, rtol=0, atol=1e-11)


def test_a_model_is_trained_on_where_it_was_not_good_enough(cell, tmp_path):
    """Strains beyond the trained range become part of it, in less time than from the start and without forgetting."""
    rve, model, _, data, unseen = cell
    beyond = RANGE * np.random.default_rng(7).uniform(-1.5, 1.5, (24, 3))
    fe2.rve_snapshots.compute(rve, beyond, tmp_path / "more", MPI.COMM_SELF, progress=False)
    more = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(tmp_path / "more"))
    joined = {k: np.concatenate([getattr(data, k), getattr(more, k)]) for k in OF_STRAINS}
    both = dataclasses.replace(data, **joined)
    result = equino.refit(model, both, RefitOptions(resolved=18, samples=128, lbfgs=100))
    again, histories = result.model, result.histories
    # It begins where the last training ended, far below where a new one would; modes of self-stress changed most.
    fresh = equino.train(both, EquiNOOptions(r=10, resolved=18, samples=128, lbfgs=1)).histories
    for name, share in (("potential", 0.1), ("displacement", 0.1), ("self-stress", 0.5)):
        assert histories[name].validation[0] < share * fresh[name].validation[0]
    assert np.allclose(again.upper.numpy(), abs(both.strain).max(axis=0))
    old, new = (relative(m(torch.from_numpy(more.strain))[0].detach(), more.stress).mean() for m in (model, again))
    assert new < 0.5 * old
    assert relative(again(torch.from_numpy(unseen.strain))[0].detach(), unseen.stress).mean() < 5e-3


OF_STRAINS = ("strain", "stress", "tangent", "energy", "local_strain", "local_stress", "fluctuation")


def some(data, rows):
    """The data of some strains."""
    return dataclasses.replace(data, **{k: getattr(data, k)[rows] for k in OF_STRAINS})


@pytest.mark.parametrize("kind", ["linear", "laminate", "homogeneous"])
def test_rves_with_fewer_fields_than_modes(tmp_path, kind):
    """An RVE of linear phases has d fields, a laminate few more, and a homogeneous one has no fluctuation."""
    stiff, soft = fe2.LinearElastic.from_young_poisson(10.0, 0.2), fe2.SaturatingElastic(bulk=5.0, a1=0.2, a2=0.05)
    if kind == "linear":
        mesh = meshes.rve([meshes.Circle((0.0, 0.0), 0.3)], MPI.COMM_SELF, mesh_size=0.3)
        phases = {1: fe2.LinearElastic.from_young_poisson(1.0, 0.3), 2: stiff}
    else:
        mesh = meshes.laminate((0.4, 0.6), MPI.COMM_SELF, cells=(5, 2))
        phases = {1: soft, 2: stiff if kind == "laminate" else soft}
    rve = fe2.RVE(mesh, phases)
    fe2.rve_snapshots.compute(
        rve, fe2.strain_sampling.sobol(24, 2, RANGE, seed=1), tmp_path / "s", MPI.COMM_SELF, progress=False
    )
    data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(tmp_path / "s"))
    model = equino.train(data, EquiNOOptions(samples=64, lbfgs=100)).model
    strain = 0.9 * RANGE * np.random.default_rng(3).uniform(-1, 1, (10, 3))
    exact = rve.homogenise(strain)
    e = torch.from_numpy(strain)
    certificate = spon.certify(model, e, model.rve_modes.at_points)
    slack = 1e-9 * exact.energy
    assert (certificate.lower.detach().numpy() <= exact.energy + slack).all()
    assert (certificate.upper.detach().numpy() >= exact.energy - slack).all()
    # Only the cubature errs with linear phases, at most by its tolerance.
    assert relative(model(e)[0].detach(), exact.stress).max() < (3e-4 if kind == "linear" else 2e-2)
    model.save(tmp_path / "model.safetensors")
    assert torch.equal(spon.load(tmp_path / "model.safetensors")(e)[0], model(e)[0])


def test_few_snapshots_and_more_modes_than_there_are(cell, tmp_path):
    """Three solutions have three modes of stress, which carry the stresses and nothing else."""
    _, _, _, data, unseen = cell
    few, strain = some(data, slice(3)), torch.from_numpy(unseen.strain)
    quick, more = EquiNOOptions(samples=16, lbfgs=1), RefitOptions(samples=16, lbfgs=1)
    model = equino.train(few, quick).model
    assert model.means.shape == (3, 3) and model.stress(strain).shape == (len(strain), 0)
    assert equino.refit(model, data, more).model.means.shape == (3, 3)
    again = equino.refit(model, data, replace(more, r=10)).model
    assert again.means.shape == (3, 10) and again(strain)[0].isfinite().all()
    supervised = baselines.train_supervised(few, replace(FULL_BATCH, lbfgs=1)).model
    published = baselines.train_as_published(few, published_schedule(1, 1), strains=4).model
    for k, other in enumerate((model, supervised, published)):
        other.save(tmp_path / f"{k}.safetensors")
        assert torch.equal(spon.load(tmp_path / f"{k}.safetensors", whole=True)(strain)[0], other(strain)[0])
    with pytest.raises(ValueError, match="the means of 2 stress modes do not span the 3 stress components: need more"):
        equino.train(some(data, slice(2)), quick)
    with pytest.raises(ValueError, match="one snapshot"):
        baselines.train_sobolev(some(data, slice(1)))


def test_a_component_with_a_narrow_range(cell, tmp_path):
    """Measured 5e-5, and 0.1 where networks take each component in units of its own range."""
    rve, folder = cell[0], tmp_path / "narrow"
    strains = fe2.strain_sampling.sobol(16, 2, RANGE * [1.0, 1.0, 0.1], seed=1)
    fe2.rve_snapshots.compute(rve, strains, folder, MPI.COMM_SELF, progress=False)
    data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(folder))
    options = EquiNOOptions(r=6, resolved=8, samples=64, lbfgs=100, width=12, widths=(12,))
    histories = equino.train(data, options).histories
    assert histories["potential"].validation[-1] < 5e-4


def test_a_law_without_energy_is_learned_without_a_certificate(cell):
    data = cell[3]
    laws = tuple(dataclasses.replace(law, energy_program=None) for law in data.laws.laws)
    without = dataclasses.replace(data, laws=dataclasses.replace(data.laws, laws=laws))
    model = equino.train(without, EquiNOOptions(r=4, resolved=6, samples=16, lbfgs=1)).model
    assert model.calibration.isnan().all()
    with pytest.raises(ValueError, match="has no energy"):
        spon.certify(model, torch.zeros(1, 3, dtype=torch.float64))


def test_training_as_in_the_last_release(cell, tmp_path):
    """Options as keywords, and the result as a tuple; both warn."""
    data = cell[3]
    options = EquiNOOptions(r=4, resolved=6, samples=16, lbfgs=1, seed=2)
    right = equino.train(data, options)
    with pytest.warns(DeprecationWarning, match=r"train\(lbfgs=..., r=.*\) is now train\(..., EquiNOOptions\(lbfgs"):
        result = equino.train(data, r=4, resolved=6, samples=16, lbfgs=1, seed=2)
    with pytest.warns(DeprecationWarning, match=r"result\.model, result\.bases, result\.histories"):
        model, bases, histories = result
    assert model is result.model and bases is result.bases and histories is result.histories
    with pytest.warns(DeprecationWarning, match=r"result\.model"):
        assert result[0] is model
    e = torch.from_numpy(data.strain[:4])
    assert torch.equal(model(e)[0], right.model(e)[0])
    with pytest.warns(DeprecationWarning, match=r"spon\.learn is now spon\.equino\.training"):
        learn = spon.learn
    with pytest.warns(DeprecationWarning, match="RefitOptions"):
        again = learn.refit(model, data, samples=16, lbfgs=1).model
    assert again(e)[0].isfinite().all()
    with pytest.warns(DeprecationWarning, match=r"EquiNO\.as_published is now"):
        published, history = spon.EquiNO.as_published(data, options=published_schedule(1, 1), r=4, strains=4)
    assert history.loss and published(e)[0].isfinite().all()


def test_lbfgs_does_the_given_number_of_iterations():
    x, right = torch.zeros(4, dtype=torch.float64, requires_grad=True), torch.arange(4.0, dtype=torch.float64)

    def loss():  # Rosenbrock's valley, which takes some
        return (1 - x - right).square().sum() + 100 * (x[1:] - x[:-1] ** 2).square().sum()

    for lbfgs, looks in ((0, [0]), (7, [0, 7]), (75, [0, 50, 75])):
        with torch.no_grad():
            x.zero_()
        history = fit([x], loss, loss, replace(FULL_BATCH, steps=0, lbfgs=lbfgs))
        assert list(history.step) == looks and (lbfgs == 0 or history.loss[-1] < history.loss[0])
    with pytest.raises(FloatingPointError, match="the initial loss is nan, the validation loss 6"):
        fit([x], lambda: torch.tensor(torch.nan), lambda: torch.tensor(6.0))


def test_wrong_use_is_told(cell):
    rve, model, _, data, _ = cell
    other = fe2.RVE(rve.domain, {**PHASES, meshes.MATRIX: fe2.SaturatingElastic(a1=40.0)})
    with pytest.raises(fe2.rve_snapshots.SnapshotError, match="belong to another RVE"):
        coupling.rve_snapshots(other, _snapshots(data))
    for failed, match in ((np.ones(40, dtype=bool), "no snapshot converged"), (np.zeros(0, dtype=bool), "are no snap")):
        with pytest.raises(fe2.rve_snapshots.SnapshotError, match=match):
            coupling.rve_snapshots(rve, dataclasses.replace(_snapshots(data), failed=failed))
    with pytest.raises(ValueError, match="another RVE"):
        equino.refit(model, dataclasses.replace(data, fingerprint={"whole": "other"}))
    with pytest.raises(ValueError, match=r"largest strains of the snapshots are \[.*, 0.0\]: need some of every"):
        equino.train(dataclasses.replace(data, strain=data.strain * [1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="samples = 3: need at least 4"):
        EquiNOOptions(samples=3)
    for density, match in (
        (
            lambda e: 1e7 * ufl.inner(e, e) ** 2,
            "Energy: the tangent at zero strain is .*, need a positive",
        ),
        (
            lambda e: 1e3 * ufl.inner(e, e) + 5 * ufl.tr(e),
            r"Energy: the stress at zero strain is \[5.0, 5.0, 0.0\]",
        ),
    ):
        laws = (coupling.phase_law(fe2.Energy(density), 2), data.laws.laws[1])
        with pytest.raises(ValueError, match=match):
            equino.train(dataclasses.replace(data, laws=dataclasses.replace(data.laws, laws=laws)))
    published = baselines.train_as_published(data, published_schedule(0, 1), r=4).model
    with pytest.raises(ValueError, match="the model has no potential"):
        equino.refit(published, data)
    assert model.inside(torch.from_numpy(1.01 * RANGE)[None]).tolist() == [False]
    assert model.inside(torch.zeros(1, 3, dtype=torch.float64)).tolist() == [True]


def _snapshots(data):
    n = len(data.strain)
    return fe2.rve_snapshots.Snapshots(
        data.strain, data.stress, data.tangent, data.energy, data.fluctuation, np.zeros((n, 1, 1, 3)),
        np.zeros(n, dtype=bool), np.ones((1, 1)), data.fingerprint,
    )  # fmt: skip
