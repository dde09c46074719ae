# SPDX-License-Identifier: MIT
"""Quadrature points of Lagrange spaces as tensors: values and slopes of fields there, and points inside of others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from spon.sparse import SparseOperator


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """P points of a scalar field's space with N independent nodes, in d dimensions.

    places: (P, d) [length]. weights: (P,), integrals being Σ_p w_p f_p. fields: (P (d + 1), N), of each point in a row
    the slopes along all axes [1/length] and the value of a field.
    above: (P, P'), means over those of the next finer points that are inside of the cell of a point, or None.
    below: (P', P), at these finer points the mean over the cell that they are inside of, or None.
    """

    places: Tensor
    weights: Tensor
    fields: SparseOperator
    above: SparseOperator | None = None
    below: SparseOperator | None = None

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Points":
        """The same on another device or, its numbers, in another precision."""
        parts = (getattr(self, name) for name in self.__slots__)
        return Points(*(None if part is None else part.to(device, dtype) for part in parts))


def read_points(V: Any, tying: scipy.sparse.csr_array) -> tuple[Points, np.ndarray]:
    """The points of a Lagrange space, enough to integrate the product of two gradients on straight cells; and (P,) the
    cell that each is in.

    Args:
        V: a function space, of which the first component is taken. tying: (nodes, independent nodes).
    """
    import basix

    from spon.spaces.geometry import push
    from spon.spaces.read import unblocked

    element, d = unblocked(V).basix_element, V.mesh.geometry.dim
    simplex = V.mesh.topology.cell_name() in ("interval", "triangle", "tetrahedron")
    reference, weights = basix.make_quadrature(element.cell_type, 2 * element.degree - 2 * simplex)
    count = len(V.dofmap.list)
    cells = np.arange(count, dtype=np.int32).repeat(len(weights))
    places, jacobian = push(V.mesh, cells, np.tile(reference, (count, 1)))
    size = np.sqrt(np.linalg.det(jacobian.transpose(0, 2, 1) @ jacobian))
    values, *slopes = np.tile(element.tabulate(1, reference)[..., 0], (1, count, 1))
    along = np.einsum("tpk,ptd->pdk", np.array(slopes), np.linalg.pinv(jacobian))
    rows = np.concatenate([along, values[:, None]], 1)
    columns = np.broadcast_to(V.dofmap.list[cells][:, None], rows.shape)
    shape = len(cells) * (d + 1), V.dofmap.index_map.size_local
    pointers = np.arange(shape[0] + 1) * rows.shape[-1]
    fields = scipy.sparse.csr_array((rows.ravel(), columns.ravel(), pointers), shape=shape) @ tying
    weights = torch.from_numpy(np.tile(weights, count) * size)
    return Points(torch.from_numpy(places), weights, SparseOperator.of(fields)), cells


def read_levels(spaces: list[Any], tyings: list[scipy.sparse.csr_array]) -> tuple[tuple[Points, ...], np.ndarray]:
    """The points of Lagrange spaces, from finer to coarser, arguments as in `read_points`; and the cells of the first
    ones."""
    from spon.spaces.geometry import locate

    finest, cells = read_points(spaces[0], tyings[0])
    levels = [finest]
    for V, tying in zip(spaces[1:], tyings[1:]):
        here, owner = read_points(V, tying)
        count = len(V.dofmap.list)
        within = scipy.sparse.csr_array(
            (np.ones(len(owner)), (np.arange(len(owner)), owner)), shape=(len(owner), count)
        )
        finer = levels[-1]
        # A point on an edge is in the cell to one side of it, which rounding must not decide.
        aside = 1e-6 * np.ptp(finer.places.numpy(), axis=0) * [1.0, 0.7, 0.4][: V.mesh.geometry.dim]
        found = locate(V.mesh, finer.places.numpy() + aside, 0.5)
        inside = scipy.sparse.csr_array(
            (np.ones(len(found)), (np.arange(len(found)), found)), shape=(len(found), count)
        )
        below = inside @ _means(within.T, here.weights)
        above = within @ _means(inside.T, finer.weights)
        levels.append(
            Points(here.places, here.weights, here.fields, SparseOperator.of(above), SparseOperator.of(below))
        )
    return tuple(levels), cells


def _means(inside: scipy.sparse.sparray, weights: Tensor) -> scipy.sparse.csr_array:
    """Of which points (cells, points) some are inside, to their mean; a cell without any takes that of all."""
    weighted = scipy.sparse.csr_array(inside @ scipy.sparse.diags_array(weights.numpy()))
    sums = np.asarray(weighted.sum(axis=1)).ravel()
    if not sums.all():
        everywhere = scipy.sparse.csr_array(np.outer(sums == 0, weights.numpy()))
        weighted, sums = scipy.sparse.csr_array(weighted + everywhere), np.where(sums == 0, float(weights.sum()), sums)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / sums) @ weighted)
