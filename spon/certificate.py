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
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spon.equino import EquiNO, Fields
from spon.point_law import LocalLaws, PhaseLaw


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """lower, upper: (n,) bounds on the mean energy [MPa]; −inf where the stress is beyond what the law can carry.
    gap: (n,) their difference, the constitutive relation error [MPa]. stress_bound: (n, d) on the error of each
    component of the homogenised stress [MPa]; NaN if the laws' largest tangents are not known."""

    lower: Tensor
    upper: Tensor
    gap: Tensor
    stress_bound: Tensor


def conjugate(law: PhaseLaw, stress: Tensor, strain: Tensor, iterations: int = 40) -> Tensor:
    """ψ*(σ) = max_ε σ·ε − ψ(ε) (...) [MPa] at stresses (..., d); inf where no strain carries the stress.

    Newton's method for σ = dψ/dε with step halving; its direction shortens the difference of the stresses.

    Args:
        law: with an energy. stress: (..., d). strain: (..., d) where to begin, e.g. what belongs to a nearby stress.
    """
    if law.linear:
        rest = law.tangent(stress.new_zeros(1, stress.shape[-1]))[0]
        return 0.5 * (stress * torch.linalg.solve(rest, stress.unsqueeze(-1)).squeeze(-1)).sum(-1)
    shape = stress.shape[:-1]
    sigma, e = stress.reshape(-1, stress.shape[-1]), strain.reshape(-1, stress.shape[-1]).clone()
    missing = sigma - law.stress(e)
    left = torch.arange(len(sigma))
    for _ in range(iterations):
        left = left[missing[left].norm(dim=-1) > 1e-13 * sigma[left].norm(dim=-1)]
        if not left.numel():
            break
        # Where σ is beyond what the law carries the tangent may become singular, which is no error here.
        step = torch.linalg.solve_ex(law.tangent(e[left]), missing[left].unsqueeze(-1))[0].squeeze(-1)
        length = torch.ones(len(left), 1, dtype=sigma.dtype)
        for _ in range(20):
            trial = e[left] + length * step
            rest = sigma[left] - law.stress(trial)
            worse = ~(rest.norm(dim=-1) < missing[left].norm(dim=-1))
            if not worse.any():
                break
            length[worse] /= 2
        better = ~worse
        e[left[better]], missing[left[better]] = trial[better], rest[better]
        left = left[better]  # the others are at the limit of rounding
    value = (sigma * e).sum(-1) - law.energy(e)
    # What is not a maximum is no value of the conjugate: σ is beyond what the law carries.
    found = missing.norm(dim=-1) <= 1e-9 * sigma.norm(dim=-1)
    return torch.where(found, value, torch.inf).reshape(shape)


def largest_tangents(laws: LocalLaws) -> tuple[Tensor, ...] | None:
    """D (d, d) of each phase, the tangent at zero strain, if no tangent exceeds it along random paths; else None.

    Laws whose stiffness fades are stiffest at rest. It is tested at strains up to 1, not proved.
    """
    found = []
    generator = torch.Generator().manual_seed(0)
    for law in laws.laws:
        d = law.strain_size
        rest = law.tangent(torch.zeros(1, d, dtype=torch.float64))[0]
        strain = torch.randn(512, d, generator=generator, dtype=torch.float64)
        sizes = 10 ** (-6 * torch.rand(512, 1, generator=generator, dtype=torch.float64))
        strain *= sizes / strain.norm(dim=1)[:, None]
        left = torch.linalg.eigvalsh(rest - law.tangent(strain))[:, 0]
        if not (left >= -1e-9 * torch.linalg.eigvalsh(rest)[-1]).all():
            return None
        found.append(rest)
    return tuple(found)


def certify(model: EquiNO, strain: Tensor, at: Fields | None = None) -> Certificate:
    """Certificate of a model's prediction at strains (n, d).

    `at`: the fields at all points make the bounds exact; None takes the model's cubature, which estimates them.

    Raises:
        ValueError: a material without energy.
    """
    at = model.cubature if at is None else at
    epsilon, sigma = model.fields(strain, at)
    mean = torch.einsum("p,npd->nd", at.weights, sigma)
    upper = at.laws.energy(epsilon) @ at.weights
    ends = torch.tensor(at.laws.counts).cumsum(0).tolist()
    parts = [
        conjugate(law, sigma[:, end - count : end], epsilon[:, end - count : end])
        for law, count, end in zip(at.laws.laws, at.laws.counts, ends, strict=True)
        if count
    ]
    lower = (strain * mean).sum(-1) - torch.cat(parts, dim=1) @ at.weights
    gap = upper - lower
    tangents = largest_tangents(at.laws)
    if tangents is None:
        bound = torch.full_like(strain, torch.nan)
    else:
        shares = [at.weights[end - count : end].sum() for count, end in zip(at.laws.counts, ends, strict=True)]
        voigt = sum(share * d.diagonal() for share, d in zip(shares, tangents, strict=True))
        bound = (2 * gap.clamp(min=0)[:, None] * voigt).sqrt()
    return Certificate(lower, upper, gap, bound)
