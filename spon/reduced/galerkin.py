# SPDX-License-Identifier: MIT
"""The reduced model of a cell: Galerkin's method in the span of displacement modes, on few cubature points.

The strain at a point is E + Σ_j φ_j b_j with the strains φ_j of r periodic modes. Stationarity of the mean energy in b
gives r equations for each macroscale strain, solved by Newton's method for all strains at once. No network is involved:
this is what networks are compared with, and what they learn from.
"""

from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from spon.constitutive.phase_law import LocalLaws
from spon.reduced.model import Fingerprint, Model
from spon.reduced.modes import ModesAtPoints


class ReducedNotConverged(RuntimeError):
    """The reduced equations of some strains were not solved."""


@dataclass(frozen=True, slots=True, eq=False)
class ReducedSolution:
    """coefficients: (n, r). slopes: (n, r, d) their derivatives in E. stress: (n, d). tangent: (n, d, d). strain and
    local_stress: (n, m, d) at the cubature points. local_tangent: (n, m, d, d) [MPa]."""

    coefficients: Tensor
    slopes: Tensor
    stress: Tensor
    tangent: Tensor
    strain: Tensor
    local_stress: Tensor
    local_tangent: Tensor


class ReducedModel(Model):
    """Galerkin's method in r modes on m points; a model like the networks, without a parameter to train.

    Args:
        laws: at the points. modes: (m, d, r) strains of the displacement modes.
        weights: (m,), the mean of a field being Σ_p w_p field_p.
        half_range: (d,) largest strains among the snapshots that the modes are from. fingerprint: of the cell.
    """

    modes: Tensor
    weights: Tensor

    def __init__(
        self,
        laws: LocalLaws,
        modes: Tensor,
        weights: Tensor,
        half_range: Tensor,
        fingerprint: Fingerprint | None = None,
    ):
        super().__init__(-half_range, half_range, fingerprint)
        self.laws = laws
        self.register_buffer("modes", modes)
        self.register_buffer("weights", weights)

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]; raises ReducedNotConverged."""
        solution = self.solve(strain)
        return solution.stress, solution.tangent

    def fields(self, strain: Tensor, at: ModesAtPoints | None = None) -> tuple[Tensor, Tensor]:
        """Local strain, kinematically admissible, and the law's stress: (n, m, d) both.

        `at`: points with as many strain modes as there are here, by default those of the cubature.
        """
        solution = self.solve(strain)
        if at is None:
            return solution.strain, solution.local_stress
        local = strain[:, None] + torch.einsum("pdr,nr->npd", at.strain_modes, solution.coefficients)
        return local, at.laws.stress(local)

    def solve(self, strain: Tensor, *, tolerance: float = 1e-10, iterations: int = 30) -> ReducedSolution:
        """Solve at strains (n, d).

        Raises:
            ReducedNotConverged: naming the first strain without solution.
        """
        rest = strain.new_zeros(len(strain), self.modes.shape[2])
        solution, missing = self._newton(strain, rest, tolerance, iterations)
        if not (missing <= tolerance).all():
            k = int(missing.nan_to_num(torch.inf).argmax())
            raise ReducedNotConverged(
                f"strain {strain[k].tolist()}: the reduced residual is {float(missing[k]):.2e} of the stress after "
                f"{iterations} iterations, need {tolerance:.0e}"
            )
        return solution

    def attempt(
        self, strain: Tensor, start: Tensor, *, tolerance: float = 1e-10, iterations: int = 30
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Stress (n, d), tangent (n, d, d) [MPa] and coefficients (n, r) from a start (n, r); NaN without solution."""
        solution, missing = self._newton(strain, start, tolerance, iterations)
        found = missing <= tolerance
        parts = (solution.stress, solution.tangent, solution.coefficients)
        return tuple(torch.where(found.view(-1, *[1] * (x.ndim - 1)), x, torch.nan) for x in parts)

    def _newton(
        self, strain: Tensor, start: Tensor, tolerance: float, iterations: int
    ) -> tuple[ReducedSolution, Tensor]:
        """The last iterate, and the residuals (n,) as parts of the stress."""
        d = self.modes.shape[1]
        fields = torch.cat([torch.eye(d, dtype=strain.dtype).expand(len(self.modes), d, d), self.modes], dim=2)
        flat = (fields * self.weights[:, None, None]).reshape(-1, fields.shape[2])
        all_ = torch.cat([strain, start], dim=1)
        for iteration in count(1):
            local = torch.einsum("pdr,nr->npd", fields, all_)
            stress = self.laws.stress(local)
            forces = stress.reshape(len(strain), -1) @ flat
            missing = forces[:, d:].norm(dim=1) / ((stress.square().sum(-1) @ self.weights).sqrt() + 1e-300)
            tangent = self.laws.tangent(local)
            stiffness = self._stiffness(fields, tangent)
            # What is no number any more stays so, and keeps nobody else from going on.
            if iteration == iterations or not (missing > tolerance).any():
                break
            all_[:, d:] -= torch.linalg.solve_ex(stiffness[:, d:, d:], forces[:, d:])[0]
        slopes = -torch.linalg.solve_ex(stiffness[:, d:, d:], stiffness[:, d:, :d])[0]
        condensed = stiffness[:, :d, :d] + stiffness[:, :d, d:] @ slopes
        return ReducedSolution(all_[:, d:], slopes, forces[:, :d], condensed, local, stress, tangent), missing

    def _stiffness(self, fields: Tensor, tangent: Tensor) -> Tensor:
        """Σ_p w_p Φᵀ C Φ, (n, d + r, d + r)."""
        weighted = (tangent * self.weights[:, None, None]) @ fields
        s = fields.shape[2]
        return torch.einsum("qs,nqt->nst", fields.reshape(-1, s), weighted.reshape(len(tangent), -1, s))
