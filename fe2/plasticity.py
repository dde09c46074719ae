# SPDX-License-Identifier: MIT
"""Plastic materials: von Mises plasticity with linear and with saturating hardening."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import ufl

from fe2 import mandel
from fe2.materials import Expr, Material, norm, require_positive
from fe2.state import StateLayout

PLASTIC_STATE = StateLayout(plastic_strain=6, accumulated_plastic_strain=())


def _plastic_state(state: Expr) -> tuple[list[Expr], Expr]:
    """Components (6) of the plastic strain, and accumulated plastic strain, of a state."""
    (alpha,) = PLASTIC_STATE.entries(state, "accumulated_plastic_strain")
    return PLASTIC_STATE.entries(state, "plastic_strain"), alpha


def trial_with_linear_hardening(material: Any, strain: Expr, state: Expr) -> tuple[Expr, Expr]:
    """Trial deviator e = dev ε − ε_p, and f = √6 G ‖e‖ − (σ_y + H α) where it is positive, else 0."""
    plastic, alpha = _plastic_state(state)
    e = ufl.dev(strain) - mandel.ufl_tensor(ufl.as_vector(plastic))
    f = np.sqrt(6.0) * material.shear * norm(e) - material.yield_stress - material.hardening * alpha
    return e, ufl.conditional(ufl.gt(f, 0), f, 0)


def flowed(e: Expr, state: Expr, increment: Expr) -> list[Expr]:
    """The state after an increment of the accumulated plastic strain along the trial deviator e."""
    direction = mandel.ufl_vector(np.sqrt(1.5) * e / norm(e))
    plastic, alpha = _plastic_state(state)
    return [plastic[i] + increment * direction[i] for i in range(6)] + [alpha + increment]


@dataclass(frozen=True)
class J2(Material):
    """Von Mises plasticity with linear isotropic hardening, by its incremental potential (backward Euler).

    Radial return in closed form (Simo & Hughes, Computational Inelasticity, 1998, box 3.2): with the trial deviator
    e = dev ε − ε_p and f = √6 G ‖e‖ − (σ_y + H α), the potential of the step is
    K/2 tr(ε)² + G e:e + H α²/2 − ⟨f⟩²/(2 (3G + H)).
    State: `plastic_strain`, a 3D Mandel vector (6,), and `accumulated_plastic_strain` α.

    Args:
        bulk: K [MPa].
        shear: G [MPa].
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
        require_positive(self, "bulk", "shear", "yield_stress")
        if not self.hardening >= 0:
            raise ValueError(f"J2: hardening = {self.hardening} MPa must not be negative")

    def energy(self, strain, state=None, local=None):
        e, f = trial_with_linear_hardening(self, strain, state)
        _, alpha = _plastic_state(state)
        elastic = self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * ufl.inner(e, e)
        return elastic + self.hardening / 2 * alpha**2 - f**2 / (2 * (3 * self.shear + self.hardening))

    def update(self, strain, state, local=None):
        e, f = trial_with_linear_hardening(self, strain, state)
        return flowed(e, state, f / (3 * self.shear + self.hardening))


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
        bulk: K [MPa].
        shear: G [MPa].
        yield_stress: initial uniaxial yield stress σ₀ [MPa].
        saturation: σ_∞ ≥ σ₀, limit of the exponential part [MPa].
        rate: δ, of the saturation [-].
        hardening: H ≥ 0, linear part [MPa].
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
        require_positive(self, "bulk", "shear", "yield_stress", "rate")
        if not self.saturation >= self.yield_stress:
            raise ValueError(
                f"J2Voce: saturation = {self.saturation} MPa must not be below yield_stress = {self.yield_stress} MPa"
            )
        if not self.hardening >= 0:
            raise ValueError(f"J2Voce: hardening = {self.hardening} MPa must not be negative")

    def _trial(self, strain, state):
        """Trial deviator and yield condition."""
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
        """Energy W(α) of the hardening."""
        span = self.saturation - self.yield_stress
        return self.saturation * alpha + self.hardening / 2 * alpha**2 + span / self.rate * ufl.exp(-self.rate * alpha)

    def update(self, strain, state, local=None):
        e, _ = self._trial(strain, state)
        return flowed(e, state, local[0])
