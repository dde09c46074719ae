# SPDX-License-Identifier: MIT
"""EquiNO: the response of an RVE with periodicity and equilibrium by construction.

Solved problems give two bases: strains of periodic displacements, and stresses in (discrete) equilibrium, whose linear
combinations are in equilibrium, too. Networks predict the coefficients from the macroscale strain (Eivazi, Tröger,
Wittek, Hartmann & Rausch, arXiv 2504.07976).

The first d modes of the stress basis have the unit stresses as their means and the others have zero mean. So the first
d coefficients are the homogenised stress itself, which may be the derivative of a potential, and the others are
coefficients of self-stresses.

At finite strain all this holds for strains without rotation, F = U, and the rest follows from objectivity, see
`spon.constitutive.measure`: stress modes are first Piola–Kirchhoff stresses in equilibrium in the reference
configuration, and the potential is a function of U − I.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spon.archive import Reader, unpacks, write
from spon.constitutive.phase_law import LocalLaws
from spon.equino.networks import Branch, Potential
from spon.reduced.model import LocalFields, Model, fingerprint_from_json, fingerprint_to_json
from spon.reduced.modes import ModesAtPoints, RVEModes

_KIND = "model"


class EquiNO(Model):
    """Strains (n, d) → homogenised stress and tangent, and local fields of the RVE.

    Args:
        displacement: branch of the displacement coefficients.
        potential: energy whose derivative is the homogenised stress; None if `stress` predicts all coefficients.
        stress: branch of the self-stress coefficients, or of all stress coefficients.
        lower: (s,) smallest coordinates of the trained range.
        upper: (s,) largest coordinates of the trained range.
        means: (d, r) of the stress modes.
        cubature: modes at the points of the cubature.
        rve_modes: modes at all points of the RVE; None for a model that was loaded without them.

    Attributes:
        calibration: (s,), factors of the estimated error of the stress, see `spon.certify`; NaN until calibrated.
        gap_calibration: (), factor of the estimated gap where energies are not convex; one otherwise.
        fingerprint: of the RVE that the model was trained for.
    """

    means: Tensor
    calibration: Tensor
    gap_calibration: Tensor

    def __init__(
        self,
        displacement: Branch,
        potential: Potential | None,
        stress: Branch,
        *,
        lower: Tensor,
        upper: Tensor,
        means: Tensor,
        cubature: ModesAtPoints,
        rve_modes: RVEModes | None = None,
    ):
        super().__init__(lower, upper, cubature.fingerprint, cubature.laws.measure)
        if self.measure.finite and potential is None:
            raise ValueError("potential = None: at finite strain the stress is that of a potential")
        self.displacement, self.potential, self.stress = displacement, potential, stress
        self.register_buffer("means", means.clone())
        self.register_buffer("calibration", torch.full_like(lower, torch.nan))
        self.register_buffer("gap_calibration", torch.ones_like(lower[0]))
        self.cubature, self._rve_modes = cubature, rve_modes

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EquiNO":
        """Called by `model.to(...)` and similar methods; also moves the modes of the cubature."""
        super()._apply(fn, recurse)
        at = self.cubature
        self.cubature = ModesAtPoints(
            at.laws, fn(at.weights), fn(at.strain_modes), fn(at.stress_modes), at.fingerprint
        )  # fmt: skip
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the model has the modes at all points of the RVE."""
        return self._rve_modes is not None

    @property
    def rve_modes(self) -> RVEModes:
        """The modes at all points of the RVE; raises ValueError for a model that was loaded without them."""
        if self._rve_modes is None:
            raise ValueError("the model was loaded without its RVE modes, needed here: spon.load(path, whole=True)")
        return self._rve_modes

    @property
    def cell(self) -> RVEModes:
        """Old name of `rve_modes`."""
        warnings.warn("EquiNO.cell is now EquiNO.rve_modes", DeprecationWarning, stacklevel=2)
        return self.rve_modes

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        if self.potential is not None:
            return self.measure.respond(self.potential, strain)
        coefficients, derivatives = self.stress.with_tangent(strain)
        return coefficients @ self.means.T, self.means @ derivatives

    def coefficients(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (n, r) of the displacement and of the stress modes at strains (n, d) without their rotation."""
        return self._coefficients(self.measure.coordinates(strain))

    def _coefficients(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        stress = self.stress(coordinates)
        if self.potential is not None:
            mean = self.potential(coordinates)[0]
            if self.measure.finite:
                mean = (self.measure.stress_map(self.measure.strain(coordinates)) @ mean[:, :, None])[:, :, 0]
            stress = torch.cat([mean, stress], dim=1)
        return self.displacement(coordinates), stress

    def fields(self, strain: Tensor, at: ModesAtPoints | None = None) -> LocalFields:
        """Kinematically admissible local strain, and local stress in equilibrium, (n, m, d) both.

        Args:
            strain: (n, d).
            at: modes at the points; None for the points of the cubature.
        """
        return self.stretch_fields(self.measure.coordinates(strain), at).turned(self.measure, strain)

    def stretch_fields(self, coordinates: Tensor, at: ModesAtPoints | None = None) -> LocalFields:
        """The fields before they are turned, those of the certificate, on which a rotation has no influence.

        Args:
            coordinates: (n, s), see `spon.constitutive.measure`.
            at: as in `fields`.
        """
        at = self.cubature if at is None else at
        return at.fields(self.measure.strain(coordinates), *self._coefficients(coordinates))

    def mismatch(self, strain: Tensor, at: ModesAtPoints | None = None) -> Tensor:
        """Root mean square over the RVE of stress branch minus law on the displacement branch, relative to the latter.

        Args:
            strain: (n, d).
            at: as in `fields`.

        Returns:
            One number for each strain (n,).
        """
        at = self.cubature if at is None else at
        local = self.stretch_fields(self.measure.coordinates(strain), at)
        law = at.laws.stress(local.strain)
        squares = (law - local.stress).square().sum(-1) @ at.weights
        return (squares / (law.square().sum(-1) @ at.weights)).sqrt()

    def save(self, path: str | os.PathLike) -> None:
        """Write the model with its RVE modes to one file, see `spon.load`.

        Raises:
            ValueError: a model that was loaded without its RVE modes.
            FileNotFoundError: the folder does not exist.
        """
        write(path, _KIND, *pack(self))


def pack(model: EquiNO) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a model for a file; raises ValueError for a model without its RVE modes."""
    rve_modes, potential = model.rve_modes, model.potential
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if not model.measure.finite:
        del tensors["model.gap_calibration"]  # always one; without it the file is that of older versions
    # Copies: the cubature may be all points, and a file holds no tensor twice.
    tensors |= {f"cubature.{name}": value.clone() for name, value in model.cubature.pack().items()}
    tensors |= {f"cell.{name}": value for name, value in rve_modes.pack().items()}
    header = {
        "networks": {
            "displacement": model.displacement.to_json(),
            "stress": model.stress.to_json(),
            "potential": None if potential is None else potential.to_json(),
        },
        "laws": model.cubature.laws.to_json(),
        "points": list(rve_modes.at_points.laws.counts),
        "fingerprint": fingerprint_to_json(model.fingerprint),
    }
    return header, tensors


def unpack(file: Reader, whole: bool) -> EquiNO:
    """The model of an open file, see `load_equino`."""
    networks, state, fingerprint = file.header["networks"], file.tensors("model."), fingerprint_from_json(file.header)
    laws, d = LocalLaws.from_json(file.header["laws"]), state["lower"].numel()
    rve_modes = None
    if whole:
        at_all_points = LocalLaws(laws.laws, tuple(file.header["points"]))
        rve_modes = RVEModes.unpack(at_all_points, file.tensors("cell."), fingerprint)
    model = EquiNO(
        Branch.from_json(networks["displacement"], d),
        None if networks["potential"] is None else Potential.from_json(networks["potential"], d),
        Branch.from_json(networks["stress"], d),
        lower=state["lower"],
        upper=state["upper"],
        means=state["means"],
        cubature=ModesAtPoints(laws, **file.tensors("cubature."), fingerprint=fingerprint),
        rve_modes=rve_modes,
    )
    # Older files have no calibrations.
    model.load_state_dict({"calibration": model.calibration, "gap_calibration": model.gap_calibration} | state)
    return model.requires_grad_(False)


@unpacks(_KIND)
def load_equino(file: Reader, *, whole: bool = False) -> EquiNO:
    """The EquiNO of a file, on the CPU in float64.

    Args:
        file: an open file; callers give its path.
        whole: also load the modes at all points of the RVE, `EquiNO.rve_modes`. They are most of the file, and are not
            needed to evaluate the model.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds another kind of object.
    """
    return unpack(file, whole)
