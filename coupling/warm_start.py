# SPDX-License-Identifier: MIT
"""Initial guess of exact solutions: the last fluctuation, corrected by the change that the model predicts."""

import numpy as np
import numpy.typing as npt
import torch

from fe2 import Law
from fe2.state import layout_of
from spon import EquiNO

Array = npt.NDArray[np.float64]


class WarmStart:
    """Moves the fluctuations in the rows of an exact law from their last strain to a new one.

    It saves about one Newton iteration of each solution. Rows do not change for a model that was loaded without its
    modes, or a law without an RVE.

    Args:
        model: the model, on the CPU in float64.
        law: the exact law.
    """

    def __init__(self, model: EquiNO, law: Law):
        self._model, self._layout = model, layout_of(law)
        self._modes: Array | None = None  # (unknowns, r), displacement modes as fluctuations of the RVE
        rve = getattr(law, "rve", None)
        if rve is not None and model.is_whole and "fluctuation" in self._layout:
            unknowns, dofs = np.unique(rve.unknowns.index, return_index=True)
            self._modes = np.ascontiguousarray(model.rve_modes.displacements[dofs[unknowns >= 0]])

    @torch.no_grad()
    def __call__(self, rows: Array, strain: Array) -> Array:
        """New rows (n, size), from rows (n, size) of the law and strains (n, d) in the trained range."""
        if self._modes is None:
            return rows
        moved = rows.copy()
        last = self._layout.view(rows, "strain")
        now, then = (self._model.displacement(torch.from_numpy(np.ascontiguousarray(e))) for e in (strain, last))
        self._layout.view(moved, "fluctuation")[:] += (now - then).numpy() @ self._modes.T
        return moved
