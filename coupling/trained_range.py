# SPDX-License-Identifier: MIT
"""The box of strains that a model was trained for, and errors and warnings outside it."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2 import StepFailed
from spon import Model

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class OutsideRange(StepFailed):
    """A strain outside the trained range of a model.

    As it is a `fe2.StepFailed`, `fe2.MacroProblem` tries a smaller step: Newton's method may have overshot.
    """


class OutsideRangeWarning(UserWarning):
    """Strains outside the trained range of a model."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRange:
    """The box of strains that a model was trained for.

    Attributes:
        lower: (d,) least strains.
        upper: (d,) largest strains.
    """

    lower: Array
    upper: Array

    @classmethod
    def of(cls, model: Model) -> "TrainedRange":
        """The range of a model."""
        return cls(*(x.detach().cpu().numpy().astype(np.float64) for x in (model.lower, model.upper)))

    def outside(self, strain: Array) -> Mask:
        """Whether strains (n, d) are outside the range."""
        return ~np.logical_and.reduce((strain >= self.lower) & (strain <= self.upper), axis=1)

    def require(self, strain: Array) -> None:
        """Raise OutsideRange with the worst strain unless all strains (n, d) are in the range."""
        if self.outside(strain).any():
            raise OutsideRange(self._describe(strain))

    def warn(self, strain: Array, comm: MPI.Comm) -> None:
        """Warn on rank 0 with the worst strain of each rank that has some outside (collective)."""
        found = comm.gather(self._describe(strain) if self.outside(strain).any() else None)
        shown = [f"rank {rank}: {text}" for rank, text in enumerate(found or ()) if text]
        if shown:
            warnings.warn("; ".join(shown), OutsideRangeWarning, stacklevel=3)

    def _describe(self, strain: Array) -> str:
        """The component that is farthest outside, in units of the range's width."""
        beyond = np.maximum(self.lower - strain, strain - self.upper) / (self.upper - self.lower)
        point, k = np.unravel_index(int(beyond.argmax()), beyond.shape)
        count = int(self.outside(strain).sum())
        return (
            f"{count} of {len(strain)} strains on this rank are outside the trained range; farthest is component "
            f"{k} of point {point}, {strain[point, k]:.9g}, need {self.lower[k]:.9g} to {self.upper[k]:.9g}"
        )
