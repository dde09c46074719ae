# SPDX-License-Identifier: MIT
"""Model files: weights, modes, laws and what they belong to, in one file (see `spon.archive`)."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spon.archive import ModelFileError, Reader, write
from spon.equino import CellFields, EquiNO, Fields
from spon.model import Fingerprint
from spon.networks import Branch, Potential
from spon.point_law import LocalLaws


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
