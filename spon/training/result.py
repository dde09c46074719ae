# SPDX-License-Identifier: MIT
"""Results of a training: the model and the history of its losses."""

import warnings
from dataclasses import dataclass
from typing import Generic, TypeVar

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class History:
    """History of the losses.

    Args:
        step: numbers of the steps at which the losses were evaluated.
        loss: mean loss since the previous evaluation.
        validation: loss of the validation samples.
        seconds: total wall time.
        stopped: reason for the end of training.
    """

    step: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    validation: tuple[float, ...] = ()
    seconds: float = 0.0
    stopped: str = "all steps done"

    def then(self, other: "History") -> "History":
        """This history followed by `other`."""
        return History(
            self.step + tuple(self.step[-1] + k for k in other.step),
            self.loss + other.loss,
            self.validation + other.validation,
            self.seconds + other.seconds,
            other.stopped,
        )


def _moved(name: str) -> property:
    """An attribute of the history that `train` itself returned until the last release."""

    def get(result: "TrainingResult"):
        warnings.warn(f"result.{name} is now result.history.{name}", DeprecationWarning, stacklevel=2)
        return getattr(result.history, name)

    return property(get, doc=f"Deprecated: `history.{name}`.")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult(Generic[Model]):
    """A trained model and its history.

    Args:
        model: the trained model, with the parameters of the least validation loss.
        history: of the losses.
    """

    model: Model
    history: History

    step = _moved("step")
    loss = _moved("loss")
    validation = _moved("validation")
    seconds = _moved("seconds")
    stopped = _moved("stopped")
