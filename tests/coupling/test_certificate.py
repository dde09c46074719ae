# SPDX-License-Identifier: MIT
"""The certificate: bounds hold for any materials, strains and networks, and the estimate has its coverage."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

pytest.importorskip("dolfinx")

import ufl
from mpi4py import MPI
from hypothesis import given, settings
from hypothesis import strategies as st
from trained import AMPLITUDE

import coupling
import fe2
import meshes
import spon
from spon import equino
from spon.constitutive.duality import conjugate, largest_tangent, solve_positive_definite
from spon.equino.networks import Branch, Potential

RANGE = 0.03 * np.array([1.0, 1.0, 0.5**0.5])


def make_rve(materials, degree):
    """An RVE of a matrix and one inclusion, some 30 (degree 1) or 140 unknowns."""
    mesh = meshes.rve([meshes.Circle((0.05, -0.1), 0.28)], MPI.COMM_SELF, mesh_size=0.5)
    return fe2.RVE(mesh, dict(zip((meshes.MATRIX, meshes.INCLUSION), materials, strict=True)), degree=degree)


def untrained(rve, folder, seed):
    """EquiNO on the bases of 12 snapshots with random networks: no prediction, but admissible fields."""
    path = folder / "snapshots.h5"
    path.unlink(missing_ok=True)
    fe2.rve_snapshots.compute(
        rve, fe2.strain_sampling.sobol(12, 2, RANGE, seed=seed), path, MPI.COMM_SELF, progress=False
    )
    data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(path))
    b = spon.reduced.pod_bases(data, r=6, resolved=6)
    half = torch.from_numpy(data.half_range)
    strain, target = torch.from_numpy(data.strain), equino.training.targets(b, torch.from_numpy(data.strain))
    stiffness = torch.from_numpy(np.linalg.lstsq(data.strain, data.stress, rcond=None)[0])
    branches = [
        Branch(half, 0.3 * t.std(dim=0), linear=torch.linalg.lstsq(strain, t).solution, seed=seed)
        for t in (target.displacement.value, target.self_stress.value)
    ]
    return spon.EquiNO(
        branches[0],
        Potential((stiffness + stiffness.T) / 2, half, 0.03 * float(data.energy.mean()), seed=seed),
        branches[1],
        lower=-half,
        upper=half,
        means=spon.reduced.bases.unit_mean_stresses(3, 6),
        cubature=b.rve_modes.at_points.at(b.points, b.reduced.weights),
        rve_modes=b.rve_modes,
    )


def strains_everywhere(n, seed):
    """In the trained range, up to three times as large, and down to 1e-12."""
    rng = np.random.default_rng(seed)
    inside = rng.uniform(-1, 1, (n, 3))
    outside = rng.uniform(-3, 3, (n, 3))
    small = inside * 10 ** rng.uniform(-10.5, 0, (n, 1))
    return RANGE * np.vstack([inside, outside, small])


# Of Gauss and Legendre in (0, 1), by which the work along a straight path to a strain is its energy.
PLACES, WEIGHTS = (0.5 * (x + shift) for x, shift in zip(np.polynomial.legendre.leggauss(6), (1.0, 0.0), strict=True))


def energy_of(rve, strain):
    """Mean energy (n,) [MPa] as the work ∫ S·dE from rest, of which no terms cancel, however small the strain; NaN
    where some problem has no solution."""
    stress = rve.homogenise((PLACES[:, None, None] * strain).reshape(-1, 3), on_failure="report").stress
    return np.einsum("k,kni,ni->n", WEIGHTS, stress.reshape(-1, *strain.shape), strain)


def check_bounds(model, rve, strain, work):
    """No bound is violated by the work (n,) [MPa], the exact energy, and by the exact stress."""
    exact = rve.homogenise(strain, on_failure="report")
    solved = ~np.isnan(exact.energy) & ~np.isnan(work)
    assert solved.any()
    e = torch.from_numpy(strain[solved])
    with torch.no_grad():
        c, (stress, _) = spon.certify(model, e, model.rve_modes.at_points), model(e)
    assert (c.lower.numpy() <= work[solved]).all() and (work[solved] <= c.upper.numpy()).all()
    assert (c.gap > 0).all() and c.gap.isfinite().any()
    error = (stress - torch.from_numpy(exact.stress[solved])).abs()
    assert (error <= c.stress_bound).all()
    return c


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    bulk=st.floats(1e2, 1e5), a1=st.floats(10.0, 500.0), a2=st.floats(5e-3, 0.5), stiff_bulk=st.floats(1e3, 1e5),
    stiff_shear=st.floats(1e2, 1e5), degree=st.sampled_from([1, 2]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_no_bound_is_violated(tmp_path_factory, bulk, a1, a2, stiff_bulk, stiff_shear, degree, seed):
    matrix = fe2.SaturatingElastic(bulk=bulk, a1=a1, a2=a2)
    rve = make_rve((matrix, fe2.LinearElastic(bulk=stiff_bulk, shear=stiff_shear)), degree)
    model = untrained(rve, tmp_path_factory.mktemp("cell"), seed)
    strain = strains_everywhere(8, seed)
    c = check_bounds(model, rve, strain, energy_of(rve, strain))
    assert (c.gap[:8] > 1e-6 * c.upper[:8]).any()  # there is something to be bounded
    rve.destroy()


def test_no_bound_is_violated_where_the_law_has_a_local_unknown(tmp_path):
    """Ramberg–Osgood, whose energy is convex, in both phases."""
    soft = fe2.RambergOsgood(bulk=5e3, shear=2e3, reference=30.0, alpha=0.5, exponent=3.0)
    stiff = fe2.RambergOsgood(bulk=4e4, shear=2e4, reference=300.0, alpha=0.1, exponent=1.5)
    rve = make_rve((soft, stiff), 1)
    model = untrained(rve, tmp_path, 3)
    strain = strains_everywhere(8, 5)
    c = check_bounds(model, rve, strain, energy_of(rve, strain))
    assert c.gap.isfinite().all() and c.stress_bound.isfinite().all()
    rve.destroy()


def test_the_corrected_stress_is_the_derivative_of_the_upper_bound(trained):
    e = torch.from_numpy(fe2.strain_sampling.box(5, 2, 2 * AMPLITUDE, seed=2))
    at, step = trained.model.rve_modes.at_points, 1e-6
    shifted = [spon.certify(trained.model, e + k * step * n, at).upper for n in torch.eye(3).double() for k in (1, -1)]
    slopes = torch.stack([(a - b) / (2 * step) for a, b in zip(shifted[::2], shifted[1::2], strict=True)], dim=1)
    found = spon.certify(trained.model, e, at).corrected
    assert torch.allclose(found, slopes, rtol=0, atol=1e-6 * float(slopes.abs().max()))


def test_the_estimate_has_its_coverage(trained):
    """Of 32 snapshots the most demanding component of all calibrates, as of so few none could be left out."""
    strain = fe2.strain_sampling.box(300, 2, AMPLITUDE, seed=11)
    exact = trained.rve.homogenise(strain).stress
    e = torch.from_numpy(strain)
    error = abs(trained.model(e)[0].numpy() - exact)
    for at in (trained.model.rve_modes.at_points, None):
        c = spon.certify(trained.model, e, at)
        estimate = c.stress_estimate.numpy()
        assert ((estimate >= error).mean(axis=0) > 0.95).all()
        # It is no bound that covers by being large, and what it comes from is the better stress.
        assert np.median(estimate / error) < 4 < np.median(c.stress_bound.nan_to_num(torch.inf).numpy() / error)
        assert np.median(abs(c.corrected.numpy() - exact) / error) < 0.5


@pytest.mark.parametrize("n, rank", [(45, 45), (100, 99), (1000, 960)])
def test_the_quantile_covers_in_nine_of_ten_samples(trained, n, rank):
    """The rank-th of n numbers covers less than 95 % of others if at most n − rank of n are above their 95 % quantile:
    a binomial probability, below a tenth."""
    numbers = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    needed = torch.from_numpy(numbers)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    model = copy.deepcopy(trained.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spon.equino.certificate._needed_factors", lambda *_: needed)
        spon.equino.certificate.calibrate(model, *torch.zeros(2, n, 3).double(), torch.zeros(n).double())
        assert model.calibration.tolist() == [rank, 2 * rank, 3 * rank]
        few, needed = torch.zeros(44, 3).double(), needed[:44]
        spon.equino.certificate.calibrate(model, few, few, few[:, 0])
        assert model.calibration.tolist() == [float(needed.max())] * 3
    below = sum(math.comb(n, k) * 0.05**k * 0.95 ** (n - k) for k in range(n - rank + 1))
    assert below <= 0.1
    more = below + math.comb(n, n - rank + 1) * 0.05 ** (n - rank + 1) * 0.95 ** (rank - 1)
    assert more > 0.1  # a lower rank would not do


def test_the_factor_that_a_strain_needs_makes_its_estimate_the_error(trained):
    """None where the corrected stress is the right one: the estimate then is the distance to the network's alone."""
    model, e = trained.model, torch.from_numpy(fe2.strain_sampling.box(6, 2, 0.9 * AMPLITUDE, seed=8))
    certificate, (own, _) = spon.certify(model, e), model(e)
    known = (own - certificate.corrected).abs()
    right = certificate.corrected.clone()
    right[3:] = own[3:] + 2 * known[3:] + 1.0
    needed = spon.equino.certificate._needed_factors(model, e, right, model.cubature)
    assert (needed[:3] == 0).all() and (needed[3:] > 0).all()
    remainder = (certificate.stress_estimate - known) / model.calibration
    torch.testing.assert_close((known + needed * remainder)[3:], (own - right)[3:].abs(), rtol=1e-9, atol=0)


def test_a_model_that_was_not_calibrated_has_no_estimate(trained, tmp_path):
    """One whose file has no calibration, too."""
    model = spon.load(trained.path)
    e = torch.from_numpy(fe2.strain_sampling.box(3, 2, AMPLITUDE, seed=0))
    assert spon.certify(model, e).stress_estimate.isfinite().all()
    model.calibration.fill_(torch.nan)
    c = spon.certify(model, e)
    assert c.stress_estimate.isnan().all() and c.stress_bound.isfinite().all()


def test_what_does_not_fit_is_refused(trained):
    """Rounding to single precision is above what a good model's bounds are."""
    model, e = trained.model, torch.zeros(2, 3).double()
    for wrong in (torch.zeros(3).double(), torch.zeros(2, 6).double()):
        with pytest.raises(ValueError, match=r"strain has shape .* need \(n, 3\)"):
            spon.certify(model, wrong)
    single = copy.deepcopy(model).to(torch.float32)
    assert single.cubature.weights.dtype == torch.float32 and model.cubature.weights.dtype == torch.float64
    for what, arguments in {
        "the strain": (model, e.float()),
        "the model": (single, e.float()),
        "the set of modes": (model, e, single.cubature),
    }.items():
        with pytest.raises(ValueError, match=rf"{what} is torch\.float32 on cpu, need torch\.float64"):
            spon.certify(*arguments)
    for wrong in (e + 0j, e.numpy() + 0j):
        with pytest.raises(ValueError, match=r"strains are of the type .*complex128, need real numbers"):
            spon.certify(model, wrong)
    with pytest.raises(ValueError, match=r"the strain of point 1 is \[nan, 0\.0, 0\.0\], need finite"):
        spon.certify(model, [[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]])


def test_arrays_and_lists_are_taken(trained):
    e = np.full((2, 3), 0.01)
    right = spon.certify(trained.model, torch.from_numpy(e))
    for strain in (e, e.tolist()):
        assert torch.equal(spon.certify(trained.model, strain).gap, right.gap)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(size=st.floats(-12.0, -1.5), seed=st.integers(0, 10**6))
def test_bounds_of_a_trained_model_hold_at_any_size_of_strain(trained, size, seed):
    """From 1e-12, where an energy is all rounding, to the end of the range; on the modes, too."""
    strain = 10**size * np.random.default_rng(seed).uniform(-1, 1, (4, 3))
    work = energy_of(trained.rve, strain)
    c = check_bounds(trained.model, trained.rve, strain, work)
    refined = spon.ModalCorrector(trained.model)(torch.from_numpy(strain), trained.model.rve_modes.at_points)
    assert (refined.upper.numpy() >= work).all() and ((refined.upper - refined.gap).numpy() <= work).all()
    # Rounding is all that there is below: a1 a2 eps to each energy, some times, which is 1e-2 of it at 1e-8.
    assert (c.gap <= 0.1 * c.upper).all() or size < -7.5


def test_rounding_of_programs_is_bounded(trained):
    """Against the same formula in 50 digits, where its terms cancel and where they do not."""
    mp = pytest.importorskip("mpmath")
    mp.mp.dps = 50
    law = fe2.SaturatingElastic(bulk=4780.0, a1=50.0, a2=0.06)
    program = coupling.phase_law(law, 2)
    rng = np.random.default_rng(0)
    for size in (1e-12, 1e-9, 1e-6, 1e-3, 1e-1):
        e = size * rng.standard_normal((50, 3))
        bound = program.rounding("energy", torch.from_numpy(e)).numpy()
        found = program.energy(torch.from_numpy(e)).numpy()
        for strain, value, most in zip(e, found, bound, strict=True):
            xx, yy, xy = (mp.mpf(float(x)) for x in strain)
            trace = xx + yy
            deviator = (xx - trace / 3) ** 2 + (yy - trace / 3) ** 2 + (trace / 3) ** 2 + xy**2
            n, bulk, a1, a2 = mp.sqrt(deviator + mp.mpf(1e-30)), *map(mp.mpf, (law.bulk, law.a1, law.a2))
            right = bulk / 2 * trace**2 + a1 * (n - a2 * mp.log(1 + n / a2))
            assert abs(float(right - mp.mpf(float(value)))) <= most
        # And no more than a hundred roundings of the largest term.
        largest = 4780.0 * (e**2).sum(axis=1) + 50.0 * (0.06 + np.linalg.norm(e, axis=1))
        assert (bound < 100 * np.finfo(float).eps * largest).all()


def law_of(density):
    return coupling.phase_law(fe2.Energy(density), 2)


def squared(strain):
    return ufl.inner(strain, strain)


def test_an_energy_that_is_not_convex_is_refused(trained):
    double_well = law_of(lambda e: 1e3 * squared(e) + 40.0 * ufl.exp(-100 * squared(e)))
    with pytest.raises(ValueError, match="Energy: the energy is not convex"):
        largest_tangent(double_well)
    model = trained.model
    laws = dataclasses.replace(model.cubature.laws, laws=(double_well, model.cubature.laws.laws[1]))
    with pytest.raises(ValueError, match="not convex"):
        spon.certify(model, torch.zeros(1, 3).double(), dataclasses.replace(model.cubature, laws=laws))
    with pytest.raises(ValueError, match="not convex"):
        coupling.CertifiedLaw(model, fe2.ExactLaw(trained.rve), at=dataclasses.replace(model.cubature, laws=laws))


# Laws that stiffen, whose stress has a kink, and whose stress jumps.
@pytest.mark.parametrize("density", [
    lambda e: 1e3 * squared(e) + 1e4 * squared(e) ** 2,
    lambda e: 1e3 * squared(e) + ufl.conditional(ufl.gt(ufl.tr(e), 0), 2.0, 1.0) * 1e3 * ufl.tr(e) ** 2,
    lambda e: 1e3 * squared(e) + 0.5 * abs(ufl.tr(e)),
])  # fmt: skip
def test_without_a_largest_tangent_there_is_no_bound_on_the_stress(trained, density):
    law = law_of(density)
    assert largest_tangent(law) is None
    model = trained.model
    laws = dataclasses.replace(model.cubature.laws, laws=(law, model.cubature.laws.laws[1]))
    e = torch.from_numpy(fe2.strain_sampling.box(3, 2, AMPLITUDE, seed=0))
    c = spon.certify(model, e, dataclasses.replace(model.cubature, laws=laws))
    assert c.stress_bound.isnan().all() and (c.gap >= 0).all()


def test_a_constant_of_the_energy_changes_nothing_that_is_relative(trained):
    """Neither which points a certified law solves exactly nor the estimate."""
    model, e = trained.model, fe2.strain_sampling.box(50, 2, AMPLITUDE, seed=0)
    law, other = model.cubature.laws.laws
    program = law.energy_program
    more = dataclasses.replace(
        program,
        constants=(*program.constants, 100.0),
        steps=(*_renumbered(program), ("add", _shift(program, program.outputs[0]), _first(program))),
        outputs=(_first(program) + len(program.steps) + 1,),
    )
    moved = dataclasses.replace(law, energy_program=more)
    at = dataclasses.replace(model.cubature, laws=dataclasses.replace(model.cubature.laws, laws=(moved, other)))
    share = float(model.cubature.weights[: model.cubature.laws.counts[0]].sum())
    with torch.no_grad():
        plain, shifted = (spon.certify(model, torch.from_numpy(e), where) for where in (None, at))
    assert torch.allclose(shifted.upper, plain.upper + 100 * share, rtol=1e-13)
    assert torch.allclose(shifted.stress_estimate, plain.stress_estimate, rtol=1e-6)
    gaps = [coupling.CertifiedLaw(model, fe2.ExactLaw(trained.rve), at=where).gaps(e) for where in (None, at)]
    assert np.allclose(*gaps, rtol=1e-6)


def _first(program):
    """Number of the constant that is added to a program."""
    return sum(size for _, size in program.inputs) + len(program.constants)


def _shift(program, i):
    return i + (i >= _first(program))


def _renumbered(program):
    """Steps of a program that has one more constant."""
    return ((name, *(_shift(program, i) for i in operands)) for name, *operands in program.steps)


def test_the_conjugate_across_a_jump_of_the_stress_is_right_or_infinite():
    """ψ = c ‖ε‖² + t |tr ε| carries any stress, some at the kink, where there is no tangent to find it with."""
    c, t = 1e3, 0.5
    law = law_of(lambda e: c * squared(e) + t * abs(ufl.tr(e)))
    sigma = 3 * torch.randn(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    p = sigma @ unit / 2
    left = sigma - p.clamp(-t, t)[:, None] * unit  # what the kink does not take, the closest point
    right = left.square().sum(-1) / (4 * c)
    found = conjugate(law, sigma, torch.zeros_like(sigma))
    assert (((found - right).abs() <= 1e-12 * right) | found.isinf()).all() and found.isfinite().any()


@pytest.mark.parametrize("compiled", [True, False])
def test_the_conjugate_is_found_where_stress_is_rounding(monkeypatch, compiled):
    """ψ = c (exp t − 1 − t) + c e:e, t = tr e, whose stress near rest has no digit of its own."""
    if not compiled:
        monkeypatch.setattr(spon.constitutive.duality, "compiled_conjugate", lambda law: None)
    c, unit = 1e3, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    law = law_of(lambda e: c * (ufl.exp(ufl.tr(e)) - 1 - ufl.tr(e)) + c * squared(e))
    for size in (1e-14, 1e-11, 1e-8, 1e-5):
        e = size * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        sigma = c * (torch.expm1(e @ unit)[:, None] * unit + 2 * e)
        found = conjugate(law, sigma, 1.1 * e)
        # By Fenchel's equality; exp t − 1 − t to its fourth term. Of the energy's terms the one loses most, c eps.
        t = e @ unit
        right = (sigma * e).sum(-1) - c * (t**2 / 2 + t**3 / 6 + t**4 / 24 + e.square().sum(-1))
        assert ((found - right).abs() <= 1e-9 * right + 8 * c * torch.finfo(torch.float64).eps).all()


@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_conjugate_in_machine_code_is_that_of_torch(monkeypatch, dim, size):
    """From far below the stress that saturates to beyond it, where no strain carries it and both are infinite."""
    law = coupling.phase_law(fe2.SaturatingElastic(), dim)
    sigma = size * torch.randn(200, law.strain_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert spon.constitutive.duality.compiled_conjugate(law) is not None
    found = conjugate(law, sigma, torch.zeros_like(sigma))
    monkeypatch.setattr(spon.constitutive.duality, "compiled_conjugate", lambda law: None)
    right = conjugate(law, sigma, torch.zeros_like(sigma))
    # Rounding, and what an iteration may leave, squared in the energy.
    assert torch.equal(found.isinf(), right.isinf()) and found.isinf().any() == (size == 300.0)
    known = right.isfinite()
    slack = 1e-12 * right[known] + 8 * torch.finfo(torch.float64).eps * 50.0 * 0.06  # a1 a2 of its logarithm
    assert ((found - right)[known].abs() <= slack).all()


def test_elimination_solves_positive_definite_systems():
    generator = torch.Generator().manual_seed(0)
    for d in (1, 3, 6):
        factor = torch.randn(50, d, d, generator=generator, dtype=torch.float64)
        matrix, right = factor @ factor.mT + torch.eye(d), torch.randn(50, d, generator=generator, dtype=torch.float64)
        assert torch.allclose(
            solve_positive_definite(matrix, right), torch.linalg.solve(matrix, right), rtol=1e-11, atol=1e-12
        )
