# SPDX-License-Identifier: MIT
"""Strain → displacement → stress by the law: the model that VPIONet trains."""

import os

import torch
from torch import Tensor

from spon.archive import Reader, unpacks, write
from spon.constitutive.phase_law import LocalLaws
from spon.equino.networks import Branch
from spon.reduced.model import LocalFields, Model, fingerprint_from_json, fingerprint_to_json
from spon.reduced.modes import ModesAtPoints, RVEModes

_KIND = "displacement operator"
_POINTS = 2**17  # points whose laws are evaluated at a time: some MB


class DisplacementOperator(Model):
    """Displacement modes with coefficients from a branch, and the stress of the law: kinematically admissible.

    For a convex potential its mean energy is an upper bound of the energy of the finite element solution, for any
    weights of the branch.

    Args:
        displacement: branch of the coefficients.
        rve_modes: displacement modes at all points, without stress modes.
    """

    modes: Tensor
    weights: Tensor

    def __init__(self, displacement: Branch, rve_modes: RVEModes):
        half_range = displacement.half_range
        super().__init__(-half_range, half_range, rve_modes.fingerprint, rve_modes.at_points.laws.measure)
        self.displacement, self.rve_modes = displacement, rve_modes
        # The file holds them with the RVE modes.
        self.register_buffer("modes", rve_modes.at_points.strain_modes, persistent=False)
        self.register_buffer("weights", rve_modes.at_points.weights, persistent=False)

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa], the mean of the law's and its exact derivative."""
        laws, unit, parts = self.rve_modes.at_points.laws, torch.eye(strain.shape[1]).to(strain), []
        for e in strain.split(max(1, _POINTS // len(self.weights))):
            b, derivatives = self.displacement.with_tangent(e)
            local = e[:, None] + torch.einsum("pdr,nr->npd", self.modes, b)
            d_local = unit + torch.einsum("pdr,nre->npde", self.modes, derivatives)
            stress = torch.einsum("p,npd->nd", self.weights, laws.stress(local))
            parts.append((stress, torch.einsum("p,npde->nde", self.weights, laws.tangent(local) @ d_local)))
        stress, tangent = (torch.cat(p) for p in zip(*parts, strict=True))
        return stress, tangent

    def fields(self, strain: Tensor, at: ModesAtPoints | None = None) -> LocalFields:
        """Kinematically admissible local strain and the stress of the law there, (n, m, d) both.

        Args:
            strain: (n, d).
            at: modes at the points; None for all points of the RVE.
        """
        at = self.rve_modes.at_points if at is None else at
        local = at.strain(strain, self.displacement(strain))
        return LocalFields(local, at.laws.stress(local))

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file, see `spon.load`."""
        tensors = {f"model.{name}": value for name, value in self.state_dict().items()}
        tensors |= {f"rve.{name}": value for name, value in self.rve_modes.pack().items()}
        header = {
            "displacement": self.displacement.to_json(),
            "laws": self.rve_modes.at_points.laws.to_json(),
            "fingerprint": fingerprint_to_json(self.fingerprint),
        }
        write(path, _KIND, header, tensors)


@unpacks(_KIND)
def load_displacement_operator(file: Reader, *, whole: bool = True) -> DisplacementOperator:
    """The displacement operator of a file, on the CPU.

    Args:
        file: an open file; callers give its path.
        whole: as for all models; this one always has the modes at all points.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds another kind of object.
    """
    state, laws = file.tensors("model."), LocalLaws.from_json(file.header["laws"])
    rve_modes = RVEModes.unpack(laws, file.tensors("rve."), fingerprint_from_json(file.header))
    branch = Branch.from_json(file.header["displacement"], state["lower"].numel())
    model = DisplacementOperator(branch, rve_modes)
    model.load_state_dict(state)
    return model.requires_grad_(False)
