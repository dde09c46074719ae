# SPDX-License-Identifier: MIT
"""The certificate: two-sided bounds of the effective energy, and the bound of the stress that follows.

A strain field ε that is kinematically admissible for E and a stress field σ in equilibrium with the mean S bound the
energy of the true solution of the same finite element problem, for a convex potential ψ with the conjugate ψ* (Fenchel;
Prager & Synge, Q. Appl. Math. 5, 1947; Ladevèze & Pelle, Mastering Calculations in Linear and Nonlinear Mechanics,
2005):

    E·S − ⟨ψ*(σ)⟩  ≤  W(E)  ≤  ⟨ψ(ε)⟩.

The gap is the constitutive relation error, ⟨ψ(ε) + ψ*(σ) − σ·ε⟩ ≥ 0, since ⟨σ·ε⟩ = E·S. If no tangent of ψ exceeds
D anywhere, ψ* is strongly convex with D⁻¹, and the mean of n·(σ − σ_true) obeys Cauchy and Schwarz:

    |n·(S − S_true)| ≤ √(2 gap · n·⟨D⟩ n)        for each n (d,).

Both statements are exact with the sums over all quadrature points; on a cubature they are estimates. The energies are
moved apart by a bound of rounding and of the tolerance of the solver, to which the modes are admissible. It matters
where strains are so small that the terms of an energy cancel, and where stress and strain agree to nearly all digits.
The bound of rounding is twice, for ψ and its conjugate, that of `spon.constitutive.rounding` for ψ at the largest
strain of each phase; it holds in float64 only.

The bound is that of the worst stress with this gap, and far above the error. The displacement branch gives a sharper
estimate. The upper bound exceeds W by a term that is quadratic in the error of ε, so that its derivative, with strain
modes φ_j and coefficients b_j,

    S* = d⟨ψ(ε)⟩/dE = ⟨law(ε)⟩ + ⟨law(ε) · φ_j⟩ db_j/dE,

differs from S_true = dW/dE by a quadratic term too. It is the goal-oriented correction of ⟨law(ε)⟩, db/dE being the
dual solution (Becker & Rannacher, Acta Numerica 10, 2001). So |S − S*| is the error of S up to a term of the order of
|S*| gap/W, which enters with a factor for each component, calibrated on solved problems, see `calibrate`.

At finite strain energies are not convex, and have no conjugate. ⟨ψ(F)⟩ of the admissible F still bounds the least
energy from above. The gap is an estimate: the distance of the stress in equilibrium from the law in the dual of the
norm at zero strain, see `spon.constitutive.constitutive_error`, times a factor that is calibrated on solved problems,
so that it covers the error of the energy as the estimate of the stress covers that of the stress. No bound of the
stress is given. All of it is computed at strains without rotation, on which none of these numbers depend.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor

from spon.arguments import real_tensor
from spon.constitutive.duality import constitutive_error, largest_tangent
from spon.constitutive.measure import GRADIENT
from spon.equino.model import EquiNO
from spon.reduced.model import LocalFields
from spon.reduced.modes import ModesAtPoints

COVERAGE = 0.95  # fraction of the errors of a component that the estimate covers
_CONFIDENCE = 0.9  # fraction of all calibrations whose estimate covers it
# Residual, relative to the internal forces, of the solutions of `fe2.RVE` that the modes are made from.
_SOLVED = 1e-11
_REACH = 30.0  # the largest strains at which laws are tested, relative to the range, where they have a unit
_CHUNK = 16  # strains whose fields at all points of an RVE are held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """Bounds and estimates for n predictions, without a solution.

    With the modes at all points of the RVE, `lower`, `upper`, `gap` and `stress_bound` are bounds; at finite strain
    only `upper` is, `lower` and `gap` are estimates, and there is no `stress_bound`. `corrected` and
    `stress_estimate` are not bounds, but far sharper.

    Args:
        lower: (n,), of the mean energy [MPa]; −inf where no strain of the law has this stress.
        upper: (n,), of the mean energy [MPa].
        gap: (n,), upper − lower: the constitutive relation error and twice the bound of rounding [MPa].
        stress_bound: (n, d), of the error of each component of the homogenised stress [MPa]; NaN if the largest
            tangents of the laws are unknown, and at finite strain.
        stress_estimate: (n, d), of the error of each component [MPa]. In the trained range it covers the fraction
            `COVERAGE` of the errors, at all points and on the cubature, in at least nine of ten models. NaN for a model
            without calibration, infinite where the gap is infinite.
        corrected: (n, d), a better homogenised stress, the derivative of `upper` [MPa].
    """

    lower: Tensor
    upper: Tensor
    gap: Tensor
    stress_bound: Tensor
    stress_estimate: Tensor
    corrected: Tensor


class EnergyBounds(NamedTuple):
    """Bounds of the mean energy at n strains.

    Args:
        upper: (n,), upper bound [MPa].
        gap: (n,), upper minus lower bound [MPa].
        at_zero_strain: (), the energy from which energies are counted [MPa], see `energy_at_zero_strain`.
    """

    upper: Tensor
    gap: Tensor
    at_zero_strain: Tensor

    @property
    def energy(self) -> Tensor:
        """The upper bound from zero strain (n,) [MPa]."""
        return self.upper - self.at_zero_strain

    def relative_gap(self, floor: float) -> Tensor:
        """|gap| over the sum of `energy` and `floor` [MPa], which keeps it finite at zero strain, (n,)."""
        return self.gap.abs() / (self.energy + floor)


def certify(model: EquiNO, strain: Tensor | npt.ArrayLike, at: ModesAtPoints | None = None) -> Certificate:
    """Certificate of a model's prediction at strains.

    Args:
        model: as loaded, in float64.
        strain: (n, d).
        at: modes at the points: with all points, `model.rve_modes.at_points`, the results are bounds; None for the
            model's cubature, with which they are estimates.

    Raises:
        ValueError: strains of another shape than the model's, or not real and finite; a model, strains or modes that
            are not float64 or on different devices; modes of another RVE; a material without energy, or with an energy
            that is not convex.
    """
    strain = real_tensor("strains", strain)
    if strain.ndim != 2 or strain.shape[1] != model.strain_size:
        raise ValueError(f"strain has shape {tuple(strain.shape)}, need (n, {model.strain_size})")
    if not bool(strain.isfinite().all()):
        k = int((~strain.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"the strain of point {k} is {strain[k].tolist()}, need finite numbers")
    at = model.cubature if at is None else at
    for what, tensor in {"the model": model.lower, "the strain": strain, "the set of modes": at.weights}.items():
        if tensor.dtype != torch.float64 or tensor.device != strain.device:
            raise ValueError(
                f"{what} is {tensor.dtype} on {tensor.device}, need torch.float64 on {strain.device}: certify the "
                "model as loaded; coupling.SurrogateLaw and spon.Evaluator evaluate it in other precisions"
            )
    at.require(model.fingerprint)
    reach = _reach(model)
    tangents = [None if at.laws.measure.finite else largest_tangent(law, reach) for law in at.laws.laws]
    at_zero_strain = energy_at_zero_strain(at)
    found = _branches(model, strain, at, at_zero_strain)
    upper, gap = found.bounds.upper, found.bounds.gap
    bound = torch.full_like(strain, torch.nan)
    known = [d.diagonal().to(strain) for d in tangents if d is not None]
    if len(known) == len(tangents):
        shares = torch.stack([w.sum() for w in at.weights.split(list(at.laws.counts))])
        bound = (2 * gap[:, None] * (shares @ torch.stack(known))).sqrt()
    estimate, corrected = found.known_error + model.calibration * found.remainder, found.corrected
    if model.measure.finite:
        turn = model.measure.stress_map(strain)
        estimate = (turn.abs() @ estimate[:, :, None])[:, :, 0]
        corrected = (turn @ corrected[:, :, None])[:, :, 0]
    return Certificate(upper - gap, upper, gap, bound, estimate, corrected)


def _reach(model: EquiNO) -> float:
    """The size of strains up to which energies are tested for convexity: one, or for gradients, which have a unit,
    some multiple of the trained range."""
    if model.measure.name != GRADIENT:
        return 1.0
    return _REACH * float(torch.maximum(model.lower.abs(), model.upper.abs()).norm())


def energy_at_zero_strain(at: ModesAtPoints) -> Tensor:
    """Mean energy () [MPa] at zero strain, from which energies are counted: an energy may have any constant."""
    return at.laws.energy(at.weights.new_zeros(at.laws.size, at.laws.strain_size)) @ at.weights


def calibrate(model: EquiNO, strain: Tensor, stress: Tensor, energy: Tensor) -> None:
    """Set the calibrations of a model by exact solutions: factors of `stress_estimate`, at finite strain of the gap.

    A factor is a quantile of the factors needed at the strains, the larger of those on the cubature and at all points.
    The quantile is the least that covers the fraction `COVERAGE` of unseen strains of the same distribution in nine of
    ten such samples (a tolerance limit of order statistics: Wilks, Ann. Math. Stat. 12, 1941; as conformal prediction:
    Vovk, Proc. Mach. Learn. Res. 25, 2012). No quantile of n < 45 strains does that; the factor then is the largest of
    all components.

    Args:
        model: whose calibration is set.
        strain: (n, d).
        stress: (n, d) homogenised, exact [MPa].
        energy: (n,) mean density, exact [MPa].
    """
    where = [model.cubature, *([model.rve_modes.at_points] if model.is_whole else [])]
    if model.measure.finite:
        stress = stress @ model.measure.embedding(stress).mT
        model.gap_calibration.fill_(1.0)
        with torch.no_grad():
            needed = torch.stack([_needed_gaps(model, strain, energy, at) for at in where]).amax(dim=0)
        model.gap_calibration.copy_(_covering(needed[:, None])[0])
    with torch.no_grad():
        needed = torch.stack([_needed_factors(model, strain, stress, at) for at in where]).amax(dim=0)
    model.calibration.copy_(_covering(needed))


def _covering(needed: Tensor) -> Tensor:
    """The quantile (k,) of needed factors (n, k), see `calibrate`."""
    rank = int(scipy.stats.binom.ppf(_CONFIDENCE, len(needed), COVERAGE)) + 1
    enough = rank <= len(needed)
    return needed.sort(dim=0).values[rank - 1] if enough else needed.max().expand(needed.shape[1])


def _needed_gaps(model: EquiNO, strain: Tensor, energy: Tensor, at: ModesAtPoints) -> Tensor:
    """Factors (n,) with which the gaps equal the errors of the energy, |⟨ψ(F)⟩ − W|."""
    at_zero_strain = energy_at_zero_strain(at)
    bounds = [_branches(model, e, at, at_zero_strain).bounds for e in strain.split(_CHUNK)]
    error = (torch.cat([b.upper for b in bounds]) - energy).abs()
    return torch.where(error == 0, 0.0, error / torch.cat([b.gap for b in bounds]))


def _needed_factors(model: EquiNO, strain: Tensor, stress: Tensor, at: ModesAtPoints) -> Tensor:
    """Factors (n, s) with which the estimates equal the errors of T, the stress by coordinates (n, s)."""
    factors, at_zero_strain = [], energy_at_zero_strain(at)
    for e, exact in zip(strain.split(_CHUNK), stress.split(_CHUNK), strict=True):
        found = _branches(model, e, at, at_zero_strain)
        unknown_error = (found.stress - exact).abs() - found.known_error
        factors.append(torch.where(unknown_error <= 0, 0.0, unknown_error / found.remainder))
    return torch.cat(factors)


class _Branches(NamedTuple):
    """The stress of the model by coordinates (n, s), the corrected one (n, s) [MPa], and the energy bounds."""

    stress: Tensor
    corrected: Tensor
    bounds: EnergyBounds

    @property
    def known_error(self) -> Tensor:
        """The change of the stress by the correction (n, s) [MPa]."""
        return (self.stress - self.corrected).abs()

    @property
    def remainder(self) -> Tensor:
        """Unit of the error of the corrected stress (n, 1) [MPa]: the stress times the gap over the energy."""
        energy = self.bounds.energy
        # At zero strain all factors vanish.
        tiny = torch.finfo(energy.dtype).tiny
        return (self.corrected.norm(dim=1) * self.bounds.gap.abs() / energy.clamp(min=tiny))[:, None]


def _branches(model: EquiNO, strain: Tensor, at: ModesAtPoints, at_zero_strain: Tensor) -> _Branches:
    """Stress and energy of both branches at strains (n, d)."""
    coordinates = model.measure.coordinates(strain)
    fields = model.stretch_fields(coordinates, at)
    law = at.laws.stress(fields.strain) * at.weights[:, None]
    forces = torch.einsum("npd,pdr->nr", law, at.strain_modes)
    _, derivatives = model.displacement.with_tangent(coordinates)
    mean = law.sum(dim=1)
    if model.measure.finite:
        mean = mean @ model.measure.embedding(mean).mT
    corrected = mean + torch.einsum("nr,nrd->nd", forces, derivatives)
    assert model.potential is not None or not model.measure.finite
    stress = model.potential(coordinates)[0] if model.potential is not None else model(strain)[0]
    return _Branches(stress, corrected, energy_bounds(at, fields, at_zero_strain, model.gap_calibration))


def energy_bounds(
    at: ModesAtPoints, fields: LocalFields, at_zero_strain: Tensor, gap_calibration: Tensor | float = 1.0
) -> EnergyBounds:
    """Bounds of the mean energy by admissible fields, moved apart by rounding and the tolerance of the solver.

    Args:
        at: modes at the points, in float64.
        fields: at the points, the strain kinematically admissible and the stress in equilibrium.
        at_zero_strain: see `energy_at_zero_strain`.
        gap_calibration: factor of the estimated gap at finite strain, see `EquiNO`; one otherwise.
    """
    local = constitutive_error(at.laws, fields.strain, fields.stress)
    energy, gap = local.energy @ at.weights, gap_calibration * (local.error @ at.weights)
    unit = torch.finfo(energy.dtype).eps / 2
    slack = 2 * _rounding(at, fields.strain) + unit * len(at.weights) * energy.abs()
    slack += _SOLVED * at.strain_modes.shape[2] * (energy - at_zero_strain).abs()
    return EnergyBounds(energy + slack, gap + 2 * slack, at_zero_strain)


def _rounding(at: ModesAtPoints, strain: Tensor) -> Tensor:
    """Bound of the rounding of the mean energy (n,) [MPa], for each phase at its largest strain of (n, m, d)."""
    counts, total = list(at.laws.counts), strain.new_zeros(len(strain))
    for law, block, weights in zip(at.laws.laws, strain.split(counts, dim=1), at.weights.split(counts), strict=True):
        if block.shape[1]:
            sizes, most = (x.to(strain.device) for x in law.energy_rounding)
            # A product, as torch sums such short rows far more slowly.
            largest = (block.square() @ strain.new_ones(strain.shape[2])).amax(dim=1).sqrt()
            total += weights.sum() * most[torch.bucketize(largest, sizes)]
    return total
