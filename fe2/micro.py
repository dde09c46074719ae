# SPDX-License-Identifier: MIT
"""Looking into single points of a structure: the nearest quadrature point, and the fields of the RVE there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem

from fe2.body import Body
from fe2.fields import Series, at_nodes, named
from fe2.quadrature import QuadratureLaw
from fe2.ranks import together
from fe2.rve import RVE

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MicroPoint:
    """A quadrature point of the structure.

    place: (dim,). strain, stress: (d,) Mandel, stress in MPa. law: the law there. state: (state_size,) accepted.
    """

    place: Array
    strain: Array
    stress: Array
    law: Any  # a Law; one with an RVE also has `rve` and `place`
    state: Array

    def body(self) -> Body:
        """The RVE's body at this point, with its displacement, strain and stress.

        All points of a law share one body: the next call, also for another point, moves it.

        Raises:
            TypeError: the law has no RVE.
        """
        place = getattr(self.law, "place", None)
        if place is None:
            where = np.array2string(self.place, precision=6)
            raise TypeError(f"the point at {where} has no micro fields: its law, {type(self.law).__name__}, has no RVE")
        return place(self.state)

    def write(self, path: str | Path) -> None:
        """Write displacement, stress and strain (cell means) and the cell tags of the RVE here to `path` (.xdmf).

        Not collective: one rank does it. Raises TypeError as `body` does.
        """
        body = self.body()
        write_fields(path, self.law.rve, body.u, {"stress": body.stress(), "strain": body.strain()})


def write_fields(path: str | Path, rve: RVE, displacement: fem.Function, fields: dict[str, Array]) -> None:
    """Write fields of an RVE to `path` (.xdmf): displacement, cell means of the others, and the cell tags.

    Args:
        rve: the cell. displacement: on its body's space. fields: by name, Mandel vectors (cells, points, d) or numbers
        (cells, points) at the quadrature points.
    """
    weights, tags = rve.body.weights, rve.cell.cell_tags
    values = {"tag": tags.values[np.argsort(tags.indices)].astype(np.int64)}
    for name, field in fields.items():
        means = np.einsum("cq...,cq->c...", field, weights / weights.sum(axis=1, keepdims=True))
        values |= named(name, means) if means.ndim == 2 else {name: means}
    Series(path, rve.body.mesh).write(1, 0.0, {"displacement": at_nodes(displacement)}, values)


def nearest(sigma: QuadratureLaw, places: npt.ArrayLike) -> list[MicroPoint]:
    """The quadrature point nearest to each of `places` (k, dim), the same on all ranks (collective).

    Of points equally near it is one on the lowest rank. The stress is that of the last update.

    Raises:
        ValueError: places of another shape, or not finite.
    """
    comm, dim = sigma.mesh.comm, sigma.mesh.geometry.dim
    with together(comm):
        wanted = np.atleast_2d(np.asarray(places, dtype=np.float64))
        if wanted.shape[1:] != (dim,) or not np.isfinite(wanted).all():
            raise ValueError(f"places have shape {np.shape(places)}, need (k, {dim}) finite coordinates")
        x, strain, stress = sigma.places(), sigma.strains(), sigma.stresses()
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
        place, e, s, number, state = comm.bcast(found, root=rank)
        points.append(MicroPoint(place, e, s, sigma.regions[number].law, state))
    return points
