# SPDX-License-Identifier: MIT
"""Displacement and stress modes of an RVE, at some points and at all points."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.constitutive.phase_law import LocalLaws
from spon.reduced.model import Fingerprint, LocalFields, require_same


@dataclass(frozen=True, slots=True, eq=False)
class ModesAtPoints:
    """Modes at m points of an RVE, all points or those of a cubature.

    Args:
        laws: at the points.
        weights: (m,), the mean of a field over the RVE is Σ_p w_p field_p.
        strain_modes: (m, d, r), strains of the displacement modes.
        stress_modes: (m, d, r), or (m, d, 0) where the law gives the stress.
        fingerprint: of the RVE; None if unknown.
    """

    laws: LocalLaws
    weights: Tensor
    strain_modes: Tensor
    stress_modes: Tensor
    fingerprint: Fingerprint | None = None

    @classmethod
    def of(
        cls, laws: LocalLaws, *arrays: npt.NDArray[np.float64], fingerprint: Fingerprint | None = None
    ) -> "ModesAtPoints":  # fmt: skip
        """From NumPy arrays: weights, strain modes, stress modes."""
        weights, strain_modes, stress_modes = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
        return cls(laws, weights, strain_modes, stress_modes, fingerprint)

    def at(self, points: npt.NDArray[np.int64], weights: Tensor) -> "ModesAtPoints":
        """The same modes at some of the points, with other weights."""
        rows = torch.as_tensor(points)
        laws = self.laws.subset([int(p) for p in points])
        return ModesAtPoints(laws, weights, self.strain_modes[rows], self.stress_modes[rows], self.fingerprint)

    def strain(self, strain: Tensor, coefficients: Tensor) -> Tensor:
        """Kinematically admissible strains (n, m, d) of macroscale strains (n, d) and displacement modes (n, r)."""
        return strain[:, None] + torch.einsum("pdr,nr->npd", self.strain_modes, coefficients)

    def fields(self, strain: Tensor, displacement: Tensor, stress: Tensor) -> LocalFields:
        """Kinematically admissible strain and stress in equilibrium.

        Args:
            strain: (n, d) of the macroscale.
            displacement: (n, r), coefficients of the displacement modes.
            stress: (n, r), coefficients of the stress modes.
        """
        local = self.strain(strain, displacement)
        return LocalFields(local, torch.einsum("pdr,nr->npd", self.stress_modes, stress))

    def pack(self) -> dict[str, Tensor]:
        """The tensors by name, for a file."""
        return {name: getattr(self, name) for name in ("weights", "strain_modes", "stress_modes")}

    def require(self, fingerprint: Fingerprint | None) -> None:
        """Raise ValueError, naming the differences, unless the modes belong to the RVE with this fingerprint."""
        require_same("the set of modes", self.fingerprint, fingerprint)


@dataclass(frozen=True, slots=True, eq=False)
class RVEModes:
    """Modes of a whole RVE, for its fields, exact certificates and the model's file.

    Args:
        at_points: modes at all P points.
        displacements: (dofs, r), the displacement modes.
        order: (P,), positions of the points among cells × points of the RVE's mesh.
    """

    at_points: ModesAtPoints
    displacements: npt.NDArray[np.float64]
    order: npt.NDArray[np.int64]

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of the RVE."""
        return self.at_points.fingerprint

    @property
    def fields(self) -> ModesAtPoints:
        """Old name of `at_points`."""
        warnings.warn("RVEModes.fields is now RVEModes.at_points", DeprecationWarning, stacklevel=2)
        return self.at_points

    def pack(self) -> dict[str, Tensor]:
        """The tensors by name, for a file."""
        displacements, order = (torch.from_numpy(np.ascontiguousarray(a)) for a in (self.displacements, self.order))
        return {**self.at_points.pack(), "displacements": displacements, "order": order}

    @classmethod
    def unpack(cls, laws: LocalLaws, tensors: dict[str, Tensor], fingerprint: Fingerprint | None) -> "RVEModes":
        """The modes of a file.

        Args:
            laws: at all points.
            tensors: of `pack`.
            fingerprint: of the RVE.

        Raises:
            TypeError: tensors with other names.
            KeyError: a missing tensor.
        """
        rest = dict(tensors)
        displacements, order = (rest.pop(name).numpy() for name in ("displacements", "order"))
        return cls(ModesAtPoints(laws, **rest, fingerprint=fingerprint), displacements, order)

    def __deepcopy__(self, memo: dict) -> "RVEModes":
        """The object itself, as it is large and never changes."""
        return self
