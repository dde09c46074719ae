# SPDX-License-Identifier: MIT
"""Measures of strain: the polar decomposition, and what a potential of U − I is as a function of F."""

import itertools
import os

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import branch, by_torch, difference, potential

import spon.jit
from spon.constitutive import Measure
from spon.equino.baselines import StressNetwork
from spon.equino.evaluate.c_response import CompiledResponse
from spon.equino.evaluate.evaluator import _Turned

EPS = np.finfo(float).eps
FINITE = {2: Measure("displacement gradient", 4), 3: Measure("displacement gradient", 9)}
LINEAR = [("small strain", 1), ("small strain", 3), ("small strain", 6)] + [("gradient", d) for d in (1, 2, 3)]
dims = pytest.mark.parametrize("dim", [2, 3])
needs_compiler = pytest.mark.skipif(not spon.jit.compiler(), reason="there is no C compiler")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A folder of this session's own for what is compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def rotations(n, dim, seed=0):
    """Random rotations (n, dim, dim), of the QR decomposition."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, dim, dim)))
    q = q * np.sign(np.einsum("nii->ni", r))[:, None]
    q[np.linalg.det(q) < 0, :, 0] *= -1
    return q


def stretches(n, dim, least=0.7, most=1.4, seed=0):
    """Random symmetric positive definite tensors U with eigenvalues in an interval."""
    values = np.random.default_rng(seed).uniform(least, most, (n, dim))
    axes = rotations(n, dim, seed + 1)
    return np.einsum("nij,nj,nkj->nik", axes, values, axes)


def rows(f):
    """Strains (n, d) of deformation gradients (n, dim, dim), as tensors of torch."""
    return torch.from_numpy(np.ascontiguousarray(f - np.eye(f.shape[-1]))).flatten(1)


def mandel(a):
    """Components of symmetric tensors, by their definition: √2 times the shears yz, xz, xy."""
    if a.shape[-1] == 2:
        return np.stack([a[:, 0, 0], a[:, 1, 1], 2**0.5 * a[:, 0, 1]], axis=1)
    shears = [2**0.5 * a[:, i, j] for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.stack([a[:, 0, 0], a[:, 1, 1], a[:, 2, 2], *shears], axis=1)


def polar(f):
    """R and U by the singular value decomposition, F = X S Yᵀ, U = Y S Yᵀ."""
    x, s, y = np.linalg.svd(f)
    return x @ y, np.einsum("nji,nj,njk->nik", y, s, y)


class Energy:
    """W = ½ e·K e + Σ c ln cosh(a·e) of the coordinates e (n, s) of U − I, with its derivatives in closed form."""

    def __init__(self, s, seed=0):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((s, s))
        self.k, self.a, self.c = x @ x.T + np.eye(s), 3 * rng.standard_normal((4, s)), rng.uniform(-1, 1, 4)

    def __call__(self, e):
        return 0.5 * ((e @ self.k) * e).sum(-1) + np.log(np.cosh(e @ self.a.T)) @ self.c

    def at(self, e):
        k, a, c = (torch.from_numpy(x).to(e) for x in (self.k, self.a, self.c))
        tanh = torch.tanh(e @ a.T)
        return e @ k + (c * tanh) @ a, k + torch.einsum("k,nk,ki,kj->nij", c, 1 - tanh**2, a, a)


@dims
def test_coordinates_and_rotations_are_those_of_the_polar_decomposition(dim):
    f = rotations(100, dim, 2) @ stretches(100, dim)
    r, u = polar(f)
    h, one = rows(f), np.eye(dim)
    measure = FINITE[dim]
    np.testing.assert_allclose(measure.coordinates(h).numpy(), mandel(u - one), rtol=0, atol=20 * EPS)
    np.testing.assert_allclose(measure.rotations(h).numpy(), r, rtol=0, atol=20 * EPS)
    np.testing.assert_allclose(measure.stretch(h).numpy(), (u - one).reshape(100, -1), rtol=0, atol=20 * EPS)
    q = measure.embedding(h)
    assert q.shape == (measure.coordinate_size, measure.size)
    torch.testing.assert_close(q @ q.mT, torch.eye(len(q), dtype=torch.float64), rtol=0, atol=2 * EPS)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    logs=st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3), dim=st.sampled_from([2, 3]),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_the_polar_decomposition_at_stretches_from_a_hundredth_to_a_hundred(logs, dim, seed):
    values, axes = 10.0 ** np.array(logs[:dim]), rotations(1, dim, seed)[0]
    u = (axes * values) @ axes.T
    r = rotations(1, dim, seed + 1)[0]
    h = rows((r @ u)[None])
    # Rounding of H, and of C, which has the squares of the stretches: the largest's is relative to the smallest. In
    # three dimensions C is inverted in the iteration, and its condition is that ratio squared.
    loss = (values.max() / values.min()) ** (dim - 1)
    found, slack = FINITE[dim].coordinates(h).numpy(), 20 * EPS * (1 + loss * values.max())
    np.testing.assert_allclose(found, mandel((u - np.eye(dim))[None]), rtol=0, atol=slack)
    np.testing.assert_allclose(FINITE[dim].rotations(h)[0].numpy(), r, rtol=0, atol=slack / values.min())


@dims
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coordinates_keep_their_digits_at_small_strains(dim, dtype):
    """By the series of the root, U − I = S + (HᵀH − S²)/2 + ... with S = sym H."""
    h = 1e-12 * np.random.default_rng(0).uniform(-1, 1, (50, dim, dim))
    found = FINITE[dim].coordinates(torch.from_numpy(h).flatten(1).to(dtype)).double().numpy()
    s = (h + h.transpose(0, 2, 1)) / 2
    right = mandel(s + (h.transpose(0, 2, 1) @ h - s @ s) / 2)
    np.testing.assert_allclose(found, right, rtol=0, atol=10 * torch.finfo(dtype).eps * 1e-12)


@dims
def test_there_is_no_stretch_where_the_volume_is_not_positive(dim):
    """A reflection, a collapse, and −I in two dimensions, a rotation by 180°, which is one."""
    one = np.eye(dim)
    mirror, flat = one.copy(), one.copy()
    mirror[0, 0], flat[0, 0] = -1.0, 0.0
    turn = one.copy()
    turn[:2, :2] *= -1
    h = rows(np.stack([one, mirror, flat, turn]))
    coordinates = FINITE[dim].coordinates(h)
    assert coordinates[1:3].isnan().all()
    torch.testing.assert_close(coordinates[[0, 3]], torch.zeros_like(coordinates[:2]), rtol=0, atol=4 * EPS)
    stress, tangent = FINITE[dim].respond(Energy(coordinates.shape[1]).at, h)
    assert stress[1:3].isnan().all() and tangent[1:3].isnan().all()
    assert stress[[0, 3]].isfinite().all() and tangent[[0, 3]].isfinite().all()


@dims
@pytest.mark.parametrize("seed", [0, 1])
def test_stress_and_tangent_are_the_derivatives_of_the_energy(dim, seed):
    """Central differences of W(U(F)), with U of the singular value decomposition, and of the stress."""
    measure, energy = FINITE[dim], Energy(FINITE[dim].coordinate_size, seed)
    f = rotations(20, dim, seed) @ stretches(20, dim, seed=seed)
    stress, tangent = measure.respond(energy.at, rows(f))
    step = 1e-5
    for k, (i, j) in enumerate(itertools.product(range(dim), repeat=2)):
        shifted = [f.copy(), f.copy()]
        shifted[0][:, i, j] += step
        shifted[1][:, i, j] -= step
        plus, minus = (energy(mandel(polar(x)[1] - np.eye(dim))) for x in shifted)
        largest = float(stress.abs().max())
        np.testing.assert_allclose(stress[:, k].numpy(), (plus - minus) / (2 * step), rtol=0, atol=1e-7 * largest)
        plus, minus = (measure.respond(energy.at, rows(x))[0] for x in shifted)
        slope = (plus - minus) / (2 * step)
        torch.testing.assert_close(tangent[:, :, k], slope, rtol=0, atol=1e-7 * float(tangent.abs().max()))


@dims
def test_the_response_turns_with_the_frame(dim):
    """P(Q F) = Q P(F), and dP/dF with its first and third index; the tangent has major symmetry."""
    measure, energy = FINITE[dim], Energy(FINITE[dim].coordinate_size)
    f, q = rotations(50, dim, 5) @ stretches(50, dim), rotations(50, dim, 6)
    stress, tangent = measure.respond(energy.at, rows(f))
    turned_stress, turned_tangent = measure.respond(energy.at, rows(q @ f))
    tensor, moduli = stress.numpy().reshape(-1, dim, dim), tangent.numpy().reshape(-1, dim, dim, dim, dim)
    right = np.einsum("nai,nij->naj", q, tensor).reshape(50, -1)
    np.testing.assert_allclose(turned_stress.numpy(), right, rtol=0, atol=1e-12 * abs(right).max())
    right = np.einsum("nai,nbk,nijkl->najbl", q, q, moduli).reshape(50, dim**2, dim**2)
    np.testing.assert_allclose(turned_tangent.numpy(), right, rtol=0, atol=1e-12 * abs(right).max())
    torch.testing.assert_close(tangent, tangent.mT, rtol=0, atol=1e-12 * float(tangent.abs().max()))
    # The Cauchy stress, P Fᵀ but for the volume, is symmetric: the balance of moments.
    kirchhoff = tensor @ f.transpose(0, 2, 1)
    np.testing.assert_allclose(kirchhoff, kirchhoff.transpose(0, 2, 1), rtol=0, atol=1e-12 * abs(kirchhoff).max())


@dims
def test_rest_has_no_stress_and_the_tangent_of_small_strain(dim):
    """Turned, too: dP/dF at F = Q has no geometric part, as there is no stress."""
    measure, energy = FINITE[dim], Energy(FINITE[dim].coordinate_size)
    zero = torch.zeros(1, dim**2, dtype=torch.float64)
    stress, tangent = measure.respond(energy.at, zero)
    assert (stress == 0).all()  # to the last bit
    _, small = energy.at(zero[:, : measure.coordinate_size])
    q = measure.embedding(zero)
    torch.testing.assert_close(tangent, q.mT @ small @ q, rtol=0, atol=1e-13 * float(small.abs().max()))
    turned = rows(rotations(10, dim))
    stress, _ = measure.respond(energy.at, turned)
    assert stress.abs().max() < 1e-14 * float(small.abs().max())
    back = measure.projected(torch.zeros(1, dim**2, dtype=torch.float64), tangent)[1]
    torch.testing.assert_close(back, small, rtol=0, atol=1e-13 * float(small.abs().max()))


@dims
def test_stress_and_tangent_at_stretches_go_back_and_forth(dim):
    """T and dT/dU are the symmetric parts of P and dP/dF at F = U, and give them again at each F = R U."""
    measure, energy = FINITE[dim], Energy(FINITE[dim].coordinate_size)
    u = stretches(30, dim)
    at_u = rows(u)
    e = measure.coordinates(at_u)
    response = measure.respond(energy.at, at_u)
    for found, right in zip(measure.projected(*response), energy.at(e), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-13 * float(right.abs().max()))
    h = rows(rotations(30, dim, 3) @ u)
    for found, right in zip(
        measure.turned_back(h, *measure.projected(*response)), measure.respond(energy.at, h), strict=True
    ):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-12 * float(right.abs().max()))


@dims
def test_the_stress_map(dim):
    measure, energy = FINITE[dim], Energy(FINITE[dim].coordinate_size)
    h = rows(rotations(30, dim, 3) @ stretches(30, dim))
    t, _ = energy.at(measure.coordinates(h))
    found = (measure.stress_map(h) @ t[:, :, None])[:, :, 0]
    right = measure.respond(energy.at, h)[0]
    torch.testing.assert_close(found, right, rtol=0, atol=1e-13 * float(right.abs().max()))


@dims
def test_fields_turn_with_the_macroscale(dim):
    """I + H = R (I + H_U) for strains, R P for stresses, and back by the transpose."""
    measure, r = FINITE[dim], rotations(4, dim)
    field = np.random.default_rng(0).uniform(-0.3, 0.3, (4, 5, dim, dim))
    rotation, flat = torch.from_numpy(r), torch.from_numpy(field).flatten(2)
    right = np.einsum("nij,npjk->npik", r, field)
    np.testing.assert_allclose(measure.rotated(rotation, flat).numpy(), right.reshape(4, 5, -1), rtol=0, atol=10 * EPS)
    strain = measure.rotated(rotation, flat, 1.0)
    right = np.einsum("nij,npjk->npik", r, np.eye(dim) + field) - np.eye(dim)
    np.testing.assert_allclose(strain.numpy(), right.reshape(4, 5, -1), rtol=0, atol=10 * EPS)
    torch.testing.assert_close(measure.rotated(rotation.mT, strain, 1.0), flat, rtol=0, atol=20 * EPS)


@pytest.mark.parametrize("name, size", LINEAR)
def test_linear_measures_leave_everything_as_it_is(name, size):
    measure, energy = Measure(name, size), Energy(size)
    e = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (5, size)))
    assert not measure.finite and measure.coordinate_size == size
    for found in (measure.coordinates(e), measure.strain(e), measure.stretch(e)):
        assert found is e
    for found, right in zip(measure.respond(energy.at, e), energy.at(e), strict=True):
        assert torch.equal(found, right)
    assert all(a is b for a, b in zip(measure.projected(e, e), (e, e), strict=True))
    assert torch.equal(measure.stress_map(e), torch.eye(size, dtype=torch.float64).expand(5, size, size))


def test_what_is_no_measure_is_refused():
    with pytest.raises(ValueError, match=r"measure = 'finite': need one of 'small strain', 'displacement gradient'"):
        Measure("finite", 4)
    with pytest.raises(ValueError, match=r"a displacement gradient has \(4, 9\) components, not 3"):
        Measure("displacement gradient", 3)


@dims
def test_single_precision(dim):
    """Some tens of rounding errors of 1.2e-7."""
    measure, energy = FINITE[dim], Energy(FINITE[dim].coordinate_size)
    h = rows(rotations(50, dim, 2) @ stretches(50, dim))
    right = measure.respond(energy.at, h)
    found = measure.respond(energy.at, h.float())
    for mine, other in zip(found, right, strict=True):
        assert mine.dtype == torch.float32
        assert 0 < float((mine - other).abs().max()) < 1e-5 * float(other.abs().max())


def by_network(network, measure, h, dtype=torch.float64):
    with torch.no_grad():
        return [x.numpy() for x in measure.respond(network, torch.from_numpy(h))]


def gradients(n, dim, seed=0):
    """Rows (n, d) of F = R U with U − I of the size of the range of the networks; the first is zero."""
    u = stretches(n, dim, 0.95, 1.05, seed=seed)
    h = rows(rotations(n, dim, seed + 2) @ u).numpy()
    h[:1] = 0
    return h


def by_machine(code, h):
    n, d = h.shape
    arrays = h.astype(code.dtype), np.full((n, d), 7.0, code.dtype), np.full((n, d, d), 7.0, code.dtype)
    code(*arrays)
    return arrays[1:]


@needs_compiler
@dims
@pytest.mark.parametrize("n", [0, 1, 7, 63, 64, 65, 301])
def test_machine_code_is_the_formula(dim, n):
    p, measure = potential(FINITE[dim].coordinate_size), FINITE[dim]
    h = gradients(n, dim)
    found = by_machine(CompiledResponse(p, measure=measure), h)
    assert difference(found, by_network(p, measure, h)) < 1e-12
    assert not found[0][:1].any()  # to the last bit


@needs_compiler
@dims
def test_machine_code_in_single_precision(dim):
    p, measure = potential(FINITE[dim].coordinate_size), FINITE[dim]
    h = gradients(100, dim)
    found = by_machine(CompiledResponse(p, dtype=torch.float32, measure=measure), h)
    assert found[0].dtype == np.float32 and 0 < difference(found, by_network(p, measure, h)) < 1e-4


@needs_compiler
@dims
def test_machine_code_has_no_number_where_torch_has_none(dim):
    """A reflection, NaN and infinity, each beside points that are as before."""
    p, measure = potential(FINITE[dim].coordinate_size), FINITE[dim]
    h = gradients(20, dim)
    h[3] = 0
    h[3, 0] = -2.0
    h[7, 1], h[11, 2] = np.nan, np.inf
    found, right = by_machine(CompiledResponse(p, measure=measure), h), by_network(p, measure, h)
    bad = np.isin(np.arange(20), [3, 7, 11])
    for mine, other in zip(found, right, strict=True):
        assert np.isnan(mine[bad]).all() and np.isnan(other[bad]).all()
        np.testing.assert_allclose(mine[~bad], other[~bad], rtol=0, atol=1e-12 * abs(other[~bad]).max())


@needs_compiler
def test_linear_measures_have_the_same_machine_code():
    e = 0.03 * np.random.default_rng(0).uniform(-1, 1, (9, 3))
    p = potential()
    plain = by_machine(CompiledResponse(p), e)
    for name in ("small strain", "gradient"):
        found = by_machine(CompiledResponse(p, measure=Measure(name, 3)), e)
        assert all(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))
    two = potential(2)
    found = by_machine(CompiledResponse(two, measure=Measure("gradient", 2)), e[:, :2].copy())
    assert difference(found, by_torch(two, e[:, :2].copy())) < 1e-13


@dims
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="with a GPU Triton compiles")
def test_the_fused_kernel_is_the_formula(dim):
    """The kernel of the coordinates, turned by torch, by Triton's interpreter as in test_triton_response.py."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from spon.equino.evaluate.triton_response import FusedResponse

    p, measure = potential(FINITE[dim].coordinate_size), FINITE[dim]
    h = gradients(19, dim)
    h[4, 0] = -3.0 - 2 * h[4, 0]
    found = [torch.full(shape, 7.0, dtype=torch.float64) for shape in (h.shape, (*h.shape, dim**2))]
    _Turned(FusedResponse(p, None, device="cpu"), measure)(torch.from_numpy(h), *found)
    right = by_network(p, measure, h)
    bad = np.isnan(right[0]).any(axis=1)
    assert bad.any() == bool((np.linalg.det(h.reshape(-1, dim, dim) + np.eye(dim)) <= 0).any())
    for mine, other in zip(found, right, strict=True):
        assert mine[bad].isnan().all()
        np.testing.assert_allclose(mine[~bad].numpy(), other[~bad], rtol=0, atol=1e-12 * abs(other[~bad]).max())


@dims
def test_any_network_of_the_coordinates_is_objective(dim):
    """Also one that has no potential, whose tangent has no major symmetry."""
    measure, s = FINITE[dim], FINITE[dim].coordinate_size
    model = StressNetwork(branch(s, r=s, widths=(9,))[0], measure=measure)
    f, q = rotations(20, dim, 5) @ stretches(20, dim, 0.95, 1.05), rotations(20, dim, 6)
    with torch.no_grad():
        (stress, tangent), (turned, _) = model(rows(f)), model(rows(q @ f))
    right = np.einsum("nai,nij->naj", q, stress.numpy().reshape(-1, dim, dim)).reshape(20, -1)
    np.testing.assert_allclose(turned.numpy(), right, rtol=0, atol=1e-12 * abs(right).max())
    assert (tangent - tangent.mT).abs().max() > 1e-3 * float(tangent.abs().max())
