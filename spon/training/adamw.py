# SPDX-License-Identifier: MIT
"""AdamW on batches of samples, with a cosine schedule of the learning rate and a checkpoint at each evaluation."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from spon.training.best import BestParameters
from spon.training.checkpoint import TrainingCheckpoint, TrainingState
from spon.training.options import TrainingOptions
from spon.training.ranks import SharedLoss
from spon.training.result import History

WEIGHT_DECAY = 1e-5  # small compared with the relative losses; unused weights do not grow
LARGEST_GRADIENT = 1.0  # norm above which gradients are clipped


def rate_factor(step: int, *, steps: int) -> float:
    """Learning rate relative to the largest: up over the first tenth of the steps, then down along a cosine."""
    return min(10 * (step + 1) / steps, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2


def adamw(
    loss: SharedLoss,
    learn: Tensor,
    check: Tensor,
    options: TrainingOptions,
    generator: torch.Generator,
    *,
    changes: Mapping[int, Callable[[], None]],
    log: Callable[[str], None] | None,
) -> History:
    """Fit the parameters of a loss; see `spon.training.fit.fit_samples`.

    Args:
        loss: loss of samples, with the fitted parameters.
        learn: (n,) numbers of the samples to train on.
        check: (n,) numbers of the validation samples.
        options: steps, batch, rate, ...
        generator: of the batches.
        changes: step → change of the loss before it; all are made by the end.
        log: called with a line at each evaluation.
    """
    pending = dict(sorted(changes.items()))
    best = BestParameters(loss.parameters, options.patience, log)
    optimiser = torch.optim.AdamW(loss.parameters, options.rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(rate_factor, steps=max(options.steps, 1)))
    state = TrainingState(loss.parameters, optimiser, schedule, best, generator, queue=learn[:0])
    checkpoint = _checkpoint(options, learn, check)
    if checkpoint is not None and checkpoint.exists():
        checkpoint.restore(state)
        while pending and next(iter(pending)) <= state.step:
            pending.pop(next(iter(pending)))()
    else:
        best.record(0, "start", loss.mean(learn[: options.batch], options.batch), loss.mean(check, options.batch))
    recent, stopped = [], "all steps done"
    while state.step < options.steps:
        state.step += 1
        if state.step in pending:
            pending.pop(state.step)()
            best.restart()
        recent.append(_step(state, loss, learn, options.batch))
        if state.step % options.every and state.step < options.steps:
            continue
        enough = best.record(state.step, "AdamW", float(torch.stack(recent).mean()), loss.mean(check, options.batch))
        if enough and not (pending and math.isfinite(best.validation[-1])):
            stopped = f"no better validation in {options.patience * options.every} steps"
            break
        recent = []
        if checkpoint is not None and loss.ranks.first and state.step < options.steps:
            checkpoint.save(state)
    for change in pending.values():
        change()
    if checkpoint is not None and loss.ranks.first:
        checkpoint.remove()
    return best.finish(stopped)


def _step(state: TrainingState, loss: SharedLoss, learn: Tensor, batch: int) -> Tensor:
    """One step on the next batch; returns its loss ()."""
    if len(state.queue) < min(batch, len(learn)):
        state.queue = learn[torch.randperm(len(learn), generator=state.generator).to(learn.device)]
    now, state.queue = state.queue[:batch], state.queue[batch:]
    state.optimiser.zero_grad()
    value = loss.backward(now)
    torch.nn.utils.clip_grad_norm_(state.parameters, LARGEST_GRADIENT)
    state.optimiser.step()
    state.schedule.step()
    return value


def _checkpoint(options: TrainingOptions, learn: Tensor, check: Tensor) -> TrainingCheckpoint | None:
    if options.checkpoint is None:
        return None
    common = {name: getattr(options, name) for name in ("steps", "batch", "rate", "every")}
    return TrainingCheckpoint(options.checkpoint, {**common, "learn": len(learn), "check": len(check)})
