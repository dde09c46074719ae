# SPDX-License-Identifier: MIT
"""Materials, each written once as a UFL energy density (or a stress) of the 3D strain tensor.

A material sees the full 3×3 small-strain tensor; plane strain and plane stress are the business of whoever evaluates
it. Residual, Jacobian, stress and tangent are derivatives of this one definition. Moduli and stresses in MPa (any
consistent unit will do); strains are dimensionless.

Two kinds of variables may enter the energy besides the strain:

- `state`: what is remembered from the last accepted step (plastic strain, ...). The energy is then the incremental
  potential of the step, and `update` gives the state at its end.
- `local`: unknowns that make the energy stationary at the point itself, for laws that are implicit in the strain.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fe2 import mandel
from fe2.state import StateLayout

Expr = Any  # UFL expressions, which UFL itself does not type

# ‖e‖ = √(e:e + δ²) keeps derivatives finite at e = 0 and changes no strain above 1e-15.
_TINY = 1e-30


def norm(tensor: Expr) -> Expr:
    """Frobenius norm of a UFL tensor, differentiable at zero (regularised at 1e-15)."""
    return ufl.sqrt(ufl.inner(tensor, tensor) + _TINY)


def why_not_finite(strains: npt.NDArray[np.float64]) -> str:
    """What to add to the message that a material is not finite at some of the strains (n, d): the likely cause, or "".

    √(e:e) and most powers of it have a derivative that is 0/0 at e = 0, whether e is the strain or its deviator.
    """
    deviators = strains.copy()
    normal = {3: 2, 6: 3}.get(strains.shape[1], 0)
    deviators[:, :normal] -= deviators[:, :normal].mean(axis=1, keepdims=True) if normal else 0.0
    size, rest = np.linalg.norm(strains, axis=1), np.linalg.norm(deviators, axis=1)
    if (size == 0).any():
        zero = "zero strain"
    elif (rest <= 1e-15 * size).any():
        zero = "a strain with zero deviator"
    else:
        return ""
    return (
        f", at {zero}: the derivative of a root, norm or power of the strain, such as sqrt(inner(e, e)), is not "
        "defined there; add a small constant under the root, as sqrt(inner(e, e) + 1e-30) has it"
    )


def bulk_shear(young: float, poisson: float) -> tuple[float, float]:
    """Bulk and shear modulus (K, G) of Young's modulus and Poisson's ratio; raises ValueError if not admissible."""
    if not (young > 0 and -1 < poisson < 0.5):
        raise ValueError(f"young={young}, poisson={poisson}: need young > 0 and -1 < poisson < 0.5")
    return young / (3 * (1 - 2 * poisson)), young / (2 * (1 + poisson))


class Material:
    """What the solvers ask of a material; derive from it or use `Energy` and `Stress`.

    layout:     fields of the state, which is remembered from step to step.
    state_size: number of scalars of the state, without a layout.
    local_size: number of local unknowns that make the energy stationary.
    symmetric:  whether the stress derives from a potential, so that tangents are symmetric.
    """

    layout: StateLayout = StateLayout()
    state_size: int = 0
    local_size: int = 0
    symmetric: bool = True

    def energy(self, strain: Expr, state: Expr = None, local: Expr = None) -> Expr:
        """UFL energy density of the 3×3 `strain`, or None for a material given by its stress only."""
        return None

    def stress(self, strain: Expr, state: Expr = None, local: Expr = None) -> Expr:
        """UFL Cauchy stress (3, 3); by default the derivative of the energy."""
        strain = ufl.variable(strain)
        return ufl.sym(ufl.diff(self.energy(strain, state, local), strain))

    def update(self, strain: Expr, state: Expr, local: Expr = None) -> list[Expr]:
        """UFL scalars (state_size) of the state at the end of a step that began with `state`."""
        return []

    def bind(self, mesh) -> "Material":
        """The same material with its numbers as `fem.Constant` on `mesh`, so that new values need no compilation."""
        bound = copy.copy(self)
        for f in fields(self) if hasattr(self, "__dataclass_fields__") else ():
            object.__setattr__(bound, f.name, _constant(mesh, getattr(self, f.name)))
        return bound


def _constant(mesh, value):
    if value is None or isinstance(value, (bool, str)) or callable(value):
        return value
    if isinstance(value, dict):
        return {k: _constant(mesh, v) for k, v in value.items()}
    return fem.Constant(mesh, np.asarray(value, dtype=np.float64))


def _require_positive(material: Material, *names: str) -> None:
    for name in names:
        value = getattr(material, name)
        if not value > 0:
            raise ValueError(f"{type(material).__name__}: {name} = {value} must be positive")


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
        _require_positive(self, "bulk", "shear")

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
        if not np.allclose(c, c.T, rtol=1e-10, atol=1e-10 * abs(c).max()):
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
        """The material turned by the rotation matrix (3, 3)."""
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
        axial, transverse: Young's moduli along and across the axis [MPa].
        axial_shear: shear modulus in planes that hold the axis [MPa].
        axial_poisson: transverse contraction under axial load; transverse_poisson: in the plane of isotropy.
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
    return Anisotropic(np.linalg.inv(compliance))


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
        _require_positive(self, "bulk", "a1", "a2")

    def energy(self, strain, state=None, local=None):
        n = norm(ufl.dev(strain))
        return self.bulk / 2 * ufl.tr(strain) ** 2 + self.a1 * (n - self.a2 * ufl.ln(1 + n / self.a2))

    def stress(self, strain, state=None, local=None):
        # The derivative of the energy, with 1 − a₂/(a₂ + n) written as n/(a₂ + n): without that difference of nearly
        # equal numbers stress and tangent are right also at strains next to zero.
        e = ufl.dev(strain)
        return self.bulk * ufl.tr(strain) * ufl.Identity(3) + self.a1 / (self.a2 + norm(e)) * e


@dataclass(frozen=True)
class RambergOsgood(Material):
    """Ramberg–Osgood deformation theory: ε_eq = q/(3G) + α (σ₀/E) (q/σ₀)ⁿ, q the von Mises stress.

    ε_eq = √(2/3) ‖dev ε‖. The local unknown is q/σ₀; it makes ψ = K/2 tr(ε)² + q ε_eq − q²/(6G) −
    α σ₀²/(E (n+1)) (q/σ₀)ⁿ⁺¹ stationary, which is the uniaxial law above, written once.

    Args:
        bulk, shear: elastic moduli K and G [MPa].
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
        _require_positive(self, "bulk", "shear", "reference", "alpha")
        if not self.exponent >= 1:
            raise ValueError(f"RambergOsgood: exponent = {self.exponent} must be at least 1")

    def energy(self, strain, state=None, local=None):
        young = 9 * self.bulk * self.shear / (3 * self.bulk + self.shear)
        # The local Newton iteration starts at 0 or above: its first step overshoots, then it falls to the root from
        # above, so the base of the power stays non-negative.
        q = self.reference * local[0]
        equivalent = np.sqrt(2 / 3) * norm(ufl.dev(strain))
        complementary = q**2 / (6 * self.shear) + self.alpha * self.reference**2 / young * local[0] ** (
            self.exponent + 1
        ) / (self.exponent + 1)
        return self.bulk / 2 * ufl.tr(strain) ** 2 + q * equivalent - complementary


PLASTIC_STATE = StateLayout(plastic_strain=6, accumulated_plastic_strain=())


def _plastic_state(state: Expr) -> tuple[list[Expr], Expr]:
    """Components (6) of the plastic strain, and accumulated plastic strain, of a state."""
    (alpha,) = PLASTIC_STATE.entries(state, "accumulated_plastic_strain")
    return PLASTIC_STATE.entries(state, "plastic_strain"), alpha


@dataclass(frozen=True)
class J2(Material):
    """Von Mises plasticity with linear isotropic hardening, by its incremental potential (backward Euler).

    Radial return in closed form (Simo & Hughes, Computational Inelasticity, 1998, box 3.2): with the trial deviator
    e = dev ε − ε_p and f = √6 G ‖e‖ − (σ_y + H α), the potential of the step is
    K/2 tr(ε)² + G e:e + H α²/2 − ⟨f⟩²/(2 (3G + H)).
    State: `plastic_strain`, a 3D Mandel vector (6,), and `accumulated_plastic_strain` α.

    Args:
        bulk, shear: elastic moduli K and G [MPa].
        yield_stress: initial uniaxial yield stress σ_y [MPa].
        hardening: H = dσ_y/dα ≥ 0 [MPa].
    """

    bulk: float
    shear: float
    yield_stress: float
    hardening: float
    layout = PLASTIC_STATE
    state_size = layout.size

    def __post_init__(self):
        _require_positive(self, "bulk", "shear", "yield_stress")
        if not self.hardening >= 0:
            raise ValueError(f"J2: hardening = {self.hardening} MPa must not be negative")

    def _trial(self, strain, state):
        plastic, alpha = _plastic_state(state)
        e = ufl.dev(strain) - mandel.ufl_tensor(ufl.as_vector(plastic))
        f = np.sqrt(6.0) * self.shear * norm(e) - self.yield_stress - self.hardening * alpha
        return e, ufl.conditional(ufl.gt(f, 0), f, 0)

    def energy(self, strain, state=None, local=None):
        e, f = self._trial(strain, state)
        _, alpha = _plastic_state(state)
        elastic = self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * ufl.inner(e, e)
        return elastic + self.hardening / 2 * alpha**2 - f**2 / (2 * (3 * self.shear + self.hardening))

    def update(self, strain, state, local=None):
        e, f = self._trial(strain, state)
        increment = f / (3 * self.shear + self.hardening)
        direction = mandel.ufl_vector(np.sqrt(1.5) * e / norm(e))
        plastic, alpha = _plastic_state(state)
        return [plastic[i] + increment * direction[i] for i in range(6)] + [alpha + increment]


@dataclass(frozen=True)
class J2Voce(Material):
    """Von Mises plasticity whose hardening saturates, σ_y(α) = σ₀ + H α + (σ_∞ − σ₀)(1 − exp(−δ α)) (Voce's law).

    As `J2`, but the plastic increment Δ of the step has no closed form: it is the local unknown, and makes the
    incremental potential stationary. With e = dev ε − ε_p, in a plastic step that is
    K/2 tr(ε)² + G e:e − √6 G ‖e‖ Δ + 3/2 G Δ² + W(α + Δ), W' = σ_y, whose slope in Δ is the yield condition
    (Simo & Hughes, Computational Inelasticity, 1998, box 3.1); in an elastic one Δ = 0. The slope grows and
    is concave in Δ, so the local Newton iteration finds its root from any start.
    State: `plastic_strain`, a 3D Mandel vector (6,), and `accumulated_plastic_strain` α.

    Args:
        bulk, shear: elastic moduli K and G [MPa].
        yield_stress: initial uniaxial yield stress σ₀ [MPa].
        saturation: σ_∞ ≥ σ₀, what the exponential part tends to [MPa].
        rate: δ, how soon [-].
        hardening: H ≥ 0, slope that remains [MPa].
    """

    bulk: float
    shear: float
    yield_stress: float
    saturation: float
    rate: float
    hardening: float = 0.0
    layout = PLASTIC_STATE
    state_size = layout.size
    local_size = 1

    def __post_init__(self):
        _require_positive(self, "bulk", "shear", "yield_stress", "rate")
        if not self.saturation >= self.yield_stress:
            raise ValueError(
                f"J2Voce: saturation = {self.saturation} MPa must not be below yield_stress = {self.yield_stress} MPa"
            )
        if not self.hardening >= 0:
            raise ValueError(f"J2Voce: hardening = {self.hardening} MPa must not be negative")

    def _trial(self, strain, state):
        """Trial deviator, and whether the step is plastic."""
        plastic, alpha = _plastic_state(state)
        e = ufl.dev(strain) - mandel.ufl_tensor(ufl.as_vector(plastic))
        flow = self.saturation - (self.saturation - self.yield_stress) * ufl.exp(-self.rate * alpha)
        return e, ufl.gt(np.sqrt(6.0) * self.shear * norm(e), flow + self.hardening * alpha)

    def energy(self, strain, state=None, local=None):
        e, plastic = self._trial(strain, state)
        _, alpha = _plastic_state(state)
        step = local[0]
        elastic = self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * ufl.inner(e, e)
        gained = self._stored(alpha + step) - np.sqrt(6.0) * self.shear * norm(e) * step
        return elastic + 1.5 * self.shear * step**2 + ufl.conditional(plastic, gained, self._stored(alpha))

    def _stored(self, alpha):
        """W(α)."""
        span = self.saturation - self.yield_stress
        return self.saturation * alpha + self.hardening / 2 * alpha**2 + span / self.rate * ufl.exp(-self.rate * alpha)

    def update(self, strain, state, local=None):
        e, _ = self._trial(strain, state)
        direction = mandel.ufl_vector(np.sqrt(1.5) * e / norm(e))
        plastic, alpha = _plastic_state(state)
        return [plastic[i] + local[0] * direction[i] for i in range(6)] + [alpha + local[0]]


@dataclass(frozen=True, eq=False)
class Energy(Material):
    """A material of your own, from its energy density.

    Args:
        density: function (strain, **parameters) → UFL scalar [MPa] of the 3×3 strain. It may vary in space, through
            `ufl.SpatialCoordinate` of the cell's mesh.
        parameters: numbers handed to it by name; changing them needs no new compilation.

    Example:
        Energy(lambda e, K, G: K / 2 * tr(e)**2 + G * inner(dev(e), dev(e)), parameters={"K": 4.0, "G": 1.0})
    """

    density: Callable[..., Expr]
    parameters: dict[str, Any] | None = None

    def energy(self, strain, state=None, local=None):
        return self.density(strain, **(self.parameters or {}))


@dataclass(frozen=True, eq=False)
class Stress(Material):
    """A material of your own, from its stress; its tangent need not be symmetric.

    Args:
        function: function (strain, **parameters) → UFL 3×3 stress [MPa] of the 3×3 strain.
        parameters: numbers handed to it by name.
    """

    function: Callable[..., Expr]
    parameters: dict[str, Any] | None = None
    symmetric = False

    def stress(self, strain, state=None, local=None):
        return self.function(strain, **(self.parameters or {}))
