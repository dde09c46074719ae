# SPDX-License-Identifier: MIT
"""RVEs given as images, solved in batches by `spon.GridRVEs`: from materials in UFL, and as a law."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.translation import phase_law
from fe2 import Material, Response, StateLayout, StepFailed, arguments, raise_on_all_ranks
from fe2.measure import common_measure
from fe2.phases import materials_by_tag
from meshes import ByPhase
from meshes.tags import phase_label
from spon.microstructure import GridNotConverged, GridRVEs

Array = npt.NDArray[np.float64]


def grid_rves(
    labels: npt.NDArray[np.integer],
    materials: ByPhase[Material],
    *,
    names: Mapping[str, int] | None = None,
    box: Sequence[float] | None = None,
    plane: str = "strain",
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> GridRVEs:
    """RVEs of a label for each pixel or voxel and a material for each label.

    Args:
        labels: integers (n, nx, ny) or (n, nx, ny, nz) of n RVEs, as those of `meshes.from_labels`.
        materials: label, or name in `names` → material; path-independent.
        names: name → label.
        box: edge lengths of an RVE; if None, one in x, with square or cubic elements.
        plane: "strain" or "stress", in two dimensions.
        dtype: of all fields.
        device: of all fields.

    Raises:
        ValueError: labels that are not integers, a label without material, an unknown name, materials that are not at
            small strain, or a phase without stiffness.
        TypeError: a value that is no material.
        TranslationError: a material that torch cannot evaluate.
    """
    labels = _integers(labels)
    given = materials_by_tag(materials, names or {})
    if unknown := sorted(set(np.unique(labels).tolist()) - set(given)):
        raise ValueError(f"label {unknown[0]} has no material; the labels with material are {sorted(given)}")
    common_measure({phase_label(tag, names or {}): material for tag, material in given.items()})
    laws = {tag: phase_law(material, labels.ndim - 1, plane) for tag, material in given.items()}
    return GridRVEs(torch.from_numpy(labels.astype(np.int64)), laws, box=box, dtype=dtype, device=device)


def _integers(labels: npt.ArrayLike) -> npt.NDArray[np.integer]:
    """The labels as an array; raises ValueError for another shape or labels that are not integers."""
    labels = np.asarray(labels)
    if labels.ndim not in (3, 4):
        raise ValueError(f"labels have the shape {labels.shape}, need (n, nx, ny) or (n, nx, ny, nz)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are of the type {labels.dtype}, need integers")
    return labels


class GridLaw:
    """A full-field problem on a grid at each point, with an RVE of its own, solved in batches on any device.

    Args:
        labels: (n, nx, ny) or (n, nx, ny, nz) of this rank's n points, in the order of `fe2.law_coordinates`; for the
            same RVE everywhere `np.broadcast_to(image, (n, *image.shape))`.
        materials: see `grid_rves`.
        names: see `grid_rves`.
        box: see `grid_rves`.
        plane: see `grid_rves`.
        dtype: see `grid_rves`.
        device: see `grid_rves`.
        chunk: RVEs at a time.

    Attributes:
        measure: of the materials.
        layout: of a state row: "point", the number of the RVE, and the "fluctuation" of its nodes (nx, ny, dim) or
            (nx, ny, nz, dim), of a scalar (..., 1), from which the next solution starts.

    Raises:
        ValueError: a chunk below 1, or an error of `grid_rves`.
        TypeError: a value that is no material.
        TranslationError: a material that torch cannot evaluate.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.integer],
        materials: ByPhase[Material],
        *,
        names: Mapping[str, int] | None = None,
        box: Sequence[float] | None = None,
        plane: str = "strain",
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        chunk: int = 16,
    ):
        if chunk < 1:
            raise ValueError(f"chunk = {chunk}: need at least 1 RVE")
        labels = _integers(labels)
        made = {"names": names, "box": box, "plane": plane, "dtype": dtype, "device": device}
        self._parts = [
            grid_rves(labels[first : first + chunk], materials, **made) for first in range(0, len(labels), chunk)
        ]
        self._count, self._chunk = len(labels), chunk
        dim = labels.ndim - 1
        self.measure = common_measure(materials_by_tag(materials, names or {}))
        self._shape = (*labels.shape[1:], self.measure.components(dim))
        self.strain_size = self.measure.size(dim)
        self.layout = StateLayout(point=(), fluctuation=self._shape)
        self.state_size = self.layout.size

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed RVEs.

        Args:
            n: number of points of this rank.

        Raises:
            ValueError: another number of RVEs.
        """
        if n != self._count:
            raise ValueError(f"there are {n} points on this rank and {self._count} RVEs")
        return self.layout.rows(n, point=np.arange(n))

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`; all points of this rank in their order.

        Raises:
            ValueError: see `fe2.Law.evaluate`.
            fe2.StepFailed: on all ranks; no equilibrium at the point that the message names.
        """
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
            strain = np.asarray(strain, dtype=np.float64)
            n, d = strain.shape
            out = Response(np.empty((n, d)), np.empty((n, d, d)), guess.copy())
            if not np.array_equal(self.layout.view(state, "point"), np.arange(self._count)):
                raise ValueError(f"got {n} points, need all {self._count} of this rank in their order")
            for k, rves in enumerate(self._parts):
                part = slice(k * self._chunk, (k + 1) * self._chunk)
                start = torch.from_numpy(np.ascontiguousarray(self.layout.view(guess[part], "fluctuation")))
                try:
                    found = rves.homogenise(torch.from_numpy(strain[part]), start=start)
                except GridNotConverged as error:
                    raise StepFailed(f"{_point(part.start + error.rve, comm)}, {error.problem}") from error
                out.stress[part], out.tangent[part] = found.stress.cpu().numpy(), found.tangent.cpu().numpy()
                self.layout.view(out.state[part], "fluctuation")[:] = found.fluctuation.cpu().numpy()
        return out


def _point(k: int, comm: MPI.Comm) -> str:
    """A point by its number on this rank, and the rank where there are several."""
    return f"point {k}" if comm.size == 1 else f"point {k} of rank {comm.rank}"
