# SPDX-License-Identifier: MIT
"""The certificate: two-sided bounds on the effective energy, and what they say of the stress.

A strain field ε that is kinematically admissible for E and a stress field σ in equilibrium with the mean S bound the
energy of the true solution of the same finite element problem, for a convex potential ψ with the conjugate ψ* (Fenchel;
Prager & Synge, Q. Appl. Math. 5, 1947; Ladevèze & Pelle, Mastering Calculations in Linear and Nonlinear Mechanics,
2005):

    E·S − ⟨ψ*(σ)⟩  ≤  W(E)  ≤  ⟨ψ(ε)⟩.

The gap is the constitutive relation error, ⟨ψ(ε) + ψ*(σ) − σ·ε⟩ ≥ 0, since ⟨σ·ε⟩ = E·S. If no tangent of ψ exceeds
D anywhere, ψ* is strongly convex with D⁻¹, and the mean of n·(σ − σ_true) obeys Cauchy and Schwarz:

    |n·(S − S_true)| ≤ √(2 gap · n·⟨D⟩ n)        for each n (d,).

Both statements are exact with the sums over all quadrature points. On a cubature they are estimates.

The bound is that of the worst stress with this gap, and far above the error. An estimate comes from the other branch.
The upper bound is above W by what is quadratic in the error of ε, and so its derivative, with strain modes φ_j and
coefficients b_j,

    S* = d⟨ψ(ε)⟩/dE = ⟨law(ε)⟩ + ⟨law(ε) · φ_j⟩ db_j/dE,

differs from S_true = dW/dE by what is quadratic too. It is the goal-oriented correction of ⟨law(ε)⟩, db/dE being the
dual solution (Becker & Rannacher, Acta Numerica 10, 2001). So |S − S*| is the error of S but for a term of the order of
|S*| gap/W, which enters with a factor for each component, calibrated on solved problems, see `calibrate`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spon.convex import indicator_and_energy, largest_tangent
from spon.equino import EquiNO, Fields

COVERAGE = 0.95  # how many of the errors of a component the estimate is to cover


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What is known of n predictions, without a solution. Bounds, with the fields at all points:

    lower, upper: (n,) on the mean energy [MPa]; −inf where the stress is beyond what the law can carry. gap: (n,) their
    difference, the constitutive relation error [MPa]. stress_bound: (n, d) on the error of each component of the
    homogenised stress [MPa]; NaN if the laws' largest tangents are not known.

    And no bounds, but far nearer to what they are for: corrected: (n, d) a better homogenised stress, the derivative of
    `upper` [MPa]. stress_estimate: (n, d) of the error of each component [MPa]; in the trained range it covers the
    share `COVERAGE` of them on average. NaN for a model that was not calibrated, infinite where the gap is.
    """

    lower: Tensor
    upper: Tensor
    gap: Tensor
    stress_bound: Tensor
    stress_estimate: Tensor
    corrected: Tensor


def certify(model: EquiNO, strain: Tensor, at: Fields | None = None) -> Certificate:
    """Certificate of a model's prediction at strains (n, d).

    `at`: the fields at all points make the bounds exact; None takes the model's cubature, which estimates them.

    Raises:
        ValueError: strains of another shape or precision than the model's, fields of another precision; a material
        without energy, or whose energy is not convex.
    """
    if strain.ndim != 2 or strain.shape[1] != model.lower.numel() or strain.dtype != model.lower.dtype:
        raise ValueError(
            f"strain has shape {tuple(strain.shape)} and type {strain.dtype}, need (n, {model.lower.numel()}) and "
            f"{model.lower.dtype}"
        )
    at = model.cubature if at is None else at
    if (at.weights.dtype, at.weights.device) != (strain.dtype, strain.device):
        raise ValueError(
            f"the fields are {at.weights.dtype} on {at.weights.device}, the strain {strain.dtype} on {strain.device}: "
            "need the same"
        )
    tangents = [largest_tangent(law) for law in at.laws.laws]
    stress, corrected, upper, gap = _branches(model, strain, at)
    bound = torch.full_like(strain, torch.nan)
    known = [d.diagonal().to(strain) for d in tangents if d is not None]
    if len(known) == len(tangents):
        shares = torch.stack([w.sum() for w in at.weights.split(list(at.laws.counts))])
        bound = (2 * gap.clamp(min=0)[:, None] * (shares @ torch.stack(known))).sqrt()
    estimate = (stress - corrected).abs() + model.calibration * _remainder(corrected, upper - energy_at_rest(at), gap)
    return Certificate(upper - gap, upper, gap, bound, estimate, corrected)


def energy_at_rest(at: Fields) -> Tensor:
    """Mean energy () [MPa] at zero strain, to which what is relative is relative: a constant of an energy is free."""
    return at.laws.energy(at.weights.new_zeros(at.laws.size, at.laws.strain_size)) @ at.weights


def calibrate(model: EquiNO, strain: Tensor, stress: Tensor) -> None:
    """Set the factor of a model's `stress_estimate` by exact stresses (n, d) [MPa] at strains (n, d), on its cubature.

    It is the quantile of the factors that each strain would need, with the correction for a finite sample that makes
    the coverage right on average for unseen strains of the same distribution (split conformal prediction: Lei, G'Sell,
    Rinaldo, Tibshirani & Wasserman, J. Am. Stat. Assoc. 113, 2018). Of n < 19 strains it is the largest factor, which
    covers n/(n + 1) of the errors.
    """
    with torch.no_grad():
        own, corrected, upper, gap = _branches(model, strain, model.cubature)
        missing = (own - stress).abs() - (own - corrected).abs()
        remainder = _remainder(corrected, upper - energy_at_rest(model.cubature), gap)
        needed = torch.where(missing <= 0, 0.0, missing / remainder)
    rank = min(math.ceil(COVERAGE * (len(strain) + 1)), len(strain))
    model.calibration.copy_(needed.sort(dim=0).values[rank - 1])


def _branches(model: EquiNO, strain: Tensor, at: Fields) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Homogenised stress of the model (n, d), the corrected one, mean energy (n,) and gap (n,)."""
    epsilon, sigma = model.fields(strain, at)
    law = at.laws.stress(epsilon) * at.weights[:, None]
    forces = torch.einsum("npd,pdr->nr", law, at.strain_modes)
    _, slopes = model.displacement.with_tangent(strain)
    corrected = law.sum(dim=1) + torch.einsum("nr,nrd->nd", forces, slopes)
    gap, upper = (values @ at.weights for values in indicator_and_energy(at.laws, epsilon, sigma))
    return model(strain)[0], corrected, upper, gap


def _remainder(corrected: Tensor, energy: Tensor, gap: Tensor) -> Tensor:
    """What the error of the corrected stress is measured in (n, 1) [MPa]: the stress times the gap over the energy."""
    # At rest all of them vanish.
    return (corrected.norm(dim=1) * gap.abs() / energy.clamp(min=torch.finfo(energy.dtype).tiny))[:, None]
