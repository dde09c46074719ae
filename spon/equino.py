# SPDX-License-Identifier: MIT
"""EquiNO: a cell's response with periodicity and equilibrium by construction.

Two bases are taken from solved problems: strains of periodic displacements, and stresses, each of which is in
(discrete) equilibrium, and so is every combination. Networks of the macroscale strain give the coefficients (Eivazi,
Tröger, Wittek, Hartmann & Rausch, arXiv 2504.07976).

The stress basis is turned so that its first d modes have the unit stresses as their means and the others no mean at
all. Their coefficients then are the homogenised stress itself, which may be the derivative of a potential, and
coefficients of self-stresses that no average shows.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.model import Fingerprint, Model, require_same
from spon.networks import Branch, Potential
from spon.pod import Basis
from spon.point_law import LocalLaws

if TYPE_CHECKING:
    from spon.cell import CellData
    from spon.training import History


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """What turns coefficients into fields at m points of the cell (all of them, or those of a cubature).

    laws: at the points. weights: (m,). strain_modes: (m, d, r). stress_modes: (m, d, r), or (m, d, 0) where the stress
    is the law's. fingerprint: of the cell; None if it is not known.
    """

    laws: LocalLaws
    weights: Tensor
    strain_modes: Tensor
    stress_modes: Tensor
    fingerprint: Fingerprint | None = None

    @classmethod
    def of(
        cls, laws: LocalLaws, *arrays: npt.NDArray[np.float64], fingerprint: Fingerprint | None = None
    ) -> "Fields":  # fmt: skip
        """From NumPy arrays: weights, strain modes, stress modes."""
        weights, strain_modes, stress_modes = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
        return cls(laws, weights, strain_modes, stress_modes, fingerprint)

    def at(self, points: npt.NDArray[np.int64], weights: Tensor) -> "Fields":
        """The same at some of the points, with other weights."""
        rows = torch.as_tensor(points)
        laws = self.laws.subset(points.tolist())
        return Fields(laws, weights, self.strain_modes[rows], self.stress_modes[rows], self.fingerprint)

    def require(self, fingerprint: Fingerprint | None) -> None:
        """Raise ValueError if they are those of another cell than that with this fingerprint, saying what differs."""
        require_same("what the fields are at", self.fingerprint, fingerprint)


@dataclass(frozen=True, slots=True, eq=False)
class CellFields:
    """The whole cell of a model, for fields, exact certificates and the model's file.

    fields: modes at all P points. displacements: (dofs, r) of the strain modes. order: (P,) of the points among cells ×
    points of the RVE.
    """

    fields: Fields
    displacements: npt.NDArray[np.float64]
    order: npt.NDArray[np.int64]

    @property
    def fingerprint(self) -> Fingerprint | None:
        """Of the RVE."""
        return self.fields.fingerprint

    def __deepcopy__(self, memo: dict) -> "CellFields":
        """Itself: it is large and never changes."""
        return self


def turned(basis: Basis, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stress modes (P, d, r) spanning what `basis` spans: the first d have the unit stresses as means, the rest none.

    The rest is orthonormal, and the first d are orthogonal to it.

    Raises:
        ValueError: fewer than d modes, or modes whose means do not span all stresses.
    """
    d, r = basis.modes.shape[1:]
    means = np.einsum("p,pdr->dr", weights, basis.modes)
    if np.linalg.matrix_rank(means) < d:
        raise ValueError(
            f"the means of {r} stress modes do not span the {d} stress components: need more modes, or snapshots"
        )
    _, _, right = np.linalg.svd(means)
    return np.concatenate([basis.modes @ np.linalg.pinv(means), basis.modes @ right[d:].T], axis=2)


def turned_means(d: int, r: int) -> Tensor:
    """Means (d, r) of `turned` modes, as they are but for rounding."""
    return torch.eye(d, r, dtype=torch.float64)


class EquiNO(Model):
    """The operator: strains (n, d) → homogenised stress and tangent, and fields of the cell.

    Args:
        displacement: branch of the displacement coefficients.
        potential: energy whose derivative is the homogenised stress; None if `stress` gives all coefficients.
        stress: branch of the self-stress coefficients, or of all stress coefficients.
        lower, upper: (d,) strains between which it was trained.
        cubature: fields at few points. means: (d, r) of the stress modes.
        cell: the whole cell; None for a model that was read without it.

    Attributes:
        calibration: (d,) of the estimated errors of the stress, see `spon.certify`; NaN until it is known.
        fingerprint: of the cell that it was learned from, with or without its fields; that of the cubature.
    """

    means: Tensor
    calibration: Tensor

    def __init__(
        self,
        displacement: Branch,
        potential: Potential | None,
        stress: Branch,
        *,
        lower: Tensor,
        upper: Tensor,
        means: Tensor,
        cubature: Fields,
        cell: CellFields | None = None,
    ):
        super().__init__(lower, upper, cubature.fingerprint)
        self.displacement, self.potential, self.stress = displacement, potential, stress
        self.register_buffer("means", means.clone())
        self.register_buffer("calibration", torch.full_like(lower, torch.nan))
        self.cubature, self._cell = cubature, cell

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EquiNO":
        """What torch moves a module by, `model.to(...)` and the like: the fields of the cubature go along."""
        super()._apply(fn, recurse)
        at = self.cubature
        self.cubature = Fields(at.laws, fn(at.weights), fn(at.strain_modes), fn(at.stress_modes), at.fingerprint)
        return self

    @property
    def cell(self) -> CellFields:
        """The whole cell; raises ValueError for a model that was read without it."""
        if self._cell is None:
            raise ValueError("the model was read without its cell, which is needed here: spon.load(path, whole=True)")
        return self._cell

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        if self.potential is not None:
            return self.potential(strain)
        coefficients, slopes = self.stress.with_tangent(strain)
        return coefficients @ self.means.T, self.means @ slopes

    def coefficients(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (n, r) of the displacement and of the stress modes."""
        rest = self.stress(strain)
        if self.potential is not None:
            rest = torch.cat([self.potential(strain)[0], rest], dim=1)
        return self.displacement(strain), rest

    def fields(self, strain: Tensor, at: Fields | None = None) -> tuple[Tensor, Tensor]:
        """Local strain, kinematically admissible, and local stress, in equilibrium: (n, m, d) both.

        `at`: the points, by default those of the cubature.
        """
        at = self.cubature if at is None else at
        b, c = self.coefficients(strain)
        local = strain[:, None] + torch.einsum("pdr,nr->npd", at.strain_modes, b)
        return local, torch.einsum("pdr,nr->npd", at.stress_modes, c)

    @classmethod
    def as_published(cls, data: "CellData", **options: Any) -> tuple["EquiNO", "History"]:
        """The operator in the form of its authors' code, see `spon.companions.train_as_published`."""
        from spon.companions import train_as_published  # which trains what is defined here

        return train_as_published(data, **options)

    def save(self, path: str | os.PathLike) -> None:
        """Write the model with its cell to one file, see `spon.load`; raises ValueError for one without its cell."""
        from spon.files import save  # which reads and writes what is defined here

        save(self, path)
