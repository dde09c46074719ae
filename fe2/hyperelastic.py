# SPDX-License-Identifier: MIT
"""Hyperelastic materials at finite strain: energies of the deformation gradient F, with C = FᵀF and J = det F."""

import warnings
from dataclasses import dataclass

import ufl

from fe2.materials import Material, require_positive
from fe2.measure import DISPLACEMENT_GRADIENT


@dataclass(frozen=True)
class NeoHookean(Material):
    """Compressible neo-Hookean solid, ψ = μ/2 (tr C − 3 − 2 ln J) + λ/2 (ln J)² with λ = K − 2μ/3.

    At small strain it is `fe2.LinearElastic` with the same moduli (Bonet & Wood, Nonlinear Continuum Mechanics for
    Finite Element Analysis, 2008, eq. 6.27).

    Args:
        bulk: modulus K [MPa].
        shear: modulus μ [MPa].
    """

    bulk: float
    shear: float
    measure = DISPLACEMENT_GRADIENT

    def __post_init__(self):
        require_positive(self, "bulk", "shear")

    def energy(self, strain, state=None, local=None):
        log, first = ufl.ln(ufl.det(strain)), self.bulk - 2 * self.shear / 3
        return self.shear / 2 * (ufl.inner(strain, strain) - 3 - 2 * log) + first / 2 * log**2


@dataclass(frozen=True)
class MooneyRivlin(Material):
    """Mooney–Rivlin solid, ψ = c₁ (Ī₁ − 3) + c₂ (Ī₂ − 3) + K/2 (J − 1)² of the invariants of C̄ = J^(−2/3) C.

    The shear modulus at small strain is 2 (c₁ + c₂) (Holzapfel, Nonlinear Solid Mechanics, 2000, section 6.5).

    Args:
        c1: factor of the first invariant [MPa].
        c2: factor of the second invariant, not negative [MPa].
        bulk: modulus K [MPa].
    """

    c1: float
    c2: float
    bulk: float
    measure = DISPLACEMENT_GRADIENT

    def __post_init__(self):
        require_positive(self, "c1", "bulk")
        if not self.c2 >= 0:
            raise ValueError(f"MooneyRivlin: c2 = {self.c2} must not be negative")

    def energy(self, strain, state=None, local=None):
        j = ufl.det(strain)
        c = strain.T * strain
        first = ufl.tr(c)
        second = (first**2 - ufl.inner(c, c)) / 2
        isochoric = self.c1 * (j ** (-2 / 3) * first - 3) + self.c2 * (j ** (-4 / 3) * second - 3)
        return isochoric + self.bulk / 2 * (j - 1) ** 2


@dataclass(frozen=True)
class SaintVenantKirchhoff(Material):
    """Saint Venant–Kirchhoff solid, ψ = λ/2 (tr E)² + μ E:E of the Green–Lagrange strain E = (C − I)/2, λ = K − 2μ/3.

    For large rotations at small strains. In compression it softens, without limit: under uniaxial stress from a stretch
    of 1/√3 on, and the energy of a vanishing volume is finite (Ciarlet, Mathematical Elasticity, 1988, section 3.9).

    Args:
        bulk: modulus K [MPa].
        shear: modulus μ [MPa].

    Warns:
        UserWarning: always, as above.
    """

    bulk: float
    shear: float
    measure = DISPLACEMENT_GRADIENT

    def __post_init__(self):
        require_positive(self, "bulk", "shear")
        warnings.warn(
            "SaintVenantKirchhoff softens in compression and resists no collapse: for strains above some per cent use "
            "fe2.NeoHookean with the same moduli",
            stacklevel=3,
        )

    def energy(self, strain, state=None, local=None):
        e = (strain.T * strain - ufl.Identity(3)) / 2
        return (self.bulk - 2 * self.shear / 3) / 2 * ufl.tr(e) ** 2 + self.shear * ufl.inner(e, e)
