# SPDX-License-Identifier: MIT
"""Quadrature points of Lagrange spaces as tensors: values and gradients of fields there, and means between meshes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor

from spon.sparse import SparseOperator

Cells = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """P quadrature points of a scalar Lagrange space with N independent nodes, in d dimensions.

    Args:
        coordinates: (P, d) [length].
        weights: (P,) [length^d]; integrals are Σ_p w_p f_p.
        fields: (P (d + 1), N), from nodal values to the gradient [1/length] and the value at each point, d + 1 rows a
            point.
        above: (P, P'), from the P' points of the next finer level to their mean in the cell of each point; None on the
            finest level.
        below: (P', P), from these points to their mean in the cell of each finer point; None on the finest level.
    """

    coordinates: Tensor
    weights: Tensor
    fields: SparseOperator
    above: SparseOperator | None = None
    below: SparseOperator | None = None

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Points:
        """A copy on another device or, its numbers, in another precision."""
        above, below = (None if means is None else means.to(device, dtype) for means in (self.above, self.below))
        return Points(
            self.coordinates.to(device, dtype),
            self.weights.to(device, dtype),
            self.fields.to(device, dtype),
            above,
            below,
        )


class PointsInCells(NamedTuple):
    """Quadrature points of a space, and the cell (P,) of each."""

    points: Points
    cells: Cells


class Levels(NamedTuple):
    """Quadrature points of spaces from finer to coarser, and the cell (P,) of each point of the finest."""

    levels: tuple[Points, ...]
    cells: Cells


def read_points(V: Any, tying: scipy.sparse.csr_array) -> PointsInCells:
    """The quadrature points of a Lagrange space, exact for products of two gradients on straight cells.

    Args:
        V: a `dolfinx.fem.FunctionSpace`, of which the first component is taken.
        tying: (nodes, independent nodes), all nodes from the independent ones.
    """
    import basix

    from spon.spaces.geometry import push
    from spon.spaces.read import unblocked

    element, d = unblocked(V).basix_element, V.mesh.geometry.dim
    simplex = V.mesh.topology.cell_name() in ("interval", "triangle", "tetrahedron")
    reference, weights = basix.make_quadrature(element.cell_type, 2 * element.degree - 2 * simplex)
    count = len(V.dofmap.list)
    cells = np.arange(count, dtype=np.int32).repeat(len(weights))
    coordinates, jacobian = push(V.mesh, cells, np.tile(reference, (count, 1)))
    scale = np.sqrt(np.linalg.det(jacobian.transpose(0, 2, 1) @ jacobian))
    values, *derivatives = np.tile(element.tabulate(1, reference)[..., 0], (1, count, 1))
    gradients = np.einsum("tpk,ptd->pdk", np.array(derivatives), np.linalg.pinv(jacobian))
    rows = np.concatenate([gradients, values[:, None]], 1)
    columns = np.broadcast_to(V.dofmap.list[cells][:, None], rows.shape)
    shape = len(cells) * (d + 1), V.dofmap.index_map.size_local
    pointers = np.arange(shape[0] + 1) * rows.shape[-1]
    fields = scipy.sparse.csr_array((rows.ravel(), columns.ravel(), pointers), shape=shape) @ tying
    scaled = torch.from_numpy(np.tile(weights, count) * scale)
    return PointsInCells(Points(torch.from_numpy(coordinates), scaled, SparseOperator.of(fields)), cells)


def read_levels(spaces: list[Any], tyings: list[scipy.sparse.csr_array]) -> Levels:
    """The quadrature points of Lagrange spaces, with the means between each and the next coarser one.

    Args:
        spaces: `dolfinx.fem.FunctionSpace`s, from finer to coarser.
        tyings: as in `read_points`, one for each space.
    """
    from spon.spaces.geometry import locate

    finest, cells = read_points(spaces[0], tyings[0])
    levels = [finest]
    for V, tying in zip(spaces[1:], tyings[1:]):
        coarse, owner = read_points(V, tying)
        finer = levels[-1]
        # A point on an edge belongs to the cell on one side of it, chosen independently of rounding.
        aside = 1e-6 * np.ptp(finer.coordinates.numpy(), axis=0) * [1.0, 0.7, 0.4][: V.mesh.geometry.dim]
        found = locate(V.mesh, finer.coordinates.numpy() + aside, 0.5)
        count = len(V.dofmap.list)
        own, inside = _membership(owner, count), _membership(found, count)
        below = inside @ _means(own.T, coarse.weights)
        above = own @ _means(inside.T, finer.weights)
        levels.append(
            Points(
                coarse.coordinates, coarse.weights, coarse.fields, SparseOperator.of(above), SparseOperator.of(below)
            )
        )
    return Levels(tuple(levels), cells)


def _membership(cells: Cells, count: int) -> scipy.sparse.csr_array:
    """The matrix (points, count) with a one at the cell of each point."""
    ones, rows = np.ones(len(cells)), np.arange(len(cells))
    return scipy.sparse.csr_array((ones, (rows, cells)), shape=(len(cells), count))


def _means(inside: scipy.sparse.sparray, weights: Tensor) -> scipy.sparse.csr_array:
    """Weighted means (cells, points) over the points in each cell, or over all points for a cell without any."""
    weighted = scipy.sparse.csr_array(inside @ scipy.sparse.diags_array(weights.numpy()))
    sums: npt.NDArray[np.float64] = np.asarray(weighted.sum(axis=1)).ravel()
    if not sums.all():
        everywhere = scipy.sparse.csr_array(np.outer(sums == 0, weights.numpy()))
        weighted, sums = scipy.sparse.csr_array(weighted + everywhere), np.where(sums == 0, float(weights.sum()), sums)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / sums) @ weighted)
