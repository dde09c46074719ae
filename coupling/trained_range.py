# SPDX-License-Identifier: MIT
"""The box of strains that a model was trained for, and errors and warnings outside it."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from fe2 import StepFailed
from spon import Model
from spon.constitutive import Measure

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
    """The box of strains that a model was trained for, at finite strain of the Mandel components of U − I.

    Attributes:
        lower: (s,) least coordinates, see `spon.constitutive.Measure`.
        upper: (s,) largest coordinates.
        measure: of the model.
    """

    lower: Array
    upper: Array
    measure: Measure

    @classmethod
    def of(cls, model: Model) -> "TrainedRange":
        """The range of a model."""
        lower, upper = (x.detach().cpu().numpy().astype(np.float64) for x in (model.lower, model.upper))
        return cls(lower, upper, model.measure)

    def coordinates(self, strain: Array) -> Array:
        """Coordinates (n, s) of strains (n, d)."""
        if not self.measure.finite:
            return strain
        return np.asarray(self.measure.coordinates(torch.from_numpy(np.ascontiguousarray(strain))).numpy())

    def strain(self, coordinates: Array) -> Array:
        """Strains (n, d) of coordinates (n, s), without rotation."""
        return np.asarray(self.measure.strain(torch.from_numpy(np.ascontiguousarray(coordinates))).numpy())

    def outside(self, strain: Array) -> Mask:
        """Whether strains (n, d) are outside the range."""
        at = self.coordinates(strain)
        return ~np.logical_and.reduce((at >= self.lower) & (at <= self.upper), axis=1)

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
        at = self.coordinates(strain)
        beyond = np.maximum(self.lower - at, at - self.upper) / (self.upper - self.lower)
        beyond[np.isnan(beyond)] = np.inf  # det F ≤ 0
        point, k = np.unravel_index(int(beyond.argmax()), beyond.shape)
        count = int(self.outside(strain).sum())
        outside = f"{count} of {len(strain)} strains on this rank are outside the trained range"
        if self.measure.finite and np.isnan(at[point]).any():
            return f"{outside}; at point {point} det F is not positive: the strain turns it inside out"
        name = "component" if not self.measure.finite else "Mandel component of U − I, number"
        return (
            f"{outside}; farthest is {name} {k} of point {point}, {at[point, k]:.9g}, "
            f"need {self.lower[k]:.9g} to {self.upper[k]:.9g}"
        )
