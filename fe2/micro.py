# SPDX-License-Identifier: MIT
"""Single points of a structure: the nearest quadrature point, and the fields of the RVE there."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fe2.body import Body
from fe2.micro_fields import MicroFields
from fe2.quadrature import QuadratureLaw
from fe2.ranks import raise_on_all_ranks

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MicroPoint:
    """A quadrature point of the structure.

    Attributes:
        coordinates: (dim,) of the point.
        strain: (d,) in the components of the law's measure.
        stress: (d,) [MPa].
        law: the law there.
        state: (state_size,) accepted.
        here: whether this rank owns the point.
    """

    coordinates: Array
    strain: Array
    stress: Array
    law: Any  # a `Law`, with the optional methods that `fe2.Law` lists
    state: Array
    here: bool = True

    def fields(self) -> MicroFields:
        """The fields of the RVE at this point: exact ones, or those of a model.

        Raises:
            TypeError: a law without fields.
            ValueError: an RVE that exists only on the rank of the point; a model that was loaded without its modes;
                or another error of the law.
        """
        return self._law_with("micro_fields").micro_fields(self.strain, self.state)

    def body(self) -> Body:
        """The RVE's body at this point, with its displacement, and strain and stress by the materials' laws.

        Points share one body: the next call, also for another point, moves it.

        Raises:
            TypeError: as `fields`.
            ValueError: as `fields`.
        """
        if hasattr(self.law, "set_state"):
            return self._law_with("set_state").set_state(self.state)
        fields = self.fields()
        body = fields.rve.body
        body.u.x.array[:] = fields.displacement.x.array
        body.find_local()
        return body

    def write(self, path: str | Path) -> None:
        """Write the fields and the cell tags of the RVE here to `path` (.xdmf), see `MicroFields.write`.

        Not collective: one rank does it.

        Raises:
            TypeError: as `fields`.
            ValueError: as `fields`.
        """
        self.fields().write(path)

    @property
    def place(self) -> Array:
        """The old name of `coordinates`."""
        warnings.warn("MicroPoint.place is now MicroPoint.coordinates", DeprecationWarning, stacklevel=2)
        return self.coordinates

    def _law_with(self, method: str) -> Any:
        where = np.array2string(self.coordinates, precision=6)
        if not hasattr(self.law, method):
            raise TypeError(
                f"the law at the point {where}, {type(self.law).__name__}, has no micro fields: need fe2.ExactLaw, "
                "fe2.VaryingLaw or the law of a trained model"
            )
        if getattr(self.law, "own_rves", False) and not self.here:
            raise ValueError(f"the point at {where} has an RVE of its own, which exists only on the rank of the point")
        return self.law


def nearest(sigma: QuadratureLaw, coordinates: npt.ArrayLike) -> list[MicroPoint]:
    """The quadrature point nearest to each of some coordinates, the same on all ranks (collective).

    Among equally near points the one on the lowest rank is taken. The stress is that of the last update.

    Args:
        sigma: the law at the quadrature points.
        coordinates: (k, dim).

    Raises:
        ValueError: coordinates of another shape, or not finite.
    """
    comm, dim = sigma.mesh.comm, sigma.mesh.geometry.dim
    with raise_on_all_ranks(comm):
        wanted = np.atleast_2d(np.asarray(coordinates, dtype=np.float64))
        if wanted.shape[1:] != (dim,) or not np.isfinite(wanted).all():
            raise ValueError(f"coordinates have shape {np.shape(coordinates)}, need (k, {dim}) finite numbers")
        x, strain, stress = sigma.coordinates(), sigma.strains(), sigma.stresses()
        distance = np.linalg.norm(wanted[:, None, :] - x, axis=2)  # (k, points)
    owner = np.argmin(comm.allgather(distance.min(axis=1, initial=np.inf)), axis=0)
    points = []
    for k, rank in enumerate(owner):
        found = None
        if rank == comm.rank:
            point = int(distance[k].argmin())
            cell, q = divmod(point, len(sigma.points))
            number = next(i for i, r in enumerate(sigma.regions) if cell in r.cells)
            region = sigma.regions[number]
            row = int(np.flatnonzero(region.cells == cell)[0]) * len(sigma.points) + q
            found = x[point], strain[point], stress[point].copy(), number, region.state[row].copy()
        x_nearest, e, s, number, state = comm.bcast(found, root=rank)
        points.append(MicroPoint(x_nearest, e, s, sigma.regions[number].law, state, rank == comm.rank))
    return points
