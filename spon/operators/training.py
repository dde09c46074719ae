# SPDX-License-Identifier: MIT
"""Training operator networks, time series by rollout, and errors in norms of the output space."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from spon.operators.network import OperatorNetwork
from spon.spaces import norms
from spon.training.adamw import fit_samples
from spon.training.deprecated import takes_old_keywords
from spon.training.options import TrainingOptions
from spon.training.result import TrainingResult

NORMS = {"L2": norms.l2, "H1": norms.natural, "energy": norms.seminorm}


@takes_old_keywords
def train(
    network: OperatorNetwork,
    inputs: Tensor | Sequence[Tensor],
    outputs: Tensor | None = None,
    options: TrainingOptions = TrainingOptions(),
    *,
    norm: str = "L2",
    loss: Callable[..., Tensor] | None = None,
    nested: Sequence[float] = (),
    comm: Any = None,
    log: Callable[[str], None] | None = None,
) -> TrainingResult[OperatorNetwork]:
    """Train a network in place to minimise the mean relative error, the mean of a `loss`, or their sum.

    AdamW with a learning rate that decreases to zero, then L-BFGS on all samples: `spon.training.adamw.fit_samples`.
    The network gets the parameters of the least validation loss.

        result = operators.train(network, f, u, TrainingOptions(steps=800), log=print)
        min(result.history.validation)

    Args:
        network: changed in place.
        inputs: (dofs, samples), one for each input field.
        outputs: (dofs, samples), or (n, dofs, samples) of n steps of a `rollout`, whose mean error is then the loss;
            None to train on the loss alone.
        options: steps, rate, seed, ...
        norm: "L2", "H1" (that of H(div) or H(curl) where these are) or "energy" (the seminorm), of the output's space;
            of a mixed one, the mean of the relative errors of its parts.
        loss: (batch,) of predictions (dofs, batch) and their inputs (dofs, batch). `coupling.Residual` makes one of a
            form in UFL.
        nested: for the processor "fluxes", fractions of the steps whose rounds are on coarser spaces, from coarser to
            finer, e.g. (0.4, 0.4): two spaces coarser for four tenths of the steps, one for as many, then the
            output's own. Such steps take a fraction of the time, and the learned law is valid on finer spaces, too, if
            the coarsest of them has about four elements along an edge.
        comm: a communicator of mpi4py, whose ranks share each batch; all have the same samples and end with the same
            network (collective).
        log: called with a line at each evaluation, on the first rank.

    Raises:
        ValueError: fractions that leave no step, or another processor; neither outputs nor a loss, fields of other
            shapes, an unknown norm, or samples whose relative error is not defined.
        FloatingPointError: a loss that is not finite at the start.
    """
    fields = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if nested and not (network.processor.nests and min(nested) > 0 and sum(nested) < 1):
        raise ValueError(
            f"nested = {tuple(nested)}: need positive fractions with a sum below 1 and the processor 'fluxes'"
        )
    following = _states(network, fields, outputs, norm, loss)
    samples = fields[0].shape[-1]
    options.held_out(samples)  # raises before the network changes
    if following is None:
        network.normalise_by(fields, loss)
    else:
        network.normalise(fields, following[:, 0])

    def objective(which: Tensor) -> Tensor:
        some = [x[:, which] for x in fields]
        predicted = network(*some)
        parts = []
        if following is not None:
            right = following[:, :, which]
            steps = right.shape[1]
            found = predicted[:, None] if steps == 1 else rollout(network, some, steps)[1:].movedim(0, 1)
            parts.append(norms.relative(NORMS[norm], network.spaces.answer, found, right).mean())
        if loss is not None:
            parts.append(loss(predicted, *some).mean())
        return sum(parts[1:], parts[0])

    ends = [round(options.steps * share) for share in accumulate(nested)]
    changes = {end + 1: partial(network.processor.coarsen, len(nested) - k) for k, end in enumerate(ends, 1)}
    try:
        if nested:
            network.processor.coarsen(len(nested))
        history = fit_samples(network.parameters(), objective, samples, options, changes=changes, comm=comm, log=log)
    finally:
        if nested:
            network.processor.coarsen(0)
    return TrainingResult(network, history)


def _states(
    network: OperatorNetwork,
    fields: list[Tensor],
    outputs: Tensor | None,
    norm: str,
    loss: Callable[..., Tensor] | None,
) -> Tensor | None:
    """The target outputs (dofs, n, samples) of n steps, or None; raises ValueError for fields that do not fit."""
    space = network.spaces.answer
    if norm not in NORMS:
        raise ValueError(f"norm = {norm!r}, need one of {', '.join(map(repr, NORMS))}")
    if outputs is None and loss is None:
        raise ValueError("neither outputs nor a loss: need one or both")
    samples = fields[0].shape[-1] if outputs is None else outputs.shape[-1]
    if outputs is not None and (outputs.shape[-2:] != (space.dofs, samples) or outputs.ndim > 3):
        raise ValueError(f"outputs have the shape {tuple(outputs.shape)}, need ({space.dofs}, samples)")
    if any(x.shape[-1] != samples for x in fields):
        sizes = [x.shape[-1] for x in fields]
        raise ValueError(f"inputs have {sizes} samples" + (f", outputs {samples}" if outputs is not None else ""))
    if outputs is None:
        return None
    following = (outputs if outputs.ndim == 3 else outputs[None]).movedim(0, 1)
    for part, x in norms.split(space, following):
        if not bool((size := NORMS[norm](part, x).amin(0)).all()):
            raise ValueError(f"outputs[:, {int(size.argmin())}] has the norm zero, and no relative error")
    return following


def rollout(network: OperatorNetwork, start: Tensor | Sequence[Tensor], steps: int) -> Tensor:
    """States (steps + 1, dofs, batch): the start, then the prediction from each previous state.

    Args:
        network: with an input in the space of its output.
        start: (dofs, batch), one for each input field. The first one in the output's space is the state; the others
            are kept.
        steps: number of steps.

    Raises:
        ValueError: a network without such an input, no steps, or fields of other shapes.
    """
    fields, k = [start] if isinstance(start, Tensor) else list(start), network.spaces.same
    if k is None:
        raise ValueError("a rollout needs an input in the space of the output")
    if steps < 1:
        raise ValueError(f"steps = {steps}: need at least 1")
    if len(fields) <= k:
        raise ValueError(f"got {len(fields)} inputs, need {len(network.spaces.encoders)}")
    states = [fields[k]]
    for _ in range(steps):
        states.append(network(*fields[:k], states[-1], *fields[k + 1 :]))
    return torch.stack(states)


@torch.no_grad()
def relative_errors(
    network: OperatorNetwork, inputs: Tensor | Sequence[Tensor], outputs: Tensor, *, norm: str = "L2", batch: int = 64
) -> Tensor:
    """Relative errors (samples,) of a network's predictions.

    Args:
        network: trained or not.
        inputs: (dofs, samples), one for each input field.
        outputs: (dofs, samples), the exact ones.
        norm: see `train`.
        batch: samples at a time.
    """
    fields = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    parts = []
    for which in torch.arange(outputs.shape[1], device=outputs.device).split(batch):
        predicted = network(*(x[:, which] for x in fields))
        parts.append(norms.relative(NORMS[norm], network.spaces.answer, predicted, outputs[:, which]))
    return torch.cat(parts)
