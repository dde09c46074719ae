# SPDX-License-Identifier: MIT
"""Fitting parameters: Adam first, then L-BFGS on all samples, to the parameters of the least validation loss."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from spon.training.options import TrainingOptions
from spon.training.result import History

Log = Callable[[str], None] | None

FULL_BATCH = TrainingOptions(steps=300, lbfgs=2000, every=50, patience=6)  # where all samples fit in one step


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


def fit(
    parameters: Iterable[Tensor],
    loss: Callable[[], Tensor],
    validation: Callable[[], Tensor],
    options: TrainingOptions = FULL_BATCH,
    *,
    memory: int = 50,
    log: Log = None,
) -> History:
    """Minimise `loss` over `parameters`, which get the values of the least validation loss.

    Args:
        parameters: fitted in place.
        loss: of all samples at the present parameters.
        validation: loss of the validation samples.
        options: steps and rate of Adam, iterations of L-BFGS; `every` and `patience` count the latter.
        memory: pairs that L-BFGS keeps.
        log: called with lines of progress; None for none.

    Raises:
        FloatingPointError: a loss that is not finite at the start.
    """
    fitted = [p for p in parameters if p.requires_grad]
    best = BestParameters(fitted, options.patience, log)

    def record(step: int, name: str) -> bool:
        with torch.no_grad():
            return best.record(step, name, float(loss()), float(validation()))

    record(0, "start")
    optimiser = torch.optim.Adam(fitted, options.rate)
    for _ in range(options.steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    if options.steps:
        record(options.steps, "Adam")
    quasi_newton = torch.optim.LBFGS(
        fitted, max_iter=options.every, history_size=memory, line_search_fn="strong_wolfe", tolerance_grad=0.0,
        tolerance_change=0.0,
    )  # fmt: skip

    def closure() -> Tensor:
        quasi_newton.zero_grad()
        value = loss()
        value.backward()
        return value

    for step in range(0, options.lbfgs, options.every):
        (group,) = quasi_newton.param_groups
        group["max_iter"] = min(options.every, options.lbfgs - step)
        quasi_newton.step(closure)
        if record(options.steps + step + group["max_iter"], "L-BFGS"):
            return best.finish(f"no better validation in {options.patience * options.every} iterations")
    return best.finish("all steps done")


def fit_in_batches(
    parameters: Iterable[Tensor],
    loss: Callable[[Tensor], Tensor],
    strains: Tensor,
    check: Tensor,
    options: TrainingOptions,
    *,
    log: Log = None,
) -> History:
    """The published schedule: Adam on batches of strains, then L-BFGS with 100 pairs on all, without early stop.

    Args:
        parameters: fitted in place.
        loss: of strains (n, d).
        strains: (n, d) to train at.
        check: (n, d) to validate at.
        options: steps, batch, rate and seed of Adam, iterations of L-BFGS.
        log: called with lines of progress; None for none.

    Raises:
        FloatingPointError: a loss that is not finite after Adam.
    """
    fitted = [p for p in parameters if p.requires_grad]
    optimiser, generator = torch.optim.Adam(fitted, options.rate), torch.Generator().manual_seed(options.seed)
    begin = time.monotonic()
    for _ in range(options.steps):
        optimiser.zero_grad()
        loss(strains[torch.randperm(len(strains), generator=generator)[: options.batch]]).backward()
        optimiser.step()
    before = time.monotonic() - begin
    settings = replace(FULL_BATCH, steps=0, lbfgs=options.lbfgs, patience=options.lbfgs)
    history = fit(fitted, lambda: loss(strains), lambda: loss(check), settings, memory=100, log=log)
    return replace(history, seconds=history.seconds + before)
