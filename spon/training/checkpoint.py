# SPDX-License-Identifier: MIT
"""Checkpoint of a training, from which it continues to the same parameters."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spon.archive import ModelFileError, Reader, write
from spon.training.fit import BestParameters

KIND = "training"


@dataclass(slots=True, eq=False)
class TrainingState:
    """The state of a training.

    Args:
        parameters: fitted tensors.
        optimiser: of these.
        schedule: of its learning rate.
        best: the best parameters so far and the history.
        generator: of the batches.
        queue: numbers of the remaining samples of this epoch.
        step: the last completed step.
    """

    parameters: list[Tensor]
    optimiser: torch.optim.Optimizer
    schedule: Any
    best: BestParameters
    generator: torch.Generator
    queue: Tensor
    step: int = 0


@dataclass(frozen=True, slots=True)
class TrainingCheckpoint:
    """A file for the state of one training.

    Args:
        path: of the file.
        settings: settings that must equal those in the file to continue.
    """

    path: str | os.PathLike
    settings: dict[str, Any]

    def save(self, state: TrainingState) -> None:
        """Write the state to the file."""
        best = state.best
        header = {
            "settings": self.settings,
            "step": state.step,
            "schedule": state.schedule.state_dict(),
            "history": {"step": best.step, "loss": best.loss, "validation": best.validation},
            "seconds": best.seconds,
            "least": best.least,
            "since": best.since,
        }
        tensors = {"queue": state.queue, "generator": state.generator.get_state()}
        for k, (p, value) in enumerate(zip(state.parameters, best.best, strict=True)):
            tensors |= {f"parameter.{k}": p, f"best.{k}": value}
            tensors |= {f"optimiser.{k}.{name}": x for name, x in state.optimiser.state.get(p, {}).items()}
        write(self.path, KIND, header, tensors)

    def exists(self) -> bool:
        """Whether the file exists."""
        return Path(self.path).exists()

    def remove(self) -> None:
        """Remove the file if it exists."""
        Path(self.path).unlink(missing_ok=True)

    def restore(self, state: TrainingState) -> None:
        """Set a training to the state in the file.

        Args:
            state: initial state of the same training; changed in place.

        Raises:
            ModelFileError: the file is damaged, of another kind or of an earlier version, or has parameters of other
                shapes.
            ValueError: another training.
        """
        with Reader(self.path, KIND) as file:
            header = file.header
            if "schedule" not in header:
                raise ModelFileError(f"{self.path} is of an earlier version: remove it to train from the start")
            for name, value in self.settings.items():
                if (before := header["settings"].get(name)) != value:
                    raise ValueError(f"{self.path} is of a training with {name} = {before}, this one has {value}")
            tensors = file.tensors("")
        found = [tensors.get(f"parameter.{k}") for k in range(len(state.parameters))]
        shapes = [None if x is None else tuple(x.shape) for x in found]
        if shapes != [tuple(p.shape) for p in state.parameters] or f"parameter.{len(shapes)}" in tensors:
            raise ModelFileError("the checkpoint is of a network of other parameters")
        best = state.best
        best.step, best.loss, best.validation = (header["history"][name] for name in ("step", "loss", "validation"))
        best.least, best.since, best.begin = header["least"], header["since"], time.monotonic() - header["seconds"]
        with torch.no_grad():
            for k, p in enumerate(state.parameters):
                p.copy_(tensors[f"parameter.{k}"])
                best.best[k].copy_(tensors[f"best.{k}"])
                moments = {
                    name.removeprefix(f"optimiser.{k}."): value.to(p.device if value.ndim else "cpu")
                    for name, value in tensors.items()
                    if name.startswith(f"optimiser.{k}.")
                }
                if moments:
                    state.optimiser.state[p] = moments
        state.schedule.load_state_dict(header["schedule"])
        for group, rate in zip(state.optimiser.param_groups, state.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        state.generator.set_state(tensors["generator"])
        state.queue, state.step = tensors["queue"].to(state.queue.device), header["step"]
