# SPDX-License-Identifier: MIT
"""Image cells solved in batches by `spon.GridCells`: from materials in UFL, and as a law."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.translate import phase_law
from fe2 import Material, Response, StepFailed, arguments, mandel, together
from spon.grid import GridCells, GridNotConverged

Array = npt.NDArray[np.float64]


def grid_cells(
    labels: npt.NDArray[np.integer],
    materials: Mapping[int, Material],
    *,
    box: Sequence[float] | None = None,
    plane: str = "strain",
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> GridCells:
    """Cells (n, nx, ny) or (n, nx, ny, nz) of labels with a material for each, see `spon.GridCells`.

    Args:
        labels: as those of `meshes.from_labels`, of which every one needs a material. materials: path-independent.
        plane: "strain" or "stress", in two dimensions.

    Raises:
        ValueError: what `spon.GridCells` refuses. TranslationError: a material that torch cannot evaluate.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (3, 4):
        raise ValueError(f"labels have the shape {labels.shape}, need (n, nx, ny) or (n, nx, ny, nz)")
    laws = {tag: phase_law(material, labels.ndim - 1, plane) for tag, material in materials.items()}
    return GridCells(torch.from_numpy(labels.astype(np.int64)), laws, box=box, dtype=dtype, device=device)


class GridLaw:
    """A full-field problem on a grid at each point, of a cell of its own, solved in batches on any device.

    A state row is the number of the point's cell and the fluctuation of its nodes, from which the next solution begins.

    Args:
        labels: (n, nx, ny) or (n, nx, ny, nz) of this rank's n points, in the order of `fe2.QuadratureLaw.places`; for
            the same cell everywhere `np.broadcast_to(cell, (n, *cell.shape))`.
        materials, box, plane, dtype, device: see `grid_cells`. chunk: cells at a time.

    Raises:
        ValueError: a chunk below 1, and as `grid_cells`.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.integer],
        materials: Mapping[int, Material],
        *,
        box: Sequence[float] | None = None,
        plane: str = "strain",
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        chunk: int = 16,
    ):
        if chunk < 1:
            raise ValueError(f"chunk = {chunk}: need at least 1 cell")
        made = {"box": box, "plane": plane, "dtype": dtype, "device": device}
        self._parts = [
            grid_cells(labels[first : first + chunk], materials, **made) for first in range(0, len(labels), chunk)
        ]
        self._count, self._chunk = len(labels), chunk
        dim = labels.ndim - 1
        self._shape = (*labels.shape[1:], dim)
        self.strain_size = mandel.size(dim)
        self.state_size = 1 + int(np.prod(self._shape))

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed cells; raises ValueError for another number of points than cells."""
        if n != self._count:
            raise ValueError(f"there are {n} points on this rank and {self._count} cells")
        return np.hstack([np.arange(n)[:, None], np.zeros((n, self.state_size - 1))])

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`; all points of this rank in their order.

        Raises:
            ValueError: see there. fe2.StepFailed: on all ranks, naming a cell whose equilibrium was not found.
        """
        with together(comm):
            strain, state, guess = arguments.rows(self, strain, state, guess)
            n, d = strain.shape
            out = Response(np.empty((n, d)), np.empty((n, d, d)), guess.copy())
            if not np.array_equal(state[:, 0], np.arange(self._count)):
                raise ValueError(f"got {n} points, need all {self._count} of this rank in their order")
            for k, cells in enumerate(self._parts):
                part = slice(k * self._chunk, (k + 1) * self._chunk)
                start = torch.from_numpy(guess[part, 1:].reshape(-1, *self._shape))
                try:
                    found = cells.homogenise(torch.from_numpy(strain[part]), start=start)
                except GridNotConverged as error:
                    raise StepFailed(f"of the cells from {part.start} on: {error}") from error
                out.stress[part], out.tangent[part] = found.stress.cpu().numpy(), found.tangent.cpu().numpy()
                out.state[part, 1:] = found.fluctuation.cpu().flatten(1).numpy()
        return out
