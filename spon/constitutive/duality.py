# SPDX-License-Identifier: MIT
"""Convex duality of laws at points: conjugate energy, error in the constitutive relation, largest tangent.

Energies of F are not convex, and have no conjugate. There the distance of a stress from the law is measured in the dual
of the norm of `PhaseLaw.metric`, which is an estimate where the error in the constitutive relation is a bound.
"""

import ctypes
import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spon.constitutive.c_code import function
from spon.constitutive.phase_law import LocalLaws, PhaseLaw
from spon.jit import Compiled, compiler, or_torch, source

_BLOCK = 16384  # points at a time, so that their intermediate values stay in the cache
# Tolerance of Newton's method, relative to the stress. The conjugate is stationary in the strain, so that its error is
# quadratic in the residual.
_RESOLVED = 1e-8
_ITERATIONS = 40
_HALVINGS = 20


@dataclass(frozen=True, slots=True, eq=False)
class EnergyPair:
    """The terms of Fenchel's inequality ψ(ε) + ψ*(σ) ≥ σ·ε at points, (..., P) each [MPa].

    Args:
        energy: ψ(ε).
        conjugate: ψ*(σ), infinite where no strain has the stress.
        work: σ·ε.
    """

    energy: Tensor
    conjugate: Tensor
    work: Tensor

    @property
    def error(self) -> Tensor:
        """The error in the constitutive relation, ψ(ε) + ψ*(σ) − σ·ε ≥ 0 (..., P) [MPa].

        It is zero where the stress is that of the strain, and infinite where no strain has the stress (Ladevèze and
        Leguillon, SIAM J. Numer. Anal. 20, 1983).
        """
        return self.energy + self.conjugate - self.work


class ConstitutiveError(NamedTuple):
    """Energy and distance of stress and strain from the laws at points, (..., P) each [MPa].

    Args:
        energy: ψ(ε).
        error: an energy density, zero where the stress is that of the strain.
    """

    energy: Tensor
    error: Tensor


def constitutive_error(laws: LocalLaws, strain: Tensor, stress: Tensor) -> ConstitutiveError:
    """Distance of stress and strain from the laws at points.

    The error in the constitutive relation, or at finite strain ½ δ·M⁻¹ δ with δ the stress less that of the law and the
    metric M.

    Args:
        laws: with energies.
        strain: (..., P, d).
        stress: (..., P, d) [MPa].

    Raises:
        ValueError: a phase without energy.
    """
    if not laws.measure.finite:
        pair = energy_pair(laws, strain, stress)
        return ConstitutiveError(pair.energy, pair.error)
    counts = list(laws.counts)
    parts = []
    for law, e, s in zip(laws.laws, strain.split(counts, dim=-2), stress.split(counts, dim=-2), strict=True):
        difference = s - law.stress(e)
        parts.append(0.5 * ((difference @ torch.linalg.inv(law.metric).to(s)) * difference).sum(-1))
    return ConstitutiveError(laws.energy(strain), torch.cat(parts, dim=-1))


def energy_pair(laws: LocalLaws, strain: Tensor, stress: Tensor) -> EnergyPair:
    """Energy of strains and conjugate energy of stresses at points.

    Args:
        laws: with convex energies.
        strain: (..., P, d).
        stress: (..., P, d) [MPa].

    Raises:
        ValueError: a phase without energy.
    """
    counts = list(laws.counts)
    blocks = zip(laws.laws, stress.split(counts, dim=-2), strain.split(counts, dim=-2), strict=True)
    dual = torch.cat([conjugate(law, s, e) for law, s, e in blocks], dim=-1)
    return EnergyPair(laws.energy(strain), dual, (stress * strain).sum(-1))


def conjugate(law: PhaseLaw, stress: Tensor, start: Tensor) -> Tensor:
    """The conjugate energy ψ*(σ) = max_ε σ·ε − ψ(ε) (...) [MPa]; infinite where no strain has the stress.

    Args:
        law: with a convex energy.
        stress: (..., d) [MPa].
        start: (..., d), initial strains of the iteration, such as those of a nearby stress.

    Raises:
        ValueError: start strains of another shape, type or device than the stresses.
    """
    d = law.strain_size
    if (start.shape, start.dtype, start.device) != (stress.shape, stress.dtype, stress.device):
        raise ValueError(
            f"start has shape {tuple(start.shape)} and type {start.dtype} on {start.device}, need those of the stress, "
            f"{tuple(stress.shape)} and {stress.dtype} on {stress.device}"
        )
    if law.linear:
        compliance = torch.linalg.inv(law.tangent(stress.new_zeros(d)))
        return 0.5 * ((stress @ compliance) * stress).sum(-1)
    stress, start, shape = stress.reshape(-1, d), start.reshape(-1, d), stress.shape[:-1]
    plain = stress.device.type == "cpu" and stress.dtype == torch.float64
    least = law.stress_rounding * torch.finfo(stress.dtype).eps / torch.finfo(torch.float64).eps
    if plain and not (torch.is_grad_enabled() and (stress.requires_grad or start.requires_grad)):
        code = compiled_conjugate(law)
        if code is not None:
            return code(stress, start, _RESOLVED, least, _ITERATIONS).reshape(shape)
    blocks = zip(stress.split(_BLOCK), start.split(_BLOCK), strict=True)
    return torch.cat([_conjugate(law, s, e, least) for s, e in blocks]).reshape(shape)


def _conjugate(law: PhaseLaw, stress: Tensor, start: Tensor, least: float) -> Tensor:
    """`conjugate` (n,) at stresses (n, d), by Newton's method with step halving for the strain of each stress.

    `least` [MPa] is the residual due to rounding. Newton's direction decreases the norm of the residual.
    """
    ones = stress.new_ones(stress.shape[1])

    def square(x: Tensor) -> Tensor:
        return x.square() @ ones  # torch computes norms of such short rows far more slowly

    resolved = max(_RESOLVED, 1e3 * torch.finfo(stress.dtype).eps)  # the limit in single precision
    strain, enough = start.clone(), resolved**2 * square(stress) + least**2
    residual = stress - law.stress(strain)
    active: Tensor | slice = slice(None)
    for _ in range(_ITERATIONS):
        size = square(residual[active])
        unsolved = (size > enough[active]) & (size < torch.inf)
        count = int(unsolved.sum())
        if not count:
            break
        if 2 * count < len(unsolved):  # otherwise it is cheaper to keep the solved ones
            active = torch.arange(len(stress))[active][unsolved]
            size, unsolved = size[unsolved], unsolved[unsolved]
        here, target = strain[active], stress[active]
        step = solve_positive_definite(law.tangent(here), residual[active])
        trial = here + step
        after = target - law.stress(trial)
        worse, length = (unsolved & ~(square(after) < size)).nonzero()[:, 0], 1.0
        for _ in range(_HALVINGS):
            if not worse.numel():
                break
            length /= 2
            trial[worse] = here[worse] + length * step[worse]
            after[worse] = target[worse] - law.stress(trial[worse])
            worse = worse[~(square(after[worse]) < size[worse])]
        # Where no step decreases it, the residual is rounding, or no strain has the stress.
        trial[worse], after[worse] = here[worse], torch.inf
        strain[active], residual[active] = trial, after
    value = (stress * strain).sum(-1) - law.energy(strain)
    # Where the residual is not zero there is no maximum, and the conjugate is infinite.
    return torch.where(square(residual) <= enough, value, torch.inf)


def solve_positive_definite(matrix: Tensor, rhs: Tensor) -> Tensor:
    """Solutions (n, d) of small systems; NaN or infinite for singular ones.

    Elimination in all systems at once is several times faster than LAPACK one by one; positive definite matrices need
    no pivots.

    Args:
        matrix: (n, d, d), symmetric positive definite.
        rhs: (n, d).
    """
    d = rhs.shape[-1]
    a, x = [list(row.unbind(-1)) for row in matrix.unbind(-2)], list(rhs.unbind(-1))
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


class CompiledConjugate(Compiled):
    """The conjugate energy ψ*(σ) = max_ε σ·ε − ψ(ε) as machine code in float64; `_conjugate` is the reference in torch.

    Args:
        law: with an energy and without local unknowns.

    Raises:
        ValueError: a law without energy.
        OSError: no compiler, or it fails; the message quotes its output.
    """

    def __init__(self, law: PhaseLaw):
        if law.energy_program is None:
            raise ValueError(f"{law.name} has no energy and no conjugate energy")
        programs = {"energy": law.energy_program, "stress": law.stress_program, "tangent": law.tangent_program}
        functions = "".join(function(f"law_{name}", program) for name, program in programs.items())
        constants: dict[str, str | int] = {"REAL": "double", "D": law.strain_size, "LANES": 64}
        super().__init__(source(__package__, "lanes.h") + functions + source(__package__, "conjugate.c"), constants)
        self.strain_size = law.strain_size
        self._arrays = [np.array(program.constants, dtype=np.float64) for program in programs.values()]

    def __call__(self, stress: Tensor, start: Tensor, resolved: float, least: float, iterations: int) -> Tensor:
        """Conjugate energies (n,) [MPa], infinite where no strain has the stress.

        Args:
            stress: (n, d) [MPa].
            start: (n, d), initial strains of the iteration.
            resolved: tolerance of the residual, relative to the stress.
            least: absolute tolerance of the residual, for rounding [MPa], added to the relative one.
            iterations: number of iterations, at most.

        Raises:
            ValueError: tensors of other shapes or types, or not on the CPU.
        """
        for name, x in (("stress", stress), ("start", start)):
            if x.shape != (len(stress), self.strain_size) or x.dtype != torch.float64 or x.device.type != "cpu":
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)} and type {x.dtype} on {x.device}, need "
                    f"({len(stress)}, {self.strain_size}) and torch.float64 on the CPU"
                )
        stress, start = stress.contiguous(), start.contiguous()
        value = stress.new_empty(len(stress))
        self.library.conjugates(
            ctypes.c_long(len(stress)),
            (ctypes.c_void_p * 3)(*(a.ctypes.data for a in self._arrays)),  # the C struct `constants`
            *(ctypes.c_void_p(x.data_ptr()) for x in (stress, start, value)),
            ctypes.c_double(resolved),
            ctypes.c_double(least),
            ctypes.c_int(iterations),
            ctypes.c_int(torch.get_num_threads()),
        )
        return value


def compiled_conjugate(law: PhaseLaw) -> CompiledConjugate | None:
    """The conjugate energy as machine code.

    None without a compiler or for a law with local unknowns; also, with a warning, if the compiler fails.
    """
    return None if law.local is not None or not (cc := compiler()) else _compiled(law, cc)


@functools.cache
def _compiled(law: PhaseLaw, cc: tuple[str, ...]) -> CompiledConjugate | None:
    return or_torch(lambda: CompiledConjugate(law), law.name)


@functools.cache
def largest_tangent(law: PhaseLaw, reach: float = 1.0) -> Tensor | None:
    """The tangent at zero strain (d, d) [MPa] if no tangent and no secant at random strains exceeds it, else None.

    Softening laws are stiffest at zero strain. This and convexity are tested at strains of many sizes, not proved.

    Args:
        law: with an energy.
        reach: the largest of these sizes, above the strains at points of the RVE; the smallest is a millionth of it.

    Raises:
        ValueError: an energy that is not convex.
    """
    d = law.strain_size
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 512, d, generator=generator, dtype=torch.float64)
    sizes = reach * 10 ** (-6 * torch.rand(512, 1, generator=generator, dtype=torch.float64))
    # Strains, and steps from them of the same size or smaller: secants include jumps of the stress, tangents do not.
    steps = sizes * 10 ** (-3 * torch.rand(512, 1, generator=generator, dtype=torch.float64))
    strain, step = directions / directions.norm(dim=-1, keepdim=True) * torch.stack([sizes, steps])
    at_zero_strain = law.tangent(torch.zeros(1, d, dtype=torch.float64))[0]
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
            "MPa), and the certificate needs a convex one"
        )
    if not at_zero_strain.isfinite().all():
        return None
    margin = torch.minimum(
        torch.linalg.eigvalsh(at_zero_strain - tangent)[:, 0], ((unit @ at_zero_strain) * unit).sum(-1) - secant
    )
    return at_zero_strain if (margin >= -slack).all() else None
