# SPDX-License-Identifier: MIT
"""Where a training is, in a file from which it goes on to the same parameters."""

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spon.archive import ModelFileError, Reader, write

KIND = "training"


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """header: numbers that JSON knows. tensors: parameters, what the optimiser knows of them, the best so far, samples
    that are still to come in this round, and the state of the generator that draws them."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, step: int, queue: Tensor, parameters: list[Tensor], optimiser: Any, watch: Any, generator: Any):
        """After a step of AdamW that `watch`, a `spon.training.fit.Watch`, has looked at."""
        watch.history.seconds = time.monotonic() - watch.begin
        header = {"step": step, "history": asdict(watch.history), "best": watch.best, "since": watch.since}
        tensors = {"queue": queue, "generator": generator.get_state()}
        for k, (p, best) in enumerate(zip(parameters, watch.best_state, strict=True)):
            tensors |= {f"parameter.{k}": p, f"best.{k}": best}
            tensors |= {f"optimiser.{k}.{name}": value for name, value in optimiser.state.get(p, {}).items()}
        return cls(header, tensors)

    def save(self, path: str | os.PathLike, about: dict[str, Any]) -> None:
        """Write to a file; `about` is what a training must have in common with this one to go on from it."""
        write(path, KIND, {**self.header, "about": about}, self.tensors)

    @classmethod
    def read(cls, path: str | os.PathLike, about: dict[str, Any]) -> "Progress":
        """What was saved.

        Raises:
            ModelFileError: a file that is damaged or holds something else. ValueError: another training.
        """
        with Reader(path, KIND) as file:
            for name, value in about.items():
                if (before := file.header["about"].get(name)) != value:
                    raise ValueError(f"{path} is of a training with {name} = {before}, this one has {value}")
            return cls(file.header, file.tensors(""))

    def restore(self, parameters: list[Tensor], optimiser: Any, watch: Any, generator: Any) -> tuple[int, Tensor]:
        """Put everything where it was; returns the number of the next step and the samples that are still to come.

        Raises:
            ModelFileError: parameters of other shapes.
        """
        history = self.header["history"]
        for name, value in history.items():
            setattr(watch.history, name, value)
        watch.begin = time.monotonic() - history["seconds"]
        watch.best, watch.since = self.header["best"], self.header["since"]
        found = [self.tensors.get(f"parameter.{k}") for k in range(len(parameters))]
        shapes = [None if x is None else tuple(x.shape) for x in found]
        if shapes != [tuple(p.shape) for p in parameters] or f"parameter.{len(parameters)}" in self.tensors:
            raise ModelFileError("the checkpoint is of a network of other parameters")
        with torch.no_grad():
            for k, p in enumerate(parameters):
                p.copy_(found[k])
                watch.best_state[k].copy_(self.tensors[f"best.{k}"])
                state = {
                    name.removeprefix(f"optimiser.{k}."): value.to(p.device if value.ndim else "cpu")
                    for name, value in self.tensors.items()
                    if name.startswith(f"optimiser.{k}.")
                }
                if state:
                    optimiser.state[p] = state
        generator.set_state(self.tensors["generator"])
        return self.header["step"] + 1, self.tensors["queue"]
