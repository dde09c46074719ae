# SPDX-License-Identifier: MIT
"""Ranks that train one network together, each on its share of every batch."""

import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Ranks:
    """The ranks of a communicator of mpi4py, or this process alone.

    Args:
        comm: the same on all ranks, or None (`spon` does not import mpi4py).
    """

    def __init__(self, comm: Any = None):
        self._comm = comm if comm is not None and comm.size > 1 else None

    @property
    def alone(self) -> bool:
        """Whether this is the only rank."""
        return self._comm is None

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self._comm is None or self._comm.rank == 0

    def share(self, which: Tensor) -> Tensor:
        """This rank's share of a tensor; the shares differ in length by one at most.

        Args:
            which: (n, ...), the same on all ranks.
        """
        return which if self._comm is None else which.tensor_split(self._comm.size)[self._comm.rank]

    def sum(self, work: Callable[[], Tensor]) -> Tensor:
        """The sum over all ranks of the tensor that `work` returns, bitwise equal on all of them (collective).

        An error of `work` on one rank is raised on all.

        Args:
            work: computes this rank's term; not collective.
        """
        if self._comm is None:
            return work()
        found, error = None, None
        try:
            found = work()
        except Exception as e:
            error = e
        errors = self._comm.allgather(None if error is None else _portable(error))
        if error is not None:
            raise error
        for other in errors:
            if other is not None:
                raise other
        assert found is not None
        mine = found.detach().cpu().numpy()
        # Each rank adds all terms in the order of the ranks, so that the order of messages does not matter.
        total = sum(self._comm.allgather(mine))
        return torch.as_tensor(total, dtype=found.dtype).to(found.device)


def _portable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


class SharedLoss:
    """The mean loss of samples and its gradient; each rank computes its share of the samples.

    Args:
        parameters: fitted tensors.
        loss: mean over samples with given numbers (n,).
        ranks: that share the samples.
    """

    def __init__(self, parameters: list[Tensor], loss: Callable[[Tensor], Tensor], ranks: Ranks):
        self.parameters, self.ranks, self._loss = parameters, ranks, loss
        self._sizes = [p.numel() for p in parameters]

    def mean(self, which: Tensor, batch: int) -> float:
        """The loss of samples, without gradient.

        Args:
            which: (n,), their numbers.
            batch: samples at a time.
        """
        parts = self.ranks.share(which).split(batch)

        def work() -> Tensor:
            with torch.no_grad():
                found = [len(part) * self._loss(part) for part in parts if len(part)]
                return sum(found, torch.zeros((), dtype=torch.float64))

        return float(self.ranks.sum(work)) / len(which)

    def backward(self, which: Tensor) -> Tensor:
        """The loss () of samples; its gradient is added to that of the parameters.

        Args:
            which: (n,), their numbers.
        """
        mine = self.ranks.share(which)
        if self.ranks.alone:
            value = self._loss(mine)
            value.backward()
            return value.detach()

        def work() -> Tensor:
            if not len(mine):
                first = self.parameters[0]
                return torch.zeros(1 + sum(self._sizes), dtype=first.dtype, device=first.device)
            value = self._loss(mine) * (len(mine) / len(which))
            value.backward()
            return torch.cat([value.detach().reshape(1), *(_gradient(p) for p in self.parameters)])

        value, *parts = self.ranks.sum(work).split([1, *self._sizes])
        for p, part in zip(self.parameters, parts, strict=True):
            p.grad = part.view_as(p)
        return value[0]


def _gradient(p: Tensor) -> Tensor:
    """The gradient as a vector; zero for a parameter that the loss does not depend on."""
    return (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
