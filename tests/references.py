# SPDX-License-Identifier: MIT
"""Reference solutions that share no code with `fe2`: closed forms and small roots, in NumPy and SciPy.

Strains and stresses are 3D Mandel vectors (xx, yy, zz, √2 yz, √2 xz, √2 xy). A law is a function strain (6,) → stress
(6,), tangent (6, 6).
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import binom, gamma

ONE = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
DEV = np.eye(6) - np.outer(ONE, ONE) / 3
PLANE = np.array([0, 1, 5])  # the in-plane components


def spatial(strain):
    """3D Mandel vector of a plane (3,) or 3D (6,) one, plane strain."""
    if len(strain) == 6:
        return np.array(strain, dtype=float)
    full = np.zeros(6)
    full[PLANE] = strain
    return full


def components(d):
    """Which 3D Mandel components a cell with d of them has."""
    return PLANE if d == 3 else np.arange(6)


def linear(bulk, shear):
    """σ = K tr(ε) I + 2 G dev ε."""
    c = bulk * np.outer(ONE, ONE) + 2 * shear * DEV
    return lambda strain: (c @ strain, c)


def matrix(c):
    """σ = C ε."""
    return lambda strain: (c @ strain, c)


def saturating(bulk=4780.0, a1=50.0, a2=0.06):
    """σ = K tr(ε) I + g e with e = dev ε, n = ‖e‖, g = a₁/(a₂ + n); dg/dε = −a₁/(a₂ + n)² e/n."""

    def law(strain):
        e = DEV @ strain
        n = np.sqrt(e @ e)
        g = a1 / (a2 + n)
        c = bulk * np.outer(ONE, ONE) + g * DEV
        if n > 0:
            c = c - a1 / (a2 + n) ** 2 / n * np.outer(e, e)
        return bulk * (ONE @ strain) * ONE + g * e, c

    return law


def ramberg_osgood(bulk, shear, reference, alpha, exponent):
    """Root q of √(2/3) n = q/(3G) + α σ₀/E (q/σ₀)^m, n = ‖dev ε‖; then s = √(2/3) q e/n.

    With Q = √(2/3) q(n): ds/dε = Q/n (P − N⊗N) + Q' N⊗N, N = e/n, Q' = √(2/3) √(2/3) / (dε_eq/dq).
    """
    young = 9 * bulk * shear / (3 * bulk + shear)

    def law(strain):
        e = DEV @ strain
        n = np.sqrt(e @ e)
        equivalent = np.sqrt(2 / 3) * n

        def excess(q):
            return q / (3 * shear) + alpha * reference / young * (q / reference) ** exponent - equivalent

        q = brentq(excess, 0.0, 3 * shear * equivalent, xtol=1e-300, rtol=1e-15)
        slope = 1 / (3 * shear) + alpha / young * exponent * (q / reference) ** (exponent - 1)
        direction = np.outer(e, e) / n**2
        radial = np.sqrt(2 / 3) * q
        c = bulk * np.outer(ONE, ONE) + radial / n * (DEV - direction) + 2 / 3 / slope * direction
        return bulk * (ONE @ strain) * ONE + radial * e / n, c

    return law


def plane_stress(law, strain):
    """Plane stress (3,) and tangent (3, 3) of a law: the root ε_zz of σ_zz = 0, and C − C_z C_zᵀ/C_zz.

    The tangent follows from dσ_zz = C_zz dε_zz + C_z·dε = 0. Without transverse shear, for isotropic laws.
    """

    def full(zz):
        e = spatial(strain)
        e[2] = zz
        return e

    zz = brentq(lambda z: law(full(z))[0][2], -1.0, 1.0, xtol=1e-300, rtol=1e-15)
    stress, c = law(full(zz))
    c = c - np.outer(c[:, 2], c[2]) / c[2, 2]
    return stress[PLANE], c[np.ix_(PLANE, PLANE)]


def jump_map(normal):
    """B (6, 3) with B a the Mandel vector of sym(a ⊗ normal)."""
    columns = []
    for a in np.eye(3):
        t = (np.outer(a, normal) + np.outer(normal, a)) / 2
        r = np.sqrt(2)
        columns.append([t[0, 0], t[1, 1], t[2, 2], r * t[1, 2], r * t[0, 2], r * t[0, 1]])
    return np.array(columns).T


def laminate(first, second, fraction, normal, strain):
    """Stress (6,) and tangent (6, 6) of two layers with laws `first`, at volume fraction f, and `second`.

    The strain is constant in each layer and jumps by a rank-one tensor (Milton, The Theory of Composites, 2002, ch. 9):
    ε₁ = E + (1−f) B a, ε₂ = E − f B a, B a = sym(a ⊗ N); a makes the traction Bᵀ(σ₁ − σ₂) vanish (Newton).
    Differentiating that: Bᵀ((1−f) C₁ + f C₂) B da = −Bᵀ(C₁ − C₂) dE, and
    dS = (f C₁ + (1−f) C₂) dE + f (1−f) (C₁ − C₂) B da.
    """
    b, f, a = jump_map(normal), fraction, np.zeros(3)
    for _ in range(50):
        s1, c1 = first(strain + (1 - f) * b @ a)
        s2, c2 = second(strain - f * b @ a)
        acoustic = b.T @ ((1 - f) * c1 + f * c2) @ b
        step = np.linalg.solve(acoustic, b.T @ (s1 - s2))
        if np.linalg.norm(step) <= 1e-15 * np.linalg.norm(strain):
            break
        a = a - step
    difference = (c1 - c2) @ b
    tangent = f * c1 + (1 - f) * c2 - f * (1 - f) * difference @ np.linalg.solve(acoustic, difference.T)
    return f * s1 + (1 - f) * s2, tangent


def bilinear(equivalent_strains, shear, yield_stress, hardening):
    """Signed von Mises stress along a radial path of signed √(2/3) ‖dev ε‖, linear isotropic hardening.

    Elastic slope 3G; beyond ±(σ_y + H α) the slope 3G H/(3G + H). The increments may be large: both branches are
    straight lines. Also returns the accumulated plastic strain.
    """
    q, alpha, last, out = 0.0, 0.0, 0.0, []
    for e in equivalent_strains:
        trial = q + 3 * shear * (e - last)
        excess = max(0.0, abs(trial) - yield_stress - hardening * alpha)
        plastic = excess / (3 * shear + hardening)
        q = trial - np.sign(trial) * 3 * shear * plastic
        alpha, last = alpha + plastic, e
        out.append((q, alpha))
    return np.array(out)


def voce(equivalent_strains, shear, yield_stress, saturation, rate, hardening):
    """Signed von Mises stress along a radial path as in `bilinear`, σ_y(α) = σ₀ + H α + (σ_∞ − σ₀)(1 − exp(−δ α)).

    Backward Euler: Δ is the root of |trial| − 3 G Δ − σ_y(α + Δ).
    """

    def flow(alpha):
        return yield_stress + hardening * alpha + (saturation - yield_stress) * (1 - np.exp(-rate * alpha))

    q, alpha, last, out = 0.0, 0.0, 0.0, []
    for e in equivalent_strains:
        trial = q + 3 * shear * (e - last)
        size, plastic = abs(trial), 0.0
        if size > flow(alpha):

            def excess(d, size=size, alpha=alpha):
                return size - 3 * shear * d - flow(alpha + d)

            plastic = brentq(excess, 0.0, size / (3 * shear), xtol=1e-300, rtol=1e-15)
        q = trial - np.sign(trial) * 3 * shear * plastic
        alpha, last = alpha + plastic, e
        out.append(q)
    return np.array(out)


# Two isotropic phases, each given as (bulk K, shear G). The plane-strain bulk modulus is k = K + G/3.


def plane_bulk(phase):
    """k = K + G/3: half the in-plane pressure per equibiaxial strain, in plane strain."""
    bulk, shear = phase
    return bulk + shear / 3


def hashin_shtrikman(first, second, fraction, dim):
    """Bounds (lower, upper) on the bulk and on the shear modulus, at volume fraction `fraction` of the second phase.

    dim = 3: Hashin & Shtrikman, J. Mech. Phys. Solids 11, 1963, 127-140. dim = 2, across fibres in plane strain: Hill,
    J. Mech. Phys. Solids 12, 1964, 199-212, and Hashin, J. Mech. Phys. Solids 13, 1965, 119-134. All of them are
    Σ f / (κ + z) = 1 / (κ* + z), that is κ* = Σ f κ − f₁ f₂ (κ₁ − κ₂)² / (f₁ κ₂ + f₂ κ₁ + z), where κ is K, k or G and
    z belongs to the softer or to the stiffer phase: 4G/3 (bulk, 3D), G (bulk, 2D), G (9K + 8G) / (6 (K + 2G)) (shear,
    3D) or G k / (k + 2G) (shear, 2D), and 0 for a void. One phase must have the larger bulk and shear modulus.
    """
    bulk = [p[0] if dim == 3 else plane_bulk(p) for p in (first, second)]
    shear = [first[1], second[1]]
    assert (bulk[0] - bulk[1]) * (shear[0] - shear[1]) >= 0
    f, h = 1 - fraction, fraction

    def bounds(moduli, z):
        a, b = moduli
        return sorted(f * a + h * b - f * h * (a - b) ** 2 / (f * b + h * a + y) for y in z)

    if dim == 3:
        z = [(4 / 3 * g, g * (9 * k + 8 * g) / (6 * (k + 2 * g)) if g else 0.0) for k, g in zip(bulk, shear)]
    else:
        z = [(g, g * k / (k + 2 * g) if g else 0.0) for k, g in zip(bulk, shear)]
    return bounds(bulk, [y for y, _ in z]), bounds(shear, [y for _, y in z])


def hill_axial(first, second, fraction):
    """Bounds (lower, upper) on Young's modulus and on Poisson's ratio along the fibres.

    Hill, J. Mech. Phys. Solids 12, 1964, 199-212: with the rule of mixtures Σ f E and Σ f ν,
    E − Σ f E = 4 f₁ f₂ (ν₁ − ν₂)² / D and ν − Σ f ν = f₁ f₂ (ν₁ − ν₂)(1/k₂ − 1/k₁) / D,
    D = f₁/k₂ + f₂/k₁ + 1/G with one and the other shear modulus for G.
    """
    (k1, g1), (k2, g2) = ((plane_bulk(p), p[1]) for p in (first, second))
    e1, e2 = (9 * b * g / (3 * b + g) for b, g in (first, second))
    n1, n2 = e1 / (2 * g1) - 1, e2 / (2 * g2) - 1
    f1, f2 = 1 - fraction, fraction
    d = np.array([f1 / k2 + f2 / k1 + 1 / g for g in (g1, g2)])
    young = f1 * e1 + f2 * e2 + 4 * f1 * f2 * (n1 - n2) ** 2 / d
    poisson = f1 * n1 + f2 * n2 + f1 * f2 * (n1 - n2) * (1 / k2 - 1 / k1) / d
    return np.sort(young), np.sort(poisson)


def square_array_shear(matrix, fibre, fraction, multipoles=10):
    """Shear modulus along the fibres of a square array of circular ones, from their shear moduli.

    Rayleigh's method (Phil. Mag. 34, 1892; Perrins, McKenzie & McPhedran, Proc. R. Soc. Lond. A 369, 1979, 207-225).
    Around a fibre of radius a in the unit cell the antiplane displacement is Σ (A_n rⁿ + B_n r⁻ⁿ) cos nθ over odd n.
    Continuity of it and of its traction gives A_n = T B_n / a²ⁿ, T = (G_m + G_f)/(G_m − G_f); that the regular part
    comes from the mean strain 1 and from the other fibres gives A_n = δ_n1 − Σ_m binom(n + m − 1, n) S_{n+m} B_m with
    the lattice sums S_k = Σ (i + j√−1)⁻ᵏ: S₂ = π for a mean strain, S₄ = Γ(1/4)⁸/(960 π²), and none unless 4 divides
    k > 2. Then G/G_m = 1 − 2π B₁.
    """
    t = (matrix + fibre) / (matrix - fibre)
    grid = np.arange(-30, 31)
    z = (grid[:, None] + 1j * grid).ravel()
    z = z[z != 0]
    odd = np.arange(1, 2 * multipoles, 2)
    n, m = np.meshgrid(odd, odd, indexing="ij")
    sums = {k: (z**-k).sum().real if k % 4 == 0 else 0.0 for k in range(6, 4 * multipoles, 2)}
    sums |= {2: np.pi, 4: gamma(0.25) ** 8 / (960 * np.pi**2)}
    lattice = np.vectorize(sums.get, otypes=[float])(n + m)
    # Scaled by the radius, x_n = B_n / aⁿ, the entries stay of order one.
    a = np.sqrt(fraction / np.pi)
    system = t * np.eye(multipoles) + binom(n + m - 1, n) * lattice * a ** (n + m)
    x = np.linalg.solve(system, np.where(odd == 1, a, 0.0))
    return matrix * (1 - 2 * np.pi * a * x[0])


def graded_laminate(modulus, normal, strain, points=200):
    """Stiffness (6, 6) of a medium whose stiffness varies along `normal` alone, and its local strain.

    `modulus` maps s in [0, 1), the place in the period, to a stiffness (6, 6). The traction t = Bᵀσ is constant and the
    strain is E + B a(s) with mean a = 0 (Milton, The Theory of Composites, 2002, ch. 9): with A = Bᵀ C B and
    W = A⁻¹ Bᵀ C, a = A⁻¹ t − W E and ⟨A⁻¹⟩ t = ⟨W⟩ E, hence the stiffness ⟨C⟩ − ⟨C B W⟩ + ⟨W⟩ᵀ ⟨A⁻¹⟩⁻¹ ⟨W⟩. The means
    are those of a smooth periodic function over equidistant points, which is exact to rounding. Returns the stiffness
    and the strain (6,) as a function of s under the mean `strain` (6,).
    """
    b = jump_map(normal)

    def parts(s):
        c = modulus(s)
        inverse = np.linalg.inv(b.T @ c @ b)
        return c - c @ b @ inverse @ b.T @ c, inverse, inverse @ b.T @ c

    reduced, inverse, w = (np.mean(p, axis=0) for p in zip(*map(parts, np.arange(points) / points)))
    traction = np.linalg.solve(inverse, w)

    def local(s):
        _, inverse, w = parts(s)
        return strain + b @ (inverse @ traction - w) @ strain

    return reduced + w.T @ traction, local
