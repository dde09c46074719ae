# SPDX-License-Identifier: MIT
"""Reference solutions that share no code with `fe2`: closed forms and small roots, in NumPy and SciPy.

Strains and stresses are 3D Mandel vectors (xx, yy, zz, √2 yz, √2 xz, √2 xy). A law is a function strain (6,) → stress
(6,), tangent (6, 6).
"""

import numpy as np
from scipy.optimize import brentq

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
