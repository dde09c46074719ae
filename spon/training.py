# SPDX-License-Identifier: MIT
"""Fitting parameters: Adam to begin with, then L-BFGS on the full batch, with early stop on a validation loss."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor


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
    history, begin = History(), time.monotonic()
    best, best_state, since = float("inf"), [p.detach().clone() for p in parameters], 0

    def look(step: int, name: str) -> bool:
        """Record; True when it is time to stop."""
        nonlocal best, best_state, since
        with torch.no_grad():
            now, checked = float(loss()), float(validation())
        history.step.append(step)
        history.loss.append(now)
        history.validation.append(checked)
        since = 0 if checked < 0.99 * best else since + 1
        if checked < best:
            best, best_state = checked, [p.detach().clone() for p in parameters]
        if log is not None:
            log(f"{name} {step}: loss {now:.3e}, validation {checked:.3e}, {time.monotonic() - begin:.0f} s")
        return since >= patience or not checked < float("inf")

    look(0, "start")
    if not (history.loss[0] < float("inf") and best < float("inf")):
        raise FloatingPointError(f"at the start the loss is {history.loss[0]}, in validation {history.validation[0]}")
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
            history.stopped = f"no better validation in {patience * every} iterations"
            break
    with torch.no_grad():
        for p, value in zip(parameters, best_state, strict=True):
            p.copy_(value)
    history.seconds = time.monotonic() - begin
    return history


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
