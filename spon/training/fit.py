# SPDX-License-Identifier: MIT
"""Fitting parameters: Adam first, then L-BFGS on all samples; both stop early on a validation loss."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spon.training.adamw import adamw
from spon.training.best import BestParameters
from spon.training.options import TrainingOptions
from spon.training.ranks import Ranks, SharedLoss
from spon.training.result import History

Log = Callable[[str], None] | None

FULL_BATCH = TrainingOptions(steps=300, lbfgs=2000, every=50, patience=6)  # where all samples fit in one step


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
