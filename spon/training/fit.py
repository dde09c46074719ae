# SPDX-License-Identifier: MIT
"""Fitting parameters: Adam to begin with, then L-BFGS on the full batch, with early stop on a validation loss."""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spon.training.checkpoint import Progress
from spon.training.ranks import Ranks


@dataclass(slots=True)
class History:
    """step, loss, validation: lists of what was recorded. seconds: in all. stopped: why."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = "all steps done"

    def then(self, other: "History") -> "History":
        """This and another one that followed it."""
        return History(
            self.step + [self.step[-1] + k for k in other.step],
            self.loss + other.loss,
            self.validation + other.validation,
            self.seconds + other.seconds,
            other.stopped,
        )


class Watch:
    """Records losses and keeps the parameters of the least validation loss.

    Args:
        patience: looks without improvement (by one per cent) after which it is time to stop.
        log: takes a line now and then; None for silence.
    """

    def __init__(self, parameters: list[Tensor], patience: int, log: Callable[[str], None] | None):
        self.parameters, self.patience, self.log = parameters, patience, log
        self.history, self.begin = History(), time.monotonic()
        self.best, self.best_state, self.since = float("inf"), [p.detach().clone() for p in parameters], 0

    def look(self, step: int, name: str, loss: float, checked: float) -> bool:
        """Record; True when it is time to stop. Raises FloatingPointError if the first loss is not finite."""
        self.history.step.append(step)
        self.history.loss.append(loss)
        self.history.validation.append(checked)
        self.since = 0 if checked < 0.99 * self.best else self.since + 1
        if checked < self.best:
            self.best, self.best_state = checked, [p.detach().clone() for p in self.parameters]
        if self.log is not None:
            seconds = time.monotonic() - self.begin
            self.log(f"{name} {step}: loss {loss:.3e}, validation {checked:.3e}, {seconds:.0f} s")
        if not (self.history.loss[0] < float("inf") and self.best < float("inf")):
            raise FloatingPointError(f"at the start the loss is {loss}, in validation {checked}")
        return self.since >= self.patience or not checked < float("inf")

    def restart(self) -> None:
        """What follows is not to be compared with what was recorded."""
        self.best, self.since = float("inf"), 0

    def end(self) -> History:
        """Go back to the best parameters."""
        with torch.no_grad():
            for p, value in zip(self.parameters, self.best_state, strict=True):
                p.copy_(value)
        self.history.seconds = time.monotonic() - self.begin
        return self.history


def fit(
    parameters: Iterable[Tensor],
    loss: Callable[[], Tensor],
    validation: Callable[[], Tensor],
    *,
    adam: int = 300,
    lbfgs: int = 2000,
    rate: float = 3e-3,
    every: int = 50,
    patience: int = 6,
    memory: int = 50,
    log: Callable[[str], None] | None = None,
) -> History:
    """Minimise `loss` over `parameters`; they end where the validation loss was least.

    Args:
        loss, validation: full-batch losses at the present parameters.
        adam: steps of Adam with the learning rate `rate`. lbfgs: iterations of L-BFGS with `memory` pairs.
        every: iterations between two looks at the validation loss.
        patience: looks without improvement (by one per cent) after which it stops.
        log: takes a line now and then; None for silence.

    Raises:
        FloatingPointError: a loss that is not finite at the start.
    """
    parameters = [p for p in parameters if p.requires_grad]
    watch = Watch(parameters, patience, log)

    def look(step: int, name: str) -> bool:
        with torch.no_grad():
            return watch.look(step, name, float(loss()), float(validation()))

    look(0, "start")
    optimiser = torch.optim.Adam(parameters, rate)
    for _ in range(adam):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    if adam:
        look(adam, "Adam")
    quasi_newton = torch.optim.LBFGS(
        parameters, max_iter=every, history_size=memory, line_search_fn="strong_wolfe", tolerance_grad=0.0,
        tolerance_change=0.0,
    )  # fmt: skip

    def closure() -> Tensor:
        quasi_newton.zero_grad()
        value = loss()
        value.backward()
        return value

    for step in range(0, lbfgs, every):
        (group,) = quasi_newton.param_groups
        group["max_iter"] = min(every, lbfgs - step)
        quasi_newton.step(closure)
        if look(adam + step + group["max_iter"], "L-BFGS"):
            watch.history.stopped = f"no better validation in {patience * every} iterations"
            break
    return watch.end()


def fit_samples(
    parameters: Iterable[Tensor],
    loss: Callable[[Tensor], Tensor],
    learn: Tensor,
    check: Tensor,
    *,
    steps: int,
    batch: int,
    rate: float,
    every: int,
    patience: int,
    generator: torch.Generator,
    changes: Mapping[int, Callable[[], None]] | None = None,
    comm: Any = None,
    checkpoint: str | os.PathLike | None = None,
    log: Callable[[str], None] | None = None,
) -> History:
    """AdamW on batches of samples, its learning rate along a cosine; otherwise as `fit`.

    After Loshchilov & Hutter (arXiv 1608.03983, 1711.05101).

    Args:
        loss: mean over samples with given numbers (n,). learn, check: numbers of those to learn from and to validate
            with.
        steps: in all, with `batch` samples each and the largest learning rate `rate`. generator: of the batches.
        changes: to the loss, before steps with these numbers; only after the last may it stop early.
        comm: ranks that share each batch, with the same arguments on all (collective); None for this one alone.
        checkpoint: a file that is written at each look and, if it is there, gone on from: to the same parameters, on
            the same number of ranks. It is removed in the end.

    Raises:
        ValueError: a checkpoint of other steps, batches, rates, samples or parameters.
    """
    fitted, ranks = [p for p in parameters if p.requires_grad], Ranks(comm)
    pending = dict(sorted((changes or {}).items()))
    watch = Watch(fitted, patience, log if ranks.first else None)
    optimiser = torch.optim.AdamW(fitted, rate, weight_decay=1e-5)

    def share(step: int) -> float:
        """Of the learning rate: up over the first tenth, and down along a cosine."""
        return min(10 * (step + 1) / steps, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2

    def mean(which: Tensor) -> float:
        """The loss of many samples, some at a time."""
        parts = ranks.share(which).split(batch)

        def work() -> Tensor:
            with torch.no_grad():
                found = [len(part) * loss(part) for part in parts if len(part)]
                return sum(found, torch.zeros((), dtype=torch.float64))

        return float(ranks.sum(work)) / len(which)

    def gradient(which: Tensor) -> Tensor:
        """Leave the gradient of the loss of some samples in the parameters; returns the loss."""
        mine = ranks.share(which)
        if ranks.alone:
            value = loss(mine)
            value.backward()
            return value.detach()

        def work() -> Tensor:
            if not len(mine):
                return torch.zeros(1 + sum(sizes), dtype=fitted[0].dtype, device=fitted[0].device)
            value = loss(mine) * (len(mine) / len(which))
            value.backward()
            return torch.cat([value.detach().reshape(1), *(_gradient(p) for p in fitted)])

        value, *parts = ranks.sum(work).split([1, *sizes])
        for p, part in zip(fitted, parts):
            p.grad = part.view_as(p)
        return value[0]

    sizes, queue, recent, first = [p.numel() for p in fitted], learn[:0], [], 1
    about = {"steps": steps, "batch": batch, "rate": rate, "every": every, "learn": len(learn), "check": len(check)}
    saved = Progress.read(checkpoint, about) if checkpoint is not None and Path(checkpoint).exists() else None
    if saved is None:
        watch.look(0, "start", mean(learn[:batch]), mean(check))
    else:
        first, queue = saved.restore(fitted, optimiser, watch, generator)
        queue = queue.to(learn.device)
        while pending and next(iter(pending)) < first:
            pending.pop(next(iter(pending)))()
    for step in range(first, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * share(step - 1)
        if step in pending:
            pending.pop(step)()
            watch.restart()
        if len(queue) < min(batch, len(learn)):
            queue = learn[torch.randperm(len(learn), generator=generator).to(learn.device)]
        now, queue = queue[:batch], queue[batch:]
        optimiser.zero_grad()
        recent.append(gradient(now))
        torch.nn.utils.clip_grad_norm_(fitted, 1.0)
        optimiser.step()
        if step % every == 0 or step == steps:
            enough = watch.look(step, "AdamW", float(torch.stack(recent).mean()), mean(check))
            if enough and not (pending and math.isfinite(watch.history.validation[-1])):
                watch.history.stopped = f"no better validation in {patience * every} steps"
                break
            recent = []
            if checkpoint is not None and ranks.first and step < steps:
                Progress.of(step, queue, fitted, optimiser, watch, generator).save(checkpoint, about)
    if checkpoint is not None and ranks.first:
        Path(checkpoint).unlink(missing_ok=True)
    return watch.end()


def _gradient(p: Tensor) -> Tensor:
    """As a vector; of a parameter that had no part in the loss it is zero."""
    return (torch.zeros_like(p) if p.grad is None else p.grad).flatten()


def fit_in_batches(
    parameters: Iterable[Tensor],
    loss: Callable[[Tensor], Tensor],
    strains: Tensor,
    check: Tensor,
    *,
    adam: int,
    batch: int,
    lbfgs: int,
    seed: int,
    log: Callable[[str], None] | None = None,
) -> History:
    """The published schedule: Adam, one batch of strains a step, then L-BFGS with 100 pairs on all, without early stop.

    Args:
        loss: of strains (n, d). strains: to learn at. check: to validate at. adam, lbfgs: iterations. batch: strains in
        a step of Adam, whose learning rate is 1e-3. seed: of the batches.
    """
    parameters = [p for p in parameters if p.requires_grad]
    optimiser, generator = torch.optim.Adam(parameters, 1e-3), torch.Generator().manual_seed(seed)
    begin = time.monotonic()
    for _ in range(adam):
        optimiser.zero_grad()
        loss(strains[torch.randperm(len(strains), generator=generator)[:batch]]).backward()
        optimiser.step()
    before = time.monotonic() - begin
    history = fit(
        parameters, lambda: loss(strains), lambda: loss(check), adam=0, lbfgs=lbfgs, memory=100, patience=lbfgs, log=log
    )
    history.seconds += before
    return history
