# SPDX-License-Identifier: MIT
"""Looking into single points of a structure: the nearest quadrature point, and the fields of the RVE there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fe2.body import Body
from fe2.fields import Series, at_nodes, named
from fe2.quadrature import QuadratureLaw
from fe2.ranks import together

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
        tags = self.law.rve.cell.cell_tags
        values = {"tag": tags.values[np.argsort(tags.indices)].astype(np.int64)}
        for name, vectors in (("stress", body.stress()), ("strain", body.strain())):
            sums = np.einsum("cqd,cq->cd", vectors, body.weights)
            values |= named(name, sums / body.weights.sum(axis=1, keepdims=True))
        Series(path, body.mesh).write(1, 0.0, {"displacement": at_nodes(body.u)}, values)


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
