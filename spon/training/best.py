# SPDX-License-Identifier: MIT
"""The parameters of the least validation loss so far, and the history of the losses."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from spon.training.result import History


class BestParameters:
    """Records losses, keeps the best parameters and decides when to stop.

    Args:
        parameters: tensors that are fitted in place.
        patience: evaluations without an improvement by one per cent after which to stop.
        log: called with a line at each evaluation; None for none.
    """

    def __init__(self, parameters: list[Tensor], patience: int, log: Callable[[str], None] | None):
        self.parameters, self.patience, self.log = parameters, patience, log
        self.begin = time.monotonic()
        self.step: list[int] = []
        self.loss: list[float] = []
        self.validation: list[float] = []
        self.least, self.best, self.since = float("inf"), [p.detach().clone() for p in parameters], 0

    def record(self, step: int, name: str, loss: float, validation: float) -> bool:
        """Record losses; returns whether to stop.

        Raises:
            FloatingPointError: the first losses are not finite.
        """
        self.step.append(step)
        self.loss.append(loss)
        self.validation.append(validation)
        self.since = 0 if validation < 0.99 * self.least else self.since + 1
        if validation < self.least:
            self.least, self.best = validation, [p.detach().clone() for p in self.parameters]
        if self.log is not None:
            self.log(f"{name} {step}: loss {loss:.3e}, validation {validation:.3e}, {self.seconds:.0f} s")
        if not (self.loss[0] < float("inf") and self.least < float("inf")):
            raise FloatingPointError(
                f"the initial loss is {loss}, the validation loss {validation}: need finite numbers"
            )
        return self.since >= self.patience or not validation < float("inf")

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self.begin

    def restart(self) -> None:
        """Discard the least loss, before a change of the loss."""
        self.least, self.since = float("inf"), 0

    def finish(self, stopped: str) -> History:
        """Restore the best parameters; returns the history.

        Args:
            stopped: reason for the end of training.
        """
        with torch.no_grad():
            for p, value in zip(self.parameters, self.best, strict=True):
                p.copy_(value)
        return History(tuple(self.step), tuple(self.loss), tuple(self.validation), self.seconds, stopped)
