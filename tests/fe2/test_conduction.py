# SPDX-License-Identifier: MIT
"""Conduction: arrays of cylinders by Rayleigh's method, checkerboards, laminates, bounds, voids, nonlinear phases."""

from dataclasses import replace
from math import comb, gamma, pi, sqrt

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import ufl
from mpi4py import MPI
from scipy.optimize import root

import fe2
import meshes

BOUNDARIES = ["uniform traction", "periodic", "linear displacement"]
K1, K2 = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[5.0, -1.0], [-1.0, 9.0]])


def close(value, expected, relative):
    """The largest difference is small next to the largest entry."""
    assert np.shape(value) == np.shape(expected)
    assert abs(np.asarray(value) - expected).max() <= relative * abs(np.asarray(expected)).max()


def conductivity(domain, phases, **options):
    """Effective conductivity (dim, dim) of a cell."""
    materials = {tag: fe2.Conductive(k) for tag, k in phases.items()}
    dim = domain.mesh.geometry.dim
    rve = fe2.RVE(domain, materials, **options)
    return rve.homogenise(np.zeros(dim)).tangent[0]


# Regular arrays of cylinders.

AREA = {"square": 1.0, "hexagonal": sqrt(3) / 2}  # of a cell with one cylinder, at distance 1 of their axes


def lattice_sums(array, most):
    """S_n = Σ R⁻ⁿ over the points R ≠ 0 of the lattice in the complex plane, n up to `most`.

    S₄ = Γ(1/4)⁸/(960 π²) of the square and S₆ = Γ(1/3)¹⁸/(8960 π⁶) of the hexagonal lattice, and the others by the
    recursion of the Laurent coefficients cₖ = (2k − 1) S₂ₖ of Weierstrass's function (Abramowitz & Stegun, 18.5.1 to
    18.5.3, 18.14, 18.13). S₂, which depends on the order of summation, is π over the cell's area if the mean gradient
    is prescribed, by Legendre's relation for the quasi-period of Weierstrass's ζ.
    """
    c = {2: 0.0, 3: 0.0}
    if array == "square":
        c[2] = 3 * gamma(1 / 4) ** 8 / (960 * pi**2)
    else:
        c[3] = 5 * gamma(1 / 3) ** 18 / (8960 * pi**6)
    for k in range(4, most // 2 + 1):
        c[k] = 3 / ((2 * k + 1) * (k - 3)) * sum(c[m] * c[k - m] for m in range(2, k - 1))
    sums = np.zeros(most + 1)
    for k, value in c.items():
        sums[2 * k] = value / (2 * k - 1)
    sums[2] = pi / AREA[array]
    return sums


def rayleigh(array, fraction, ratio, orders=60):
    """Effective conductivity of an array of cylinders of conductivity `ratio` in a matrix of conductivity 1.

    Rayleigh (Phil. Mag. 34, 1892, 481–502) as extended by Perrins, McKenzie & McPhedran (Proc. R. Soc. Lond. A 369,
    1979, 207–225). Around an axis T = Re Σ (Aₗ zˡ + Bₗ z⁻ˡ), l odd; continuity at the radius a gives
    Aₗ a²ˡ = τ Bₗ, τ = (1 + ratio)/(1 − ratio). The regular part comes from the other cylinders and the mean gradient,
    Aₗ = δₗ₁ − Σₘ C(l+m−1, l) S_{l+m} Bₘ, and the mean flux is 1 − 2π B₁/area. An infinite ratio has τ = −1, an
    insulating cylinder τ = 1.
    """
    a = sqrt(fraction * AREA[array] / pi)
    tau = -1.0 if ratio == np.inf else (1 + ratio) / (1 - ratio)
    sums, odd = lattice_sums(array, 4 * orders), 2 * np.arange(orders) + 1
    # Unknowns Bₗ a⁻ˡ √l make the matrix symmetric.
    matrix = [[comb(int(p + q - 1), int(p)) * sums[p + q] * a ** (p + q) * sqrt(p / q) for q in odd] for p in odd]
    right = np.zeros(orders)
    right[0] = a
    return 1 - 2 * pi * a * np.linalg.solve(tau * np.eye(orders) + np.array(matrix), right)[0] / AREA[array]


def published(array, fraction, ratio):
    """Perrins, McKenzie & McPhedran's formulae, which neglect higher powers of the fraction."""
    t, f = (-1.0 if ratio == np.inf else (1 + ratio) / (1 - ratio)), fraction
    if array == "square":
        return 1 - 2 * f / (t + f - 0.305827 * f**4 * t / (t**2 - 1.402958 * f**8) - 0.013362 * f**8 / t)
    return 1 - 2 * f / (t + f - 0.075422 * f**6 * t / (t**2 - 1.060283 * f**12) - 0.000076 * f**12 / t)


@pytest.mark.parametrize("ratio", [np.inf, 50.0, 2.0, 0.0])
def test_rayleighs_method_is_the_published_formula_where_that_holds(ratio):
    """Its six digits leave 1e-6 f⁴ and f⁶; that of the square array neglects some f¹², so that it ends sooner."""
    for array, fractions in (("square", (0.05, 0.2, 0.35)), ("hexagonal", (0.05, 0.3, 0.6))):
        for f in fractions:
            neglected = f**12 if array == "square" else 1e-2 * f**18
            assert published(array, f, ratio) == pytest.approx(rayleigh(array, f, ratio), rel=2e-6 * f**4 + neglected)
            assert rayleigh(array, f, ratio) == pytest.approx(rayleigh(array, f, ratio, 40), rel=1e-14)


def cylinders(array, fraction, tag, *, order, mesh_size=0.15):
    """A cell of the square array, or of the hexagonal one with two cylinders."""
    a = sqrt(fraction * AREA[array] / pi)
    size = (1.0, 1.0) if array == "square" else (1.0, sqrt(3))
    centers = [(0.0, 0.0)] if array == "square" else [(0.0, 0.0), (0.5, sqrt(3) / 2)]
    bodies = [meshes.Circle(center, a, tag) for center in centers]
    return meshes.rve(bodies, MPI.COMM_SELF, mesh_size=mesh_size, size=size, order=order)


@pytest.mark.parametrize(
    "array, fraction",
    [("square", f) for f in (0.1, 0.3, 0.5, 0.7, 0.76)] + [("hexagonal", f) for f in (0.1, 0.3, 0.5, 0.7, 0.85)],
)
def test_arrays_of_cylinders(array, fraction):
    """Cubic elements with curved edges, whose areas are off by 1e-6: conductivities to 2e-5, of perfect and good
    conductors and of voids. At 1e8 a cylinder conducts perfectly to 1e-7. In the plane 1/k is the conductivity for
    inverse phases (Keller, J. Math. Phys. 5, 1964, 548), so that voids and perfect conductors are inverse."""
    domain = cylinders(array, fraction, 2, order=3)
    for ratio, exact in ((1e8, np.inf), (10.0, 10.0), (0.1, 0.1)):
        expected = rayleigh(array, fraction, exact)
        close(conductivity(domain, {1: 1.0, 2: ratio}, degree=3), expected * np.eye(2), 2e-5)
    voids = conductivity(cylinders(array, fraction, 0, order=3), {1: 1.0}, degree=3)
    close(voids, rayleigh(array, fraction, 0.0) * np.eye(2), 2e-5)
    assert rayleigh(array, fraction, 0.0) * rayleigh(array, fraction, np.inf) == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize("array, fraction", [("square", 0.5), ("hexagonal", 0.7)])
def test_quadratic_elements_give_four_digits(array, fraction):
    domain = cylinders(array, fraction, 2, order=2, mesh_size=0.06)
    close(conductivity(domain, {1: 1.0, 2: 1e8}), rayleigh(array, fraction, np.inf) * np.eye(2), 1e-4)


# Checkerboards.


@pytest.mark.parametrize("ratio", [4.0, 25.0])
def test_a_checkerboard_has_the_geometric_mean(ratio):
    """k = √(k₁k₂) (Keller 1964; Dykhne, Sov. Phys. JETP 32, 1971, 63). Around a corner T ~ rˢ with
    tan(s π/4) = √(k₂/k₁), from continuity for one phase even and the other odd about its diagonal. The error of the
    energy, hence that of k, is of order 2 s on uniform meshes: 1.181 for a ratio of 4, and 0.503 for 25."""
    s = 4 / pi * np.arctan(1 / sqrt(ratio))
    errors = []
    for n in (8, 16, 32, 64):
        labels = np.kron([[1, 2], [2, 1]], np.ones((n, n), dtype=int))
        k = conductivity(meshes.from_labels(labels, MPI.COMM_SELF), {1: 1.0, 2: ratio}, degree=1)
        assert abs(k - k[0, 0] * np.eye(2)).max() < 1e-9 * k[0, 0]
        errors.append(k[0, 0] / sqrt(ratio) - 1)
    assert min(errors) > 0  # the energy is a minimum
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert order[-1] == pytest.approx(2 * s, abs=0.05), order


# Laminates.


def layered(k1, k2, fraction, normal):
    """Two layers, k = f k₁ + (1 − f) k₂ − f (1 − f) (d n) ⊗ (n d) / (n·((1 − f) k₁ + f k₂) n) with d = k₁ − k₂.

    From the jump a of the gradient, g₁ = g + (1 − f) a n and g₂ = g − f a n, and n·(k₁ g₁ − k₂ g₂) = 0 (Milton, The
    Theory of Composites, 2002, ch. 9).
    """
    f, d = fraction, k1 - k2
    across = normal @ ((1 - f) * k1 + f * k2) @ normal
    return f * k1 + (1 - f) * k2 - f * (1 - f) * np.outer(d @ normal, normal @ d) / across


@pytest.mark.parametrize("fraction, normal, dim", [(0.3, 0, 2), (0.65, 1, 2), (0.4, 2, 3), (0.5, 0, 3)])
@pytest.mark.parametrize("k1, k2", [(1.0, 7.0), (1e-6, 1e3)])
def test_laminates_have_arithmetic_and_harmonic_means(fraction, normal, dim, k1, k2):
    counts = [1] * dim
    counts[normal] = 2
    domain = meshes.laminate((fraction, 1 - fraction), MPI.COMM_SELF, cells=counts, normal=normal)
    expected = np.eye(dim) * (fraction * k1 + (1 - fraction) * k2)
    expected[normal, normal] = 1 / (fraction / k1 + (1 - fraction) / k2)
    found = conductivity(domain, {1: k1, 2: k2}, degree=1)
    close(found, expected, 1e-12)
    # Next to its own size, too, which is a billionth of the other at the larger contrast; what cancels leaves 1e-7.
    assert found[normal, normal] == pytest.approx(expected[normal, normal], rel=1e-12 if k1 == 1.0 else 1e-6)


def test_a_laminate_of_anisotropic_phases():
    domain = meshes.laminate((0.35, 0.65), MPI.COMM_SELF, cells=(2, 1))
    close(conductivity(domain, {1: K1, 2: K2}, degree=1), layered(K1, K2, 0.35, np.array([1.0, 0.0])), 1e-12)
    k1, k2 = (np.block([[k, np.zeros((2, 1))], [0.3, 0.2, 4.0]]) for k in (K1, K2))
    k1, k2 = (k1 + k1.T) / 2, (k2 + k2.T) / 2
    domain = meshes.laminate((0.35, 0.65), MPI.COMM_SELF, cells=(1, 2, 1), normal=1)
    close(conductivity(domain, {1: k1, 2: k2}, degree=1), layered(k1, k2, 0.35, np.array([0.0, 1.0, 0.0])), 1e-12)


@pytest.mark.parametrize("angle", [0.3, 1.1, np.pi / 2])
def test_a_turned_laminate_has_the_turned_tensor(angle):
    """The mesh and its skew period are turned: k = Q k Qᵀ for isotropic phases, also for phases turned with them."""
    q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    skew = np.array([[1.0, 0.45], [0.0, 1.0]])  # along the layers, whose normal is y
    for k1, k2 in ((np.eye(2), 7 * np.eye(2)), (K1, K2)):
        domain = meshes.laminate((0.35, 0.65), MPI.COMM_SELF, cells=(3, 4), normal=1)
        x = domain.mesh.geometry.x
        x[:, :2] = x[:, :2] @ skew.T @ q.T
        domain = replace(domain, period=skew.T @ q.T)
        turned = [fe2.Conductive(k).rotated(q) for k in (k1, k2)]
        rve = fe2.RVE(domain, dict(enumerate(turned, start=1)), degree=1)
        found = rve.homogenise([0.3, -0.2])
        expected = q @ layered(k1, k2, 0.35, np.array([0.0, 1.0])) @ q.T
        close(found.tangent[0], expected, 1e-11)
        close(found.stress[0], expected @ [0.3, -0.2], 1e-11)
    assert fe2.Conductive(2.0).rotated(q).conductivity == 2.0


def test_a_nonlinear_laminate():
    """Flux (k + c |g|²) g: the jump a of the gradient by SciPy, and the tangent against differences of that."""
    phases = {1: (1.0, 0.0), 2: (0.5, 3.0)}

    def exact(g, f, n):
        def fluxes(a):
            gs = (g + (1 - f) * a * n, g - f * a * n)
            return [(k + c * (x @ x)) * x for x, (k, c) in zip(gs, phases.values())]

        a = root(lambda a: [n @ np.subtract(*fluxes(a[0]))], [0.0], tol=1e-15).x[0]
        first, second = fluxes(a)
        return f * first + (1 - f) * second

    def density(g, k, c):
        return k / 2 * ufl.inner(g, g) + c / 4 * ufl.inner(g, g) ** 2

    materials = {
        tag: fe2.Energy(density, parameters={"k": k, "c": c}, measure="gradient") for tag, (k, c) in phases.items()
    }
    for dim, normal in ((2, 0), (3, 2)):
        counts = [1] * dim
        counts[normal] = 2
        domain = meshes.laminate((0.4, 0.6), MPI.COMM_SELF, cells=counts, normal=normal)
        rve = fe2.RVE(domain, materials, degree=1)
        gradients = np.random.default_rng(1).uniform(-2, 2, (3, dim))
        found, n = rve.homogenise(gradients), np.eye(dim)[normal]
        for g, flux, tangent in zip(gradients, found.stress, found.tangent):
            close(flux, exact(g, 0.4, n), 1e-10)
            shifted = [(exact(g + e, 0.4, n) - exact(g - e, 0.4, n)) / 2e-5 for e in 1e-5 * np.eye(dim)]
            close(tangent, np.transpose(shifted), 1e-7)


# Bounds and boundary conditions.


def test_spheres_are_within_the_bounds():
    """Hashin & Shtrikman, J. Appl. Phys. 33, 1962, 3125; the lower bound is close for few spheres (Maxwell)."""
    fraction, ratio = 0.2, 10.0
    radius = (3 * fraction / (4 * pi)) ** (1 / 3)
    sphere = meshes.Sphere((0, 0, 0), radius, 2)
    domain = meshes.rve([sphere], MPI.COMM_SELF, mesh_size=0.25, size=(1, 1, 1), order=2, edges_per_circle=12)
    f = domain.fractions()[2]
    assert f == pytest.approx(fraction, rel=1e-3)
    k = conductivity(domain, {1: 1.0, 2: ratio})
    lower = 1 + f / (1 / (ratio - 1) + (1 - f) / 3)
    upper = ratio + (1 - f) / (1 / (1 - ratio) + f / (3 * ratio))
    values = np.linalg.eigvalsh(k)
    assert lower < values[0] and values[-1] < upper
    assert values[-1] - values[0] < 2e-3 * values[0]  # cubic; the mesh is not
    assert values[0] < 1.02 * lower


def blocks():
    """Phases of random squares: no symmetry."""
    labels = np.kron(np.random.default_rng(5).integers(1, 4, (4, 4)), np.ones((2, 2), dtype=int))
    return meshes.from_labels(labels, MPI.COMM_SELF)


PHASES = {1: 1.0, 2: 20.0, 3: K2}


def test_boundary_conditions_are_ordered():
    """Uniform flux ≤ periodic ≤ linear temperature, between the means, as quadratic forms."""
    domain, f = blocks(), blocks().fractions()
    tensors = {tag: k * np.eye(2) for tag, k in PHASES.items()}
    reuss = np.linalg.inv(sum(f[t] * np.linalg.inv(k) for t, k in tensors.items()))
    voigt = sum(f[t] * k for t, k in tensors.items())
    found = [conductivity(domain, PHASES, boundary=b) for b in BOUNDARIES]
    for low, high in zip([reuss, *found], [*found, voigt]):
        assert np.linalg.eigvalsh(high - low).min() > 1e-3


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_means_power_and_units(boundary):
    """⟨q·g⟩ = q̄·ḡ, ⟨q⟩ = q̄, ⟨g⟩ = ḡ; twice the energy; and any unit of length and conductivity."""
    materials = {tag: fe2.Conductive(k) for tag, k in PHASES.items()}
    rve = fe2.RVE(blocks(), materials, boundary=boundary)
    g = np.array([0.7, -0.4])
    found = rve.homogenise(g)
    body = rve.set_state(found.state[0])
    flux, gradient, weights = body.stress(), body.strain(), body.weights / rve.volume
    assert np.einsum("cq,cqi,cqi", weights, flux, gradient) == pytest.approx(found.stress[0] @ g, rel=1e-11)
    assert 2 * found.energy[0] == pytest.approx(found.stress[0] @ g, rel=1e-11)
    close(np.einsum("cq,cqi->i", weights, flux), found.stress[0], 1e-11)
    close(np.einsum("cq,cqi->i", weights, gradient), g, 1e-11)
    close(found.stress[0], found.tangent[0] @ g, 1e-11)
    assert np.array_equal(rve.homogenise(np.zeros(2)).stress[0], np.zeros(2))
    domain = blocks()
    domain.mesh.geometry.x[:] *= 1e-6
    domain = replace(domain, period=1e-6 * np.eye(2))
    scaled = conductivity(domain, {tag: 1e7 * np.asarray(k) for tag, k in PHASES.items()}, boundary=boundary)
    close(scaled / 1e7, found.tangent[0], 1e-11)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_an_insulated_island_conducts_nothing(boundary):
    labels = np.ones((7, 7), dtype=int)
    labels[1:6, 1:6] = 0
    empty = meshes.from_labels(labels, MPI.COMM_SELF)
    labels[2:4, 3] = 2
    domain = meshes.from_labels(labels, MPI.COMM_SELF)
    rve = fe2.RVE(domain, {1: fe2.Conductive(1.0), 2: fe2.Conductive(100.0)}, boundary=boundary)
    found = rve.homogenise([1.0, 0.5])
    close(found.tangent[0], conductivity(empty, {1: 1.0}, boundary=boundary), 1e-10)
    body = rve.set_state(found.state[0])
    assert abs(body.stress()[body.phase_cells(2)]).max() < 1e-11


# The material.


def test_a_law_of_a_conductor():
    for k in (2.5, K2, np.diag([1.0, 2.0, 3.0]) + 0.4):
        dim = 2 if np.ndim(k) == 0 else len(k)
        law = fe2.UFLLaw(fe2.Conductive(k), dim=dim)
        assert law.strain_size == dim and law.measure is fe2.GRADIENT
        rest, g = law.initial_state(2), np.arange(2.0 * dim).reshape(2, dim) - 1.3
        found = law.evaluate(g, rest, rest)
        tensor = k * np.eye(dim) if np.ndim(k) == 0 else k
        close(found.stress, g @ tensor, 1e-14)
        close(found.tangent, np.stack([tensor] * 2), 1e-14)


def test_a_flux_without_potential():
    """A Hall conductor: the tangent is not symmetric, and in a laminate with the formula for any tensors."""
    hall = np.array([[2.0, -1.5], [1.5, 2.0]])
    stress = fe2.Stress(lambda g, k: k * g, parameters={"k": hall}, measure="gradient")
    domain = meshes.laminate((0.35, 0.65), MPI.COMM_SELF, cells=(2, 1))
    rve = fe2.RVE(domain, {1: stress, 2: fe2.Conductive(K2)}, degree=1)
    expected = layered(hall, K2, 0.35, np.array([1.0, 0.0]))
    assert abs(expected - expected.T).max() > 0.5
    close(rve.homogenise([0.2, 0.1]).tangent[0], expected, 1e-11)


@pytest.mark.parametrize(
    "conductivity, text",
    [
        (0.0, "need positive numbers or eigenvalues"),
        (-1.0, "need positive numbers or eigenvalues"),
        (np.nan, "need positive numbers or eigenvalues"),
        ([[1.0, 2.0], [2.0, 1.0]], "need positive numbers or eigenvalues"),
        ([[1.0, 0.5], [0.0, 1.0]], "is not symmetric; fe2.Stress"),
        ([1.0, 2.0], r"has the shape \(2,\), need a number or \(dim, dim\)"),
        (np.eye(4), r"has the shape \(4, 4\)"),
    ],
)
def test_wrong_conductivities_are_refused(conductivity, text):
    with pytest.raises(ValueError, match=text):
        fe2.Conductive(conductivity)


def test_wrong_use_is_refused():
    domain = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 1))
    one = fe2.Conductive(1.0)
    with pytest.raises(ValueError, match=r"shape \(3, 3\), the gradient \(2,\): need a matrix of the mesh's dimension"):
        fe2.RVE(domain, {1: one, 2: fe2.Conductive(np.eye(3))})
    with pytest.raises(ValueError, match="the gradient of a scalar has no plane stress"):
        fe2.RVE(domain, {1: one, 2: one}, plane="stress")
    with pytest.raises(ValueError, match="the gradient of a scalar has no plane stress"):
        fe2.UFLLaw(one, plane="stress")
    rve = fe2.RVE(domain, {1: one, 2: one}, degree=1)
    with pytest.raises(ValueError, match=r"shape \(1, 3\), need \(n, 2\) components of a gradient"):
        rve.homogenise([0.1, 0.0, 0.0])
    negative = fe2.Energy(lambda g: -ufl.inner(g, g), measure="gradient")
    with pytest.raises(ValueError, match="stiffness at zero strain is not positive"):
        fe2.RVE(domain, {1: negative, 2: negative}, degree=1)
