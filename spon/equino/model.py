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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spon.archive import ModelFileError, Reader, write
from spon.constitutive.phase_law import LocalLaws
from spon.equino.networks import Branch, Potential
from spon.reduced.basis import CellFields, Fields
from spon.reduced.model import Fingerprint, Model


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
    def is_whole(self) -> bool:
        """Whether the model has the fields of the whole RVE, see `spon.load(path, whole=True)`."""
        return self._cell is not None

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

    def save(self, path: str | os.PathLike) -> None:
        """Write the model with its cell to one file, see `spon.load`; raises ValueError for one without its cell."""
        save(self, path)


def save(model: EquiNO, path: str | os.PathLike) -> None:
    """Write a model and its cell; raises ValueError for one without its cell."""
    cell = model.cell
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {
        # Copies: where the cubature is all points it is the cell's own fields, and a file holds no tensor twice.
        "cubature.weights": model.cubature.weights.clone(),
        "cubature.strain_modes": model.cubature.strain_modes.clone(),
        "cubature.stress_modes": model.cubature.stress_modes.clone(),
        "cell.weights": cell.fields.weights,
        "cell.strain_modes": cell.fields.strain_modes,
        "cell.stress_modes": cell.fields.stress_modes,
        "cell.displacements": torch.from_numpy(np.ascontiguousarray(cell.displacements)),
        "cell.order": torch.from_numpy(np.ascontiguousarray(cell.order)),
    }
    networks = {"displacement": _describe(model.displacement), "stress": _describe(model.stress)}
    networks["potential"] = (
        None
        if model.potential is None
        else {
            "width": model.potential.width,
            "norms": len(model.potential.norms.maps),
        }
    )
    header = {
        "networks": networks,
        "laws": model.cubature.laws.to_json(),
        "points": list(cell.fields.laws.counts),
        "fingerprint": None if model.fingerprint is None else dict(model.fingerprint),
    }
    write(path, "model", header, tensors)


def load(path: str | os.PathLike, *, whole: bool = False) -> EquiNO:
    """The model of a file, on the CPU in float64.

    Args:
        path: of the file. whole: read the fields of the whole cell too, `EquiNO.cell`; they are most of the file, and
            evaluating the model does without them. What cell it is the model knows in any case, `EquiNO.fingerprint`.

    Raises:
        FileNotFoundError. ModelFileError: see `ModelFileError`.
    """
    with Reader(path, "model") as file:
        networks = file.header["networks"]
        state = file.tensors("model.")
        fingerprint = read_fingerprint(file.header)
        try:
            d = state["lower"].numel()
            half = torch.ones(d, dtype=torch.float64)
            potential = None
            if networks["potential"] is not None:
                potential = Potential(torch.eye(d, dtype=torch.float64), half, 1.0, **networks["potential"])
            model = EquiNO(
                _branch(half, networks["displacement"]),
                potential,
                _branch(half, networks["stress"]),
                lower=state["lower"],
                upper=state["upper"],
                means=state["means"],
                cubature=Fields(
                    LocalLaws.from_json(file.header["laws"]), **file.tensors("cubature."), fingerprint=fingerprint
                ),
                cell=_cell(file, fingerprint) if whole else None,
            )
            model.load_state_dict({"calibration": model.calibration} | state)  # not in the first files
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelFileError(f"{path}: its parts do not fit together: {error}") from error
    return model.requires_grad_(False)


def read_fingerprint(header: dict[str, Any]) -> Fingerprint | None:
    """Of the cell that a file belongs to; the first files have one hash, or none."""
    found = header.get("fingerprint")
    return {"whole": found} if isinstance(found, str) else found


def _cell(file: Reader, fingerprint: Fingerprint | None) -> CellFields:
    part = file.tensors("cell.")
    displacements, order = (part.pop(name).numpy() for name in ("displacements", "order"))
    laws = LocalLaws(LocalLaws.from_json(file.header["laws"]).laws, tuple(file.header["points"]))
    return CellFields(Fields(laws, **part, fingerprint=fingerprint), displacements, order)


def _describe(branch: Branch) -> dict[str, Any]:
    return {
        "coefficients": branch.scale.numel(),
        "widths": list(branch.widths),
        "norms": len(branch.norms.maps),
        "activation": branch.activation,
        "through_zero": branch.through_zero,
    }


def _branch(half: Tensor, about: dict[str, Any]) -> Branch:
    return Branch(
        half,
        torch.ones(about["coefficients"], dtype=torch.float64),
        widths=tuple(about["widths"]),
        norms=about["norms"],
        activation=about["activation"],
        through_zero=about["through_zero"],
    )
