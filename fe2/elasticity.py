# SPDX-License-Identifier: MIT
"""Elastic materials: linear isotropic and anisotropic, saturating, Ramberg–Osgood."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import ufl

from fe2 import mandel
from fe2.materials import Material, norm, require_positive

# Asymmetry of a stiffness, relative to its largest entry, that counts as rounding.
_SYMMETRY = 1e-10


class BulkShear(NamedTuple):
    """Bulk and shear modulus K and G, in the unit of Young's modulus."""

    bulk: float
    shear: float


def bulk_shear(young: float, poisson: float) -> BulkShear:
    """Bulk and shear modulus of Young's modulus and Poisson's ratio.

    Raises:
        ValueError: young ≤ 0, or a Poisson's ratio outside (−1, 1/2).
    """
    if not (young > 0 and -1 < poisson < 0.5):
        raise ValueError(f"young={young}, poisson={poisson}: need young > 0 and -1 < poisson < 0.5")
    return BulkShear(young / (3 * (1 - 2 * poisson)), young / (2 * (1 + poisson)))


@dataclass(frozen=True)
class LinearElastic(Material):
    """Isotropic linear elasticity, ψ = K/2 tr(ε)² + G dev ε : dev ε.

    Args:
        bulk: modulus K [MPa].
        shear: modulus G [MPa]; `LinearElastic.from_young_poisson` takes Young's modulus and Poisson's ratio.
    """

    bulk: float
    shear: float

    def __post_init__(self):
        require_positive(self, "bulk", "shear")

    @classmethod
    def from_young_poisson(cls, young: float, poisson: float) -> "LinearElastic":
        """From Young's modulus [MPa] and Poisson's ratio."""
        return cls(*bulk_shear(young, poisson))

    @classmethod
    def young(cls, young: float, poisson: float) -> "LinearElastic":
        """Deprecated: `from_young_poisson`."""
        warnings.warn("LinearElastic.young is now LinearElastic.from_young_poisson", DeprecationWarning, stacklevel=2)
        return cls.from_young_poisson(young, poisson)

    def energy(self, strain, state=None, local=None):
        e = ufl.dev(strain)
        return self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * ufl.inner(e, e)


@dataclass(frozen=True, eq=False)
class Anisotropic(Material):
    """Linear elasticity with a full stiffness, ψ = ½ ε·C ε; see also `cubic` and `transversely_isotropic`.

    Args:
        stiffness: symmetric positive definite matrix (6, 6) in 3D Mandel order [MPa].
    """

    stiffness: npt.NDArray[np.float64]

    def __post_init__(self):
        c = np.array(self.stiffness, dtype=np.float64)
        if c.shape != (6, 6):
            raise ValueError(f"Anisotropic: stiffness has shape {c.shape}, need (6, 6) in Mandel order")
        if not np.allclose(c, c.T, rtol=_SYMMETRY, atol=_SYMMETRY * abs(c).max()):
            raise ValueError(f"Anisotropic: stiffness is not symmetric (by {abs(c - c.T).max():.3g} MPa)")
        c = (c + c.T) / 2
        lowest = np.linalg.eigvalsh(c)[0]
        if not lowest > 0:
            raise ValueError(f"Anisotropic: stiffness has the eigenvalue {lowest:.3g} MPa; all must be positive")
        object.__setattr__(self, "stiffness", c)

    def energy(self, strain, state=None, local=None):
        e = mandel.ufl_vector(strain)
        return ufl.inner(e, ufl.dot(self.stiffness, e)) / 2

    def rotated(self, rotation: npt.ArrayLike) -> "Anisotropic":
        """The material rotated by the matrix (3, 3)."""
        q = mandel.rotation(rotation)
        return Anisotropic(q @ self.stiffness @ q.T)


def cubic(c11: float, c12: float, c44: float) -> Anisotropic:
    """Cubic crystal with axes along the coordinates; Voigt constants c11, c12, c44 [MPa]."""
    c = np.diag([c11 - c12] * 3 + [2 * c44] * 3)
    c[:3, :3] += c12
    return Anisotropic(c)


def transversely_isotropic(
    axial: float, transverse: float, axial_shear: float, axial_poisson: float, transverse_poisson: float, axis: int = 0
) -> Anisotropic:
    """Transversely isotropic solid from its engineering constants.

    Args:
        axial: Young's modulus along the axis [MPa].
        transverse: Young's modulus across the axis [MPa].
        axial_shear: shear modulus in planes that contain the axis [MPa].
        axial_poisson: transverse contraction under axial load.
        transverse_poisson: contraction in the plane of isotropy.
        axis: coordinate of the axis, 0, 1 or 2.
    """
    a, t = axis, [i for i in range(3) if i != axis]
    compliance = np.zeros((6, 6))
    compliance[a, a] = 1 / axial
    for i in t:
        compliance[i, i] = 1 / transverse
        compliance[a, i] = compliance[i, a] = -axial_poisson / axial
    compliance[t[0], t[1]] = compliance[t[1], t[0]] = -transverse_poisson / transverse
    # Mandel shear entry 3 + k couples the two axes other than k; its compliance is 1 / (2 G).
    for k in range(3):
        shear = transverse / (2 * (1 + transverse_poisson)) if k == a else axial_shear
        compliance[3 + k, 3 + k] = 1 / (2 * shear)
    return Anisotropic(np.linalg.inv(compliance).astype(np.float64, copy=False))


@dataclass(frozen=True)
class SaturatingElastic(Material):
    """Nonlinear elasticity whose shear stiffness fades: σ = K tr(ε) I + a₁/(a₂ + ‖dev ε‖) dev ε.

    Potential ψ = K/2 tr(ε)² + a₁ (n − a₂ ln(1 + n/a₂)), n = ‖dev ε‖ with all three normal components (the 3D norm).
    The defaults are the matrix of the EquiNO benchmark (Eivazi et al., arXiv 2504.07976).

    Args:
        bulk: K [MPa].
        a1: stress that the deviator saturates at [MPa].
        a2: strain scale of the saturation [-].
    """

    bulk: float = 4780.0
    a1: float = 50.0
    a2: float = 0.06

    def __post_init__(self):
        require_positive(self, "bulk", "a1", "a2")

    def energy(self, strain, state=None, local=None):
        n = norm(ufl.dev(strain))
        return self.bulk / 2 * ufl.tr(strain) ** 2 + self.a1 * (n - self.a2 * ufl.ln(1 + n / self.a2))

    def stress(self, strain, state=None, local=None):
        # The derivative of the energy, with 1 − a₂/(a₂ + n) written as n/(a₂ + n): without that difference of nearly
        # equal numbers stress and tangent keep their digits at strains next to zero.
        e = ufl.dev(strain)
        return self.bulk * ufl.tr(strain) * ufl.Identity(3) + self.a1 / (self.a2 + norm(e)) * e


@dataclass(frozen=True)
class RambergOsgood(Material):
    """Ramberg–Osgood deformation theory: ε_eq = q/(3G) + α (σ₀/E) (q/σ₀)ⁿ, q the von Mises stress.

    ε_eq = √(2/3) ‖dev ε‖. The local unknown is q/σ₀; it makes ψ = K/2 tr(ε)² + q ε_eq − q²/(6G) −
    α σ₀²/(E (n+1)) (q/σ₀)ⁿ⁺¹ stationary, which is the uniaxial law above, written once.

    Args:
        bulk: K [MPa].
        shear: G [MPa].
        reference: reference stress σ₀ [MPa].
        alpha: offset factor α [-].
        exponent: n ≥ 1 [-].
    """

    bulk: float
    shear: float
    reference: float
    alpha: float
    exponent: float
    local_size = 1

    def __post_init__(self):
        require_positive(self, "bulk", "shear", "reference", "alpha")
        if not self.exponent >= 1:
            raise ValueError(f"RambergOsgood: exponent = {self.exponent} must be at least 1")

    def energy(self, strain, state=None, local=None):
        young = 9 * self.bulk * self.shear / (3 * self.bulk + self.shear)
        # The local Newton iteration starts at 0 or above: its first step overshoots, then it converges from above, so
        # the base of the power stays non-negative.
        q = self.reference * local[0]
        equivalent = np.sqrt(2 / 3) * norm(ufl.dev(strain))
        complementary = q**2 / (6 * self.shear) + self.alpha * self.reference**2 / young * local[0] ** (
            self.exponent + 1
        ) / (self.exponent + 1)
        return self.bulk / 2 * ufl.tr(strain) ** 2 + q * equivalent - complementary
