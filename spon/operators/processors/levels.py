# SPDX-License-Identifier: MIT
"""The output space and its coarser ones for processors at nodes, and fixed matrices as torch modules."""

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn

from spon.operators.discretisation import Discretisation, node_coordinates, node_matrix, scaled
from spon.spaces.graphs import graph
from spon.spaces.space import Space
from spon.sparse import SparseOperator


class Fixed(nn.Module):
    """A constant `SparseOperator` that moves with the module that holds it."""

    def __init__(self, operator: SparseOperator):
        super().__init__()
        self.operator = operator

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        old = self.operator
        self.operator = SparseOperator(old.shape, *(fn(t) for t in (old.pointers, old.columns, old.values)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.operator @ x


class Level(nn.Module):
    """One space of a hierarchy, in lengths of its mean edge and with entries of matrices of mean one.

    Args:
        space: Lagrange or, on the finest level, any.
        lower: (d,) the smallest coordinates of the finest space [length].
        upper: (d,) the largest ones.

    Attributes:
        send: (edges, nodes), the value at the sender.
        gather: (nodes, edges), the mean of the messages that arrive.
        features: (edges, d + 3), as those of `spon.Graph`.
        coordinates: (nodes, d), see `node_coordinates`.
        stencils: (k · nodes, nodes), k matrices one below the other: the identity, mass and stiffness matrix with
            absolute values of rows that sum to one, and the mean gradients along edges by the d directions.
        mean: (nodes, nodes), the mass matrix over the volume: aᵀ (mean b) is the mean of the product of two fields.
    """

    features: Tensor
    coordinates: Tensor

    def __init__(self, space: Space, lower: Tensor, upper: Tensor):
        super().__init__()
        g = graph(space)
        d = space.points.shape[1]
        mean = g.features.abs().mean(0)
        mean[:d] = mean[d]
        self.register_buffer("features", g.features / torch.where(mean > 0, mean, 1.0), persistent=False)
        self.register_buffer("coordinates", node_coordinates(space, lower, upper), persistent=False)
        into = g.receive.T.scipy
        degree = np.asarray(into.sum(axis=1))
        self.send, self.gather = Fixed(g.send), Fixed(SparseOperator.of(scaled(into, degree)))
        differences = scipy.sparse.csr_array(g.send.scipy - g.receive.scipy)
        along = (self.features[:, :d] / self.features[:, d : d + 1] ** 2).numpy()
        matrices = [scipy.sparse.eye_array(g.nodes)]
        for matrix in (node_matrix(space, space.mass), node_matrix(space, space.stiffness)):
            matrices.append(scaled(matrix, np.asarray(abs(matrix).sum(axis=1))))
        matrices += [scaled(into @ scipy.sparse.diags_array(column) @ differences, degree) for column in along.T]
        self.stencils = Fixed(SparseOperator.of(scipy.sparse.vstack(matrices)))
        self.mean = Fixed(SparseOperator.of(node_matrix(space, space.mass) / space.volume))


class Hierarchy(nn.Module):
    """The levels of a discretisation, the finest first, and the matrices between them.

    Attributes:
        levels: one for each space.
        prolong: interpolation to each level from the next coarser one.
        restrict: its transpose, with rows scaled so that constants stay constant.
    """

    def __init__(self, discretisation: Discretisation):
        super().__init__()
        points = discretisation.output.points
        box = points.min(0).values, points.max(0).values
        spaces = (discretisation.output, *discretisation.coarse)
        self.levels = nn.ModuleList(Level(space, *box) for space in spaces)
        self.prolong = nn.ModuleList(Fixed(p) for p in discretisation.prolongations)
        down = [p.T.scipy for p in discretisation.prolongations]
        self.restrict = nn.ModuleList(Fixed(SparseOperator.of(scaled(r, np.asarray(r.sum(axis=1))))) for r in down)
