# SPDX-License-Identifier: MIT
"""Modes at points of an RVE, and stress modes whose means are the unit stresses."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.constitutive.phase_law import LocalLaws
from spon.reduced.model import Fingerprint, require_same
from spon.reduced.pod import Basis


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
