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

Both statements are exact with the sums over all quadrature points. On a cubature they are estimates. Numbers are
rounded, and modes admissible as the solved problems are that they combine, to the tolerance of the solver: energies are
moved apart by a bound of both, which counts where strains are so small that the terms of an energy cancel, and where
stress and strain agree to nearly all digits. That is the double, for ψ and its conjugate, of what
`spon.constitutive.rounding` finds for ψ where the strain of a phase is largest, and in float64 alone.

The bound is that of the worst stress with this gap, and far above the error. An estimate comes from the other branch.
The upper bound is above W by what is quadratic in the error of ε, and so its derivative, with strain modes φ_j and
coefficients b_j,

    S* = d⟨ψ(ε)⟩/dE = ⟨law(ε)⟩ + ⟨law(ε) · φ_j⟩ db_j/dE,

differs from S_true = dW/dE by what is quadratic too. It is the goal-oriented correction of ⟨law(ε)⟩, db/dE being the
dual solution (Becker & Rannacher, Acta Numerica 10, 2001). So |S − S*| is the error of S but for a term of the order of
|S*| gap/W, which enters with a factor for each component, calibrated on solved problems, see `calibrate`.
"""

from dataclasses import dataclass

import numpy.typing as npt
import torch
from scipy.stats import binom
from torch import Tensor

from spon.arguments import real_tensor
from spon.constitutive.duality import constitutive_relation_error, largest_tangent
from spon.equino.model import EquiNO
from spon.reduced.basis import Fields

COVERAGE = 0.95  # how many of the errors of a component the estimate is to cover
_CONFIDENCE = 0.9  # in how many of all calibrations it does
# Residual, relative to the internal forces, that `fe2.RVE` leaves of a problem, each of which makes a mode.
_SOLVED = 1e-11
_CHUNK = 16  # strains whose fields at all points of a cell are held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What is known of n predictions, without a solution. Bounds, with the fields at all points:

    lower, upper: (n,) on the mean energy [MPa]; −inf where the stress is beyond what the law can carry. gap: (n,) their
    difference, the constitutive relation error and twice what rounding may be [MPa]. stress_bound: (n, d) on the error
    of each component of the homogenised stress [MPa]; NaN if the laws' largest tangents are not known.

    And no bounds, but far nearer to what they are for: corrected: (n, d) a better homogenised stress, the derivative of
    `upper` [MPa]. stress_estimate: (n, d) of the error of each component [MPa]; in the trained range it covers the
    share `COVERAGE` of them, at all points and on the cubature, in nine of ten models at least. NaN for a model that
    was not calibrated, infinite where the gap is.
    """

    lower: Tensor
    upper: Tensor
    gap: Tensor
    stress_bound: Tensor
    stress_estimate: Tensor
    corrected: Tensor


def certify(model: EquiNO, strain: Tensor | npt.ArrayLike, at: Fields | None = None) -> Certificate:
    """Certificate of a model's prediction at strains (n, d).

    `at`: the fields at all points make the bounds exact; None takes the model's cubature, which estimates them.

    Raises:
        ValueError: strains of another shape than the model's, or not real and finite; a model, strains or fields that
        are not float64, in which alone rounding leaves something to say, or on different devices; fields of another
        cell; a material without energy, or whose energy is not convex.
    """
    strain = real_tensor("strains", strain)
    if strain.ndim != 2 or strain.shape[1] != model.lower.numel():
        raise ValueError(f"strain has shape {tuple(strain.shape)}, need (n, {model.lower.numel()})")
    if not bool(strain.isfinite().all()):
        k = int((~strain.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"the strain of point {k} is {strain[k].tolist()}, need finite numbers")
    at = model.cubature if at is None else at
    for what, tensor in {"the model": model.lower, "the strain": strain, "what the fields are at": at.weights}.items():
        if tensor.dtype != torch.float64 or tensor.device != strain.device:
            raise ValueError(
                f"{what} is {tensor.dtype} on {tensor.device}, need torch.float64 on {strain.device}: certify the "
                "model as it was read, and evaluate it in another precision by coupling.SurrogateLaw or spon.Evaluator"
            )
    at.require(model.fingerprint)
    tangents = [largest_tangent(law) for law in at.laws.laws]
    rest = energy_at_rest(at)
    stress, corrected, upper, gap = _branches(model, strain, at, rest)
    bound = torch.full_like(strain, torch.nan)
    known = [d.diagonal().to(strain) for d in tangents if d is not None]
    if len(known) == len(tangents):
        shares = torch.stack([w.sum() for w in at.weights.split(list(at.laws.counts))])
        bound = (2 * gap[:, None] * (shares @ torch.stack(known))).sqrt()
    estimate = (stress - corrected).abs() + model.calibration * _remainder(corrected, upper - rest, gap)
    return Certificate(upper - gap, upper, gap, bound, estimate, corrected)


def energy_at_rest(at: Fields) -> Tensor:
    """Mean energy () [MPa] at zero strain, to which what is relative is relative: a constant of an energy is free."""
    return at.laws.energy(at.weights.new_zeros(at.laws.size, at.laws.strain_size)) @ at.weights


def calibrate(model: EquiNO, strain: Tensor, stress: Tensor) -> None:
    """Set the factor of a model's `stress_estimate` by exact stresses (n, d) [MPa] at strains (n, d).

    It is a quantile of the factors that each strain would need, on the cubature or at all points, whichever needs more.
    The quantile is the least that covers the share `COVERAGE` of unseen strains of the same distribution in nine of ten
    such samples (a tolerance limit of order statistics: Wilks, Ann. Math. Stat. 12, 1941; as conformal prediction:
    Vovk, Proc. Mach. Learn. Res. 25, 2012). No quantile of n < 45 strains does that; it is the largest factor of all
    components then.
    """
    where = [model.cubature] if model._cell is None else [model.cubature, model.cell.fields]
    with torch.no_grad():
        needed = torch.stack([_needed(model, strain, stress, at) for at in where]).amax(dim=0)
    rank = int(binom.ppf(_CONFIDENCE, len(strain), COVERAGE)) + 1
    enough = rank <= len(strain)
    model.calibration.copy_(needed.sort(dim=0).values[rank - 1] if enough else needed.max())


def _needed(model: EquiNO, strain: Tensor, stress: Tensor, at: Fields) -> Tensor:
    """Factors (n, d) with which the estimates are the errors."""
    found, rest = [], energy_at_rest(at)
    for e, right in zip(strain.split(_CHUNK), stress.split(_CHUNK), strict=True):
        own, corrected, upper, gap = _branches(model, e, at, rest)
        missing = (own - right).abs() - (own - corrected).abs()
        found.append(torch.where(missing <= 0, 0.0, missing / _remainder(corrected, upper - rest, gap)))
    return torch.cat(found)


def _branches(model: EquiNO, strain: Tensor, at: Fields, rest: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Homogenised stress of the model (n, d), the corrected one, mean energy (n,) and gap (n,)."""
    epsilon, sigma = model.fields(strain, at)
    law = at.laws.stress(epsilon) * at.weights[:, None]
    forces = torch.einsum("npd,pdr->nr", law, at.strain_modes)
    _, slopes = model.displacement.with_tangent(strain)
    corrected = law.sum(dim=1) + torch.einsum("nr,nrd->nd", forces, slopes)
    return model(strain)[0], corrected, *bounds(at, epsilon, sigma, rest)


def bounds(at: Fields, strain: Tensor, stress: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """The upper bound of the mean energy (n,) [MPa], and what the lower one is below it, of admissible fields
    (n, m, d), with what rounding and the tolerance of the solved problems may have done. rest: `energy_at_rest`."""
    energies = at.laws.energy(strain)
    gap = constitutive_relation_error(at.laws, strain, stress, energies) @ at.weights
    energy = energies @ at.weights
    unit = torch.finfo(energy.dtype).eps / 2
    slack = 2 * _rounding(at, strain) + unit * len(at.weights) * energy.abs()
    slack += _SOLVED * at.strain_modes.shape[2] * (energy - rest).abs()
    return energy + slack, gap + 2 * slack


def _rounding(at: Fields, strain: Tensor) -> Tensor:
    """Bound of the rounding of the mean energy (n,) [MPa], of each phase that where its strain (n, m, d) is largest."""
    counts, total = list(at.laws.counts), strain.new_zeros(len(strain))
    for law, block, weights in zip(at.laws.laws, strain.split(counts, dim=1), at.weights.split(counts), strict=True):
        if block.shape[1]:
            sizes, most = (x.to(strain.device) for x in law.energy_rounding)
            # A product, as torch sums such short rows far more slowly.
            largest = (block.square() @ strain.new_ones(strain.shape[2])).amax(dim=1).sqrt()
            total += weights.sum() * most[torch.bucketize(largest, sizes)]
    return total


def _remainder(corrected: Tensor, energy: Tensor, gap: Tensor) -> Tensor:
    """What the error of the corrected stress is measured in (n, 1) [MPa]: the stress times the gap over the energy."""
    # At rest all of them vanish.
    return (corrected.norm(dim=1) * gap.abs() / energy.clamp(min=torch.finfo(energy.dtype).tiny))[:, None]
