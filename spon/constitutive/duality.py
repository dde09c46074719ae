# SPDX-License-Identifier: MIT
"""Convex duality of a law at points: the conjugate of its energy, and the tangent that none of its tangents exceeds."""

import functools

import torch
from torch import Tensor

from spon.constitutive.conjugate import compiled_conjugate
from spon.constitutive.phase_law import LocalLaws, PhaseLaw

_BLOCK = 16384  # points that are treated at a time, so that what they need stays in the cache
# Of the stress, that an iteration leaves. The conjugate is stationary in the strain: this counts squared in it.
_RESOLVED = 1e-8
_ITERATIONS = 40


def indicator(laws: LocalLaws, strain: Tensor, stress: Tensor) -> Tensor:
    """ψ(ε) + ψ*(σ) − σ·ε ≥ 0 (..., P) [MPa] at strains and stresses (..., P, d).

    It vanishes where they obey the law, and is infinite where no strain carries the stress; raises ValueError if a
    phase has no energy.
    """
    return indicator_and_energy(laws, strain, stress)[0]


def indicator_and_energy(laws: LocalLaws, strain: Tensor, stress: Tensor) -> tuple[Tensor, Tensor]:
    """`indicator`, and the energy ψ(ε) (..., P) [MPa] that it contains."""
    counts = list(laws.counts)
    blocks = zip(laws.laws, stress.split(counts, dim=-2), strain.split(counts, dim=-2), strict=True)
    dual = torch.cat([conjugate(law, s, e) for law, s, e in blocks], dim=-1)
    energy = laws.energy(strain)
    return energy + dual - (stress * strain).sum(-1), energy


def conjugate(law: PhaseLaw, stress: Tensor, strain: Tensor) -> Tensor:
    """ψ*(σ) = max_ε σ·ε − ψ(ε) (...) [MPa] at stresses (..., d); inf where no strain carries the stress.

    Args:
        law: with a convex energy. stress: (..., d). strain: (..., d) where to begin, e.g. what belongs to a nearby
        stress.

    Raises:
        ValueError: strains of another shape, type or device than the stresses.
    """
    d = law.strain_size
    if (strain.shape, strain.dtype, strain.device) != (stress.shape, stress.dtype, stress.device):
        raise ValueError(
            f"the strain to begin with is {tuple(strain.shape)}, {strain.dtype} on {strain.device}, the stress "
            f"{tuple(stress.shape)}, {stress.dtype} on {stress.device}: need the same"
        )
    if law.linear:
        compliance = torch.linalg.inv(law.tangent(stress.new_zeros(d)))
        return 0.5 * ((stress @ compliance) * stress).sum(-1)
    stress, strain, shape = stress.reshape(-1, d), strain.reshape(-1, d), stress.shape[:-1]
    plain = stress.device.type == "cpu" and stress.dtype == torch.float64
    least = law.stress_rounding * torch.finfo(stress.dtype).eps / torch.finfo(torch.float64).eps
    if plain and not (torch.is_grad_enabled() and (stress.requires_grad or strain.requires_grad)):
        code = compiled_conjugate(law)
        if code is not None:
            return code(stress, strain, _RESOLVED, least, _ITERATIONS).reshape(shape)
    blocks = zip(stress.split(_BLOCK), strain.split(_BLOCK), strict=True)
    return torch.cat([_conjugate(law, s, e, least) for s, e in blocks]).reshape(shape)


def _conjugate(law: PhaseLaw, sigma: Tensor, start: Tensor, least: float) -> Tensor:
    """`conjugate` of (n, d), by Newton's method for σ = dψ/dε with step halving; `least` [MPa] may be missing of σ.

    Its direction shortens the difference of the stresses.
    """
    ones = sigma.new_ones(sigma.shape[1])

    def square(x: Tensor) -> Tensor:
        return x.square() @ ones  # torch takes norms of such short rows far more slowly

    resolved = max(_RESOLVED, 1e3 * torch.finfo(sigma.dtype).eps)  # in single precision there is no more to have
    e, enough = start.clone(), resolved**2 * square(sigma) + least**2
    missing = sigma - law.stress(e)
    left: Tensor | slice = slice(None)
    for _ in range(_ITERATIONS):
        size = square(missing[left])
        open_ = (size > enough[left]) & (size < torch.inf)
        count = int(open_.sum())
        if not count:
            break
        if 2 * count < len(open_):  # else it is cheaper to take the others along
            left = torch.arange(len(sigma))[left][open_]
            size, open_ = size[open_], open_[open_]
        here, right = e[left], sigma[left]
        step = solve(law.tangent(here), missing[left])
        trial = here + step
        rest = right - law.stress(trial)
        worse, length = (open_ & ~(square(rest) < size)).nonzero()[:, 0], 1.0
        for _ in range(20):
            if not worse.numel():
                break
            length /= 2
            trial[worse] = here[worse] + length * step[worse]
            rest[worse] = right[worse] - law.stress(trial[worse])
            worse = worse[~(square(rest[worse]) < size[worse])]
        # What no step makes better is at the limit of rounding, or beyond what the law carries.
        trial[worse], rest[worse] = here[worse], torch.inf
        e[left], missing[left] = trial, rest
    value = (sigma * e).sum(-1) - law.energy(e)
    # What is not a maximum is no value of the conjugate: σ is beyond what the law carries.
    return torch.where(square(missing) <= enough, value, torch.inf)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solutions (n, d) of systems with symmetric positive definite matrices (n, d, d), NaN or inf for singular ones.

    Elimination in all systems at once, which for such small ones is several times faster than LAPACK one by one; a
    positive definite matrix needs no pivots.
    """
    d = right.shape[-1]
    a, x = [list(row.unbind(-1)) for row in matrix.unbind(-2)], list(right.unbind(-1))
    for k in range(d):
        for i in range(k + 1, d):
            factor = a[i][k] / a[k][k]
            x[i] = x[i] - factor * x[k]
            for j in range(k + 1, d):
                a[i][j] = a[i][j] - factor * a[k][j]
    for k in reversed(range(d)):
        for j in range(k + 1, d):
            x[k] = x[k] - a[k][j] * x[j]
        x[k] = x[k] / a[k][k]
    return torch.stack(x, dim=-1)


@functools.cache
def largest_tangent(law: PhaseLaw) -> Tensor | None:
    """D (d, d) [MPa], the tangent at zero strain, if no tangent and no secant at random strains exceeds it; else None.

    Laws whose stiffness fades are stiffest at rest. It is tested at strains up to 1, not proved, and so is convexity.

    Raises:
        ValueError: an energy that is not convex.
    """
    d = law.strain_size
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 512, d, generator=generator, dtype=torch.float64)
    sizes = 10 ** (-6 * torch.rand(512, 1, generator=generator, dtype=torch.float64))
    # A strain each, and a step from it of the same size or smaller, which tangents do not see the jumps of stress in.
    steps = sizes * 10 ** (-3 * torch.rand(512, 1, generator=generator, dtype=torch.float64))
    strain, step = directions / directions.norm(dim=-1, keepdim=True) * torch.stack([sizes, steps])
    rest = law.tangent(torch.zeros(1, d, dtype=torch.float64))[0]
    tangent, change = law.tangent(strain), law.stress(strain + step) - law.stress(strain)
    known = tangent.isfinite().all(-1).all(-1) & change.isfinite().all(-1)
    strain, step, tangent, change = strain[known], step[known], tangent[known], change[known]
    unit = step / step.norm(dim=-1, keepdim=True)
    secant = (change * unit).sum(-1) / step.norm(dim=-1)
    lowest = torch.minimum(torch.linalg.eigvalsh((tangent + tangent.mT) / 2)[:, 0], secant)
    slack = 1e-9 * float(torch.linalg.eigvalsh(tangent).abs().max()) if len(tangent) else 0.0
    if (lowest < -slack).any():
        k = int(lowest.argmin())
        raise ValueError(
            f"{law.name}: the energy is not convex (at the strain {strain[k].tolist()} a stiffness is {lowest[k]:.3g} "
            "MPa), and there is no certificate without"
        )
    if not rest.isfinite().all():
        return None
    above = torch.minimum(torch.linalg.eigvalsh(rest - tangent)[:, 0], ((unit @ rest) * unit).sum(-1) - secant)
    return rest if (above >= -slack).all() else None
