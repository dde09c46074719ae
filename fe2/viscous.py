# SPDX-License-Identifier: MIT
"""Materials that depend on the rate of the strain: linear viscoelasticity and viscoplasticity.

They take the length of the step from the law that evaluates them, see `fe2.TimeStep`. Times are in any unit, the same
for materials and steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ufl

from fe2 import mandel
from fe2.materials import Expr, Material, require_positive
from fe2.plasticity import PLASTIC_STATE, _plastic_state, flowed, trial_with_linear_hardening
from fe2.state import StateLayout


@dataclass(frozen=True)
class Zener(Material):
    """Linear viscoelasticity: a spring beside Maxwell elements, the standard linear solid with one or more branches.

    The deviator relaxes from G + Σ Gᵢ to G by the Prony series G + Σ Gᵢ exp(−t/τᵢ), and the bulk stiffness from
    K + Σ Kᵢ to K, by branches with their own bulk stiffness; without these the bulk is elastic. With `shear` = 0 it is
    a Maxwell fluid.

    The strain is taken as linear in time within a step, and the relaxation is then exact: errors are of second order in
    the length of a step, and there are none along paths of constant rates or at rest, in steps of any length (Taylor,
    Pister & Goudreau, Int. J. Numer. Methods Eng. 2, 1970, 45–59; Simo & Hughes, Computational Inelasticity, 1998,
    section 10.3). A jump of the strain is a step that is short next to the relaxation times.

    With x = Δt/τᵢ and φ = (1 − exp(−x))/x the strain of the spring of a branch, qᵢ, and its stress are

        qᵢ' = exp(−x) qᵢ + φ (ε' − ε),    σᵢ = 2 Gᵢ dev qᵢ' + Kᵢ tr(qᵢ') I.

    σᵢ is the derivative of φ (Gᵢ ‖dev z‖² + Kᵢ/2 tr(z)²), z = ε' − ε + exp(−x)/φ qᵢ, which is the potential of the step
    up to a part that does not depend on ε'.
    State: `total_strain` ε, a 3D Mandel vector (6,), and `spring_strain` qᵢ (branches, 6), deviators where no branch
    has a bulk stiffness.

    Args:
        bulk: K, of long times [MPa].
        shear: G ≥ 0, of long times [MPa].
        branch_shear: Gᵢ ≥ 0 of each branch, or of a single one [MPa].
        relaxation_time: τᵢ of each branch, or of a single one [time].
        branch_bulk: Kᵢ ≥ 0 of each branch [MPa]; None for an elastic bulk.
    """

    bulk: float
    shear: float
    branch_shear: float | Sequence[float]
    relaxation_time: float | Sequence[float]
    branch_bulk: float | Sequence[float] | None = None
    rate_dependent = True

    def __post_init__(self):
        require_positive(self, "bulk")
        if not self.shear >= 0:
            raise ValueError(f"Zener: shear = {self.shear} MPa must not be negative")
        count = len(np.atleast_1d(np.asarray(self.relaxation_time, dtype=np.float64)))
        for name in ("relaxation_time", "branch_shear", "branch_bulk"):
            given = getattr(self, name)
            if given is None:
                continue
            values = np.atleast_1d(np.asarray(given, dtype=np.float64))
            if values.shape != (count,) or count == 0:
                raise ValueError(
                    f"Zener: {name} = {given!r}: need one number for each branch, as relaxation_time = "
                    f"{self.relaxation_time!r} has"
                )
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"Zener: {name} = {given!r} must be finite and not negative")
            object.__setattr__(self, name, tuple(values.tolist()))
        if 0.0 in self.relaxation_time:
            raise ValueError(f"Zener: relaxation_time = {self.relaxation_time} must be positive")
        if not self.shear + sum(self.branch_shear) > 0:
            raise ValueError(f"Zener: shear = {self.shear} MPa and branch_shear = {self.branch_shear} MPa are all zero")
        object.__setattr__(self, "layout", StateLayout(total_strain=6, spring_strain=(count, 6)))
        object.__setattr__(self, "state_size", self.layout.size)

    def _branches(self, strain, state):
        """Of each branch: its number, exp(−Δt/τ), φ, the change of the strain that drives it, and the spring's strain.

        φ = tanh(x/2) (1 + exp(−x))/x has no cancellation at small x and no overflow at large ones.
        """
        change = strain - mandel.ufl_tensor(ufl.as_vector(self.layout.entries(state, "total_strain")))
        springs = self.layout.entries(state, "spring_strain")
        for i in range(len(springs) // 6):
            x = self.dt / self.relaxation_time[i]
            decay = ufl.exp(-x)
            mean = ufl.tanh(x / 2) * (1 + decay) / x
            spring = mandel.ufl_tensor(ufl.as_vector(springs[6 * i : 6 * i + 6]))
            yield i, decay, mean, change if self.branch_bulk is not None else ufl.dev(change), spring

    def energy(self, strain, state=None, local=None):
        e = ufl.dev(strain)
        total = self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * ufl.inner(e, e)
        for i, decay, mean, change, spring in self._branches(strain, state):
            z = change + decay / mean * spring
            total += mean * self.branch_shear[i] * ufl.inner(ufl.dev(z), ufl.dev(z))
            if self.branch_bulk is not None:
                total += mean * self.branch_bulk[i] / 2 * ufl.tr(z) ** 2
        return total

    def update(self, strain, state, local=None):
        new = list(_entries(strain))
        for _, decay, mean, change, spring in self._branches(strain, state):
            new += _entries(decay * spring + mean * change)
        return new


def _entries(tensor: Expr) -> list[Expr]:
    """The six entries of the Mandel vector of a tensor."""
    vector = mandel.ufl_vector(tensor)
    return [vector[i] for i in range(6)]


@dataclass(frozen=True)
class Perzyna(Material):
    """Von Mises viscoplasticity with linear isotropic hardening, in which stress above the yield stress flows.

    The von Mises stress exceeds the yield stress by the viscous overstress, q = σ_y + H α + s, and the accumulated
    plastic strain grows at the rate (σ_y/η) (s/σ_y)^m, s/η for m = 1 (Perzyna, Adv. Appl. Mech. 9, 1966, 243–377;
    Simo & Hughes, Computational Inelasticity, 1998, section 2.7). For η → 0 it is `fe2.J2`, for Δt → 0 elastic.

    Backward Euler, by the incremental potential, with the trial deviator e = dev ε − ε_p and
    f = √6 G ‖e‖ − (σ_y + H α). In an elastic step, f ≤ 0, it is K/2 tr(ε)² + G e:e + H α²/2. In a plastic one the
    increment Δ minimises elastic and hardening energy plus Δt ψ*(Δ/Δt), ψ* the viscous potential of the rate. For m = 1
    the minimum adds −f²/(2 (3G + H + η/Δt)), as for `fe2.J2`. Else the overstress is the local unknown: with the dual
    potential ψ(s) = σ_y²/η (s/σ_y)^(m+1)/(m+1), whose slope is the rate, it adds −(f − s)²/(2 (3G + H)) − Δt ψ(s),
    stationary in s where the increment (f − s)/(3G + H) is Δt ψ'(s). Errors are of first order in the length of a step.
    State: `plastic_strain`, a 3D Mandel vector (6,), and `accumulated_plastic_strain` α.

    Args:
        bulk: K [MPa].
        shear: G [MPa].
        yield_stress: initial uniaxial yield stress σ_y [MPa].
        hardening: H ≥ 0 [MPa].
        viscosity: η of uniaxial overstress over plastic strain rate, at an overstress of σ_y [MPa · time].
        exponent: m ≥ 1 [-].
    """

    bulk: float
    shear: float
    yield_stress: float
    hardening: float
    viscosity: float
    exponent: float = 1.0
    layout = PLASTIC_STATE
    state_size = layout.size
    rate_dependent = True

    def __post_init__(self):
        require_positive(self, "bulk", "shear", "yield_stress", "viscosity")
        if not self.hardening >= 0:
            raise ValueError(f"Perzyna: hardening = {self.hardening} MPa must not be negative")
        if not 1 <= self.exponent < np.inf:
            raise ValueError(f"Perzyna: exponent = {self.exponent} must be a finite number of at least 1")
        object.__setattr__(self, "local_size", int(self.exponent != 1))

    def energy(self, strain, state=None, local=None):
        e, f = trial_with_linear_hardening(self, strain, state)
        _, alpha = _plastic_state(state)
        elastic = self.bulk / 2 * ufl.tr(strain) ** 2 + self.shear * ufl.inner(e, e) + self.hardening / 2 * alpha**2
        slope = 3 * self.shear + self.hardening
        if not self.local_size:
            return elastic - f**2 * self.dt / (2 * (slope * self.dt + self.viscosity))
        y = local[0]
        power = self.yield_stress**2 / self.viscosity * self._power(y, f)
        # Without f the unknown is stationary at zero.
        return elastic - (f - self.yield_stress * y) ** 2 / (2 * slope) - self.dt * power

    def _power(self, y, f):
        """y^(m+1)/(m+1) for y = s/σ_y from 0 to a bound b of the solution, continued to both sides.

        The solution is at most b, the lesser of f/σ_y and the y at which the whole of f would flow. Elsewhere the power
        is replaced by its quadratic expansion at b, from which Newton's method goes where it goes from b; with the
        power itself it would take some m iterations for each factor of e.
        """
        m = self.exponent
        flow = (3 * self.shear + self.hardening) * self.dt / self.viscosity
        whole = ufl.conditional(ufl.gt(f, 0), f / self.yield_stress, 1)  # 1 as powers of 0 have no derivatives
        bound = ufl.min_value(whole, (whole / flow) ** (1 / m))
        inside = ufl.And(ufl.gt(y, 0), ufl.le(y, bound))
        power = ufl.conditional(inside, y, 1) ** (m + 1) / (m + 1)
        expansion = bound ** (m + 1) / (m + 1) + bound**m * (y - bound) + m / 2 * bound ** (m - 1) * (y - bound) ** 2
        return ufl.conditional(ufl.gt(f, 0), ufl.conditional(inside, power, expansion), 0)

    def update(self, strain, state, local=None):
        e, f = trial_with_linear_hardening(self, strain, state)
        slope = 3 * self.shear + self.hardening
        if self.local_size:
            increment = ufl.conditional(ufl.gt(f, 0), (f - self.yield_stress * local[0]) / slope, 0)
        else:
            increment = f * self.dt / (slope * self.dt + self.viscosity)
        return flowed(e, state, increment)
