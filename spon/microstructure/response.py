# SPDX-License-Identifier: MIT
"""Galerkin's method in modes that differ from RVE to RVE, in torch."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor


class RVENotConverged(RuntimeError):
    """An RVE without convergence.

    Args:
        rve: its number in the batch.
        problem: strain and residual.
    """

    def __init__(self, rve: int, problem: str):
        super().__init__(rve, problem)
        self.rve, self.problem = rve, problem

    def __str__(self) -> str:
        return f"RVE {self.rve}, {self.problem}"


@dataclass(frozen=True, slots=True, eq=False)
class RVEResponse:
    """The response of n RVEs in r modes at s strains each.

    Args:
        stress: (n, s, d), homogenised [MPa].
        tangent: (n, s, d, d), homogenised [MPa].
        energy: (n, s), mean density [MPa].
        coefficients: (n, s, r), of the modes.
        sensitivities: (n, s, r, d), derivatives of the coefficients by the strain.
        strain: (n, s, P, d), local strains at the quadrature points.
    """

    stress: Tensor
    tangent: Tensor
    energy: Tensor
    coefficients: Tensor
    sensitivities: Tensor
    strain: Tensor

    @property
    def slopes(self) -> Tensor:
        """Deprecated: `sensitivities`."""
        warnings.warn("slopes is now sensitivities", DeprecationWarning, stacklevel=2)
        return self.sensitivities


@dataclass(frozen=True, slots=True, eq=False)
class ModeFields:
    """Modes of n RVEs.

    Args:
        displacement: (n, dofs, r), periodic nodal displacements.
        strain: (n, P, d, r), their Mandel strains at the points, of mean square one.
    """

    displacement: Tensor
    strain: Tensor

    def select(self, which: slice) -> "ModeFields":
        """Some of the modes.

        Args:
            which: of the r modes.
        """
        return ModeFields(self.displacement[..., which], self.strain[..., which])

    def joined(self, other: "ModeFields") -> "ModeFields":
        """These modes, followed by those of `other`.

        Args:
            other: modes of the same RVEs.
        """
        return ModeFields(
            torch.cat([self.displacement, other.displacement], -1), torch.cat([self.strain, other.strain], -1)
        )


def local_strains(modes: Tensor, strain: Tensor, coefficients: Tensor) -> Tensor:
    """Strains (n, s, P, d) at the points.

    Args:
        modes: (n, P, d, r), strains of the modes.
        strain: (n, s, d), macroscale strains.
        coefficients: (n, s, r).
    """
    return strain[:, :, None] + torch.einsum("npdr,nsr->nspd", modes, coefficients)


def galerkin_stiffness(fields: Tensor, weights: Tensor, tangent: Tensor) -> Tensor:
    """Σ_p w_p Φᵀ C Φ (n, s, k, k).

    Args:
        fields: Φ (n, P, d, k), k strain fields.
        weights: w (P,).
        tangent: C (n, s, P, d, d).
    """
    return torch.einsum("npdj,nspdk->nsjk", weights[:, None, None] * fields, tangent @ fields[:, None])


def solve_regularised(stiffness: Tensor, right: Tensor) -> Tensor:
    """Solve for coefficients of modes that may be linearly dependent to rounding.

    Args:
        stiffness: (..., k, k), symmetric.
        right: (..., k, m).
    """
    diagonal = stiffness.diagonal(dim1=-2, dim2=-1)
    small = 10 * torch.finfo(stiffness.dtype).eps * diagonal.sum(-1, keepdim=True)
    return torch.linalg.solve(stiffness + torch.diag_embed(small.expand_as(diagonal)), right)
