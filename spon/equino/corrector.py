# SPDX-License-Identifier: MIT
"""Between a network and a solved cell: the best that a model's modes can do, at many strains at once.

The networks of a `spon.EquiNO` name coefficients of modes. Without them, the displacement is that of the least energy
in its modes (Galerkin's method on the cubature, as in `spon.ReducedModel`), and its derivatives are the stress and the
tangent. The stress field in equilibrium that belongs to it is the one nearest to its law in the norm of the compliance
C⁻¹, C being the law's tangent: it is a step of Newton's method for the largest lower bound of the energy, so that the
gap is off its least value by what is quadratic in it. Both fields are admissible at any strain, in the trained range or
not, and so the gap bounds the error as it does for a network, see `spon.equino.certificate`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spon.equino.certificate import bounds, energy_at_zero_strain
from spon.equino.model import EquiNO
from spon.reduced.galerkin import ReducedModel
from spon.reduced.galerkin_c import CompiledModes, RVEsInModes, compiled_modes
from spon.reduced.modes import ModesAtPoints

_STEP = 1e-9  # of Newton's method, relative to the strain in the norm of energy, below which it is the last one
_ITERATIONS = 30


@dataclass(frozen=True, slots=True, eq=False)
class ModalSolution:
    """Of n strains: stress (n, d) and tangent (n, d, d) [MPa], coefficients (n, r) of the displacement modes,
    stress_coefficients (n, r) of the stress in equilibrium that is nearest to them, bound `upper` (n,) of the energy
    and `gap` (n,) [MPa] as those of a `spon.Certificate`. NaN, and a gap that is infinite, where no least energy was
    found."""

    stress: Tensor
    tangent: Tensor
    coefficients: Tensor
    stress_coefficients: Tensor
    upper: Tensor
    gap: Tensor


class ModalCorrector:
    """The modes of a model without its networks, on the CPU in float64.

    Args:
        model: of which the cubature and the displacement network are taken; the network says where to begin.
        compiled: whether the energy is minimised in machine code, if there is a C compiler.
    """

    def __init__(self, model: EquiNO, *, compiled: bool = True):
        self.model, self.at = model, model.cubature
        at = self.at
        self._reduced = ReducedModel(at.laws, at.strain_modes, at.weights, model.upper, at.fingerprint)
        self._code: CompiledModes | None = None
        laws, modes = self.at.laws, self.at.strain_modes
        if compiled and all(law.local is None for law in laws.laws):
            self._code = compiled_modes(laws.laws, modes.shape[2])
        if self._code is not None:
            phase = np.repeat(np.arange(len(laws.counts)), laws.counts)
            self._rve: RVEsInModes = self._code.prepare(modes.numpy()[None], phase[None], self.at.weights.numpy())

    @torch.no_grad()
    def __call__(self, strain: Tensor, at: ModesAtPoints | None = None) -> ModalSolution:
        """At strains (n, d). `at`: the points at which the gap is computed, by default those of the cubature."""
        start = self.model.displacement(strain)
        # What a network says far outside of its range may be worse than nothing.
        start = torch.where(self.model.inside(strain)[:, None], start, 0.0)
        stress, tangent, coefficients = self._least(strain, start)
        at = self.at if at is None else at
        at.require(self.model.fingerprint)
        upper, gap, modes = self._bounds(strain, coefficients, at)
        gap = torch.where(stress.isfinite().all(1), gap, torch.inf)
        return ModalSolution(stress, tangent, coefficients, modes, upper, gap)

    def _least(self, strain: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._code is None:
            return self._reduced.attempt(strain, start)
        which = np.zeros(len(strain), dtype=np.int64)
        stress, tangent, coefficients, _, iterations = self._code(
            self._rve, which, strain.numpy(), start.numpy(), _STEP, _ITERATIONS
        )
        lost = iterations < 0
        for found in (stress, tangent, coefficients):
            found[lost] = np.nan
        return torch.from_numpy(stress), torch.from_numpy(tangent), torch.from_numpy(coefficients)

    def _bounds(self, strain: Tensor, coefficients: Tensor, at: ModesAtPoints) -> tuple[Tensor, Tensor, Tensor]:
        """Upper bound and gap (n,), and coefficients (n, r) of the stress that they are with."""
        epsilon = strain[:, None] + torch.einsum("pdr,nr->npd", self.at.strain_modes, coefficients)
        sigma = self._nearest(epsilon)
        if at is not self.at:
            epsilon = strain[:, None] + torch.einsum("pdr,nr->npd", at.strain_modes, coefficients)
        field = torch.einsum("pdr,nr->npd", at.stress_modes, sigma)
        return *bounds(at, epsilon, field, energy_at_zero_strain(at)), sigma

    def _nearest(self, epsilon: Tensor) -> Tensor:
        """Coefficients (n, r) of the stress field nearest to the law's at strains (n, m, d) of the cubature."""
        modes, weights = self.at.stress_modes, self.at.weights
        # Where a law has lost its stiffness there is no inverse, and no gap, and others are not kept from theirs.
        compliance = torch.linalg.inv_ex(self.at.laws.tangent(epsilon))[0] * weights[:, None, None]
        weighted = compliance @ modes
        matrix = torch.einsum("pdr,npds->nrs", modes, weighted)
        right = torch.einsum("npdr,npd->nr", weighted, self.at.laws.stress(epsilon))
        return torch.linalg.solve_ex(matrix, right)[0]
