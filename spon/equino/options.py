# SPDX-License-Identifier: MIT
"""Options and results of EquiNO's training."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spon.equino.model import EquiNO
from spon.reduced.bases import Bases
from spon.training import History

_LEAST_SAMPLES = 4  # a quarter of them is selected by the errors of the networks fitted to the others


def _check(samples: int) -> None:
    if samples < _LEAST_SAMPLES:
        raise ValueError(f"samples = {samples}: need at least {_LEAST_SAMPLES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EquiNOOptions:
    """Sizes of EquiNO and length of its training.

    Args:
        r: number of displacement and of stress modes, at most.
        resolved: number of displacement modes of the reduced model that gives the training targets, at most.
        samples: strains to train at, 4 or more.
        width: of the two hidden layers of the potential.
        widths: of the hidden layers of the branches.
        norms: norms of the strain that each network takes.
        lbfgs: iterations of L-BFGS for each network, at most.
        seed: of strains and initial weights.

    Raises:
        ValueError: too few samples.
    """

    r: int = 16
    resolved: int = 32
    samples: int = 1024
    width: int = 24
    widths: tuple[int, ...] = (48, 48)
    norms: int = 8
    lbfgs: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitOptions:
    """Sizes of the bases and length of the training that continues from a model.

    Args:
        r: number of displacement and of stress modes, at most; None for the number of stress modes of the model.
        resolved: as in `EquiNOOptions`.
        samples: as in `EquiNOOptions`.
        lbfgs: as in `EquiNOOptions`.
        seed: of the strains.

    Raises:
        ValueError: too few samples.
    """

    r: int | None = None
    resolved: int = 32
    samples: int = 1024
    lbfgs: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class EquiNOTraining:
    """A trained model, its bases and the histories of its networks.

    Until the last release it was the tuple (model, bases, histories); unpacking and indexing still work and warn.

    Args:
        model: the trained model, with its RVE modes.
        histories: of the networks "potential", "displacement" and "self-stress".
        bases: of the RVE.
    """

    model: EquiNO
    histories: dict[str, History]
    bases: Bases

    def _as_tuple(self) -> tuple[Any, ...]:
        text = "model, bases, histories = ... is now result = ...; result.model, result.bases, result.histories"
        warnings.warn(text, DeprecationWarning, stacklevel=3)
        return self.model, self.bases, self.histories

    def __iter__(self) -> Iterator[Any]:
        return iter(self._as_tuple())

    def __getitem__(self, k: int) -> Any:
        return self._as_tuple()[k]
