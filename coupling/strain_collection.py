# SPDX-License-Identifier: MIT
"""Strains to add to the training set: one for each small box of strains at which the error of a model was too large."""

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[np.float64]

_BOX = 0.05  # width of a box, as a fraction of the trained range


class StrainCollection:
    """The largest strain of each box, so that the choice does not depend on the order of the points.

    Args:
        width: (d,) of the trained range.
    """

    def __init__(self, width: Array):
        self._box = _BOX * width
        self._largest: dict[tuple[int, ...], Array] = {}

    def add(self, strain: Array) -> None:
        """Add strains (n, d)."""
        boxes = np.round(strain / self._box).astype(np.int64)
        for k in range(len(strain)):
            _keep_larger(self._largest, tuple(map(int, boxes[k])), strain[k])

    def gather(self, comm: MPI.Comm) -> Array:
        """Strains (k, d) of all ranks, the same on all of them (collective)."""
        found: dict[tuple[int, ...], Array] = {}
        for part in comm.allgather(self._largest):
            for box, value in part.items():
                _keep_larger(found, box, value)
        return np.array([found[box] for box in sorted(found)]).reshape(-1, len(self._box))


def _keep_larger(known: dict[tuple[int, ...], Array], box: tuple[int, ...], value: Array) -> None:
    if box not in known or _order(value) > _order(known[box]):
        known[box] = value.copy()


def _order(strain: Array) -> tuple[float, ...]:
    """Strains are compared by norm, and by components where the norms are equal."""
    return (float(strain @ strain), *map(float, strain))
