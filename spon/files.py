# SPDX-License-Identifier: MIT
"""Model files: one safetensors file with weights, modes, laws and what they belong to; nothing in it is executed.

A file is written under a temporary name and renamed. What is read is checked against the SHA-256 sums that the file
carries, so that a truncated, damaged or alien file is refused by name.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from spon.equino import CellFields, EquiNO, Fields
from spon.networks import Branch, Potential
from spon.point_law import LocalLaws

FORMAT, VERSION = "spon model", "1"


class ModelFileError(RuntimeError):
    """A file that holds no model, or a damaged one."""


def save(model: EquiNO, path: str | os.PathLike) -> None:
    """Write a model and its cell; raises ValueError for one without its cell."""
    cell = model.cell
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {
        "cubature.weights": model.cubature.weights,
        "cubature.strain_modes": model.cubature.strain_modes,
        "cubature.stress_modes": model.cubature.stress_modes,
        "cell.weights": cell.fields.weights,
        "cell.strain_modes": cell.fields.strain_modes,
        "cell.stress_modes": cell.fields.stress_modes,
        "cell.displacements": torch.from_numpy(np.ascontiguousarray(cell.displacements)),
        "cell.order": torch.from_numpy(np.ascontiguousarray(cell.order)),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    networks = {"displacement": _describe(model.displacement), "stress": _describe(model.stress)}
    networks["potential"] = None if model.potential is None else {
        "width": model.potential.width,
        "norms": len(model.potential.norms.maps),
    }
    header = {
        "networks": networks,
        "laws": model.cubature.laws.to_json(),
        "points": list(cell.fields.laws.counts),
        "fingerprint": cell.fingerprint,
        "torch": torch.__version__.split("+")[0],
        "sums": {name: _sum(value) for name, value in tensors.items()},
    }
    path = Path(path)
    part = path.with_name(path.name + ".part")
    text = json.dumps(header)
    metadata = {"format": FORMAT, "version": VERSION, "header": text, "sum": hashlib.sha256(text.encode()).hexdigest()}
    save_file(tensors, part, metadata)
    os.replace(part, path)


def load(path: str | os.PathLike, *, whole: bool = False) -> EquiNO:
    """The model of a file, on the CPU in float64.

    Args:
        path: of the file. whole: read the fields of the whole cell too, `EquiNO.cell`; they are most of the file, and
            evaluating the model does without them.

    Raises:
        FileNotFoundError. ModelFileError: see `ModelFileError`.
    """
    with _Reader(path) as file:
        networks = file.header["networks"]
        state = file.tensors("model.")
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
                cubature=Fields(LocalLaws.from_json(file.header["laws"]), **file.tensors("cubature.")),
                cell=_cell(file) if whole else None,
            )
            model.load_state_dict({"calibration": model.calibration} | state)  # not in the first files
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelFileError(f"{path}: its parts do not fit together: {error}") from error
    return model.requires_grad_(False)


def _cell(file: "_Reader") -> CellFields:
    part = file.tensors("cell.")
    displacements, order = (part.pop(name).numpy() for name in ("displacements", "order"))
    laws = LocalLaws(LocalLaws.from_json(file.header["laws"]).laws, tuple(file.header["points"]))
    return CellFields(Fields(laws, **part), displacements, order, file.header["fingerprint"])


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


def _sum(tensor: Tensor) -> str:
    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return hashlib.sha256(about + tensor.numpy().tobytes()).hexdigest()


class _Reader:
    """An open model file whose header has been checked; tensors are checked as they are read."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"there is no model file {self.path}")

    def __enter__(self):
        try:
            self.file = safetensors.safe_open(self.path, framework="pt")
        except Exception as error:  # safetensors has its own type, which is no public name in all versions
            raise ModelFileError(f"{self.path} is damaged or no model file: {error}") from error
        about = self.file.metadata() or {}
        if about.get("format") != FORMAT:
            raise ModelFileError(f"{self.path} is no model file of spon")
        if about.get("version") != VERSION:
            raise ModelFileError(f"{self.path} has version {about.get('version')}, need {VERSION}")
        text = about.get("header", "")
        if hashlib.sha256(text.encode()).hexdigest() != about.get("sum"):
            raise ModelFileError(f"{self.path} is damaged: its header does not have the sum that it claims")
        self.header = json.loads(text)
        return self

    def __exit__(self, *error):
        self.file.__exit__(*error)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, by the rest of their names."""
        found = {}
        for name in self.header["sums"]:
            if name.startswith(prefix):
                try:
                    value = self.file.get_tensor(name)
                except Exception as error:
                    raise ModelFileError(f"{self.path} is damaged: {name} cannot be read: {error}") from error
                if _sum(value) != self.header["sums"][name]:
                    raise ModelFileError(f"{self.path} is damaged: {name} does not have the sum that the file claims")
                found[name.removeprefix(prefix)] = value
        return found
