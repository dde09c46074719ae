# SPDX-License-Identifier: MIT
"""Fitting parameters to samples: AdamW on batches, with a cosine schedule of the learning rate, then L-BFGS on all.

The state is kept in a checkpoint at each evaluation of AdamW. Several ranks may share each batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spon.training.checkpoint import TrainingCheckpoint, TrainingState
from spon.training.fit import FULL_BATCH, BestParameters, Log, fit
from spon.training.options import TrainingOptions
from spon.training.ranks import Ranks, SharedLoss
from spon.training.result import History

WEIGHT_DECAY = 1e-5  # small compared with the relative losses; unused weights do not grow
LARGEST_GRADIENT = 1.0  # norm above which gradients are clipped


def rate_factor(step: int, *, steps: int) -> float:
    """Learning rate relative to the largest: up over the first tenth of the steps, then down along a cosine."""
    return min(10 * (step + 1) / steps, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2


def fit_samples(
    parameters: Iterable[Tensor],
    loss: Callable[[Tensor], Tensor],
    samples: int,
    options: TrainingOptions,
    *,
    generator: torch.Generator | None = None,
    changes: Mapping[int, Callable[[], None]] | None = None,
    comm: Any = None,
    log: Log = None,
) -> History:
    """AdamW on batches of samples with a cosine schedule of the learning rate, then L-BFGS as in `fit`.

    After Loshchilov & Hutter (arXiv 1608.03983, 1711.05101).

    Args:
        parameters: fitted in place, to the values of the least validation loss.
        loss: mean over samples with given numbers (n,).
        samples: number of samples; some are held out for validation.
        options: steps, batch, rate, ...
        generator: draws the held-out samples and the batches; None for one with the seed of the options.
        changes: step → change of the loss before it; training may stop early after the last one.
        comm: ranks that share each batch, with the same arguments on all (collective); None for this rank alone. Each
            rank runs all of L-BFGS.
        log: called with a line at each evaluation on the first rank; None for none.

    Raises:
        ValueError: no validation samples, or a checkpoint of other steps, batches, rates or samples.
        ModelFileError: a checkpoint that is damaged or of other parameters.
        FloatingPointError: a loss that is not finite at the start.
    """
    fitted, ranks = [p for p in parameters if p.requires_grad], Ranks(comm)
    log = log if ranks.first else None
    held_out = options.held_out(samples)
    if generator is None:
        generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(samples, generator=generator).to(fitted[0].device)
    check, learn = order[:held_out], order[held_out:]
    history = adamw(SharedLoss(fitted, loss, ranks), learn, check, options, generator, changes=changes or {}, log=log)
    if options.lbfgs:
        settings = replace(FULL_BATCH, steps=0, lbfgs=options.lbfgs)
        history = history.then(fit(fitted, lambda: loss(learn), lambda: loss(check), settings, log=log))
    return history


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
    """Fit the parameters of a loss; see `fit_samples`.

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
