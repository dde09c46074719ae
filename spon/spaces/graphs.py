# SPDX-License-Identifier: MIT
"""The graph of a space, with edges between nodes that share a cell, for networks that pass messages."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spon.spaces.space import Space
from spon.sparse import SparseOperator


@dataclass(frozen=True, eq=False)
class Graph:
    """Directed edges between the independent nodes of a space, both ways and without loops, sorted by receiver.

    Products with `send`, `receive` and their transposes move values to edges and messages to nodes. Including the
    gradient they are faster than indexing and `index_add`, and reproducible (`benchmarks/bench_spmm.py`).

    Args:
        nodes: number of nodes.
        senders: (edges,).
        receivers: (edges,).
        features: (edges, d + 3), the vector from receiver to sender and its length [length], and the entries of mass
            and stiffness matrix.
    """

    nodes: int
    senders: Tensor
    receivers: Tensor
    features: Tensor

    @cached_property
    def send(self) -> SparseOperator:
        """(edges, nodes), the value at the sender of each edge."""
        return self._at(self.senders)

    @cached_property
    def receive(self) -> SparseOperator:
        """(edges, nodes), the value at the receiver of each edge; its transpose adds up messages."""
        return self._at(self.receivers)

    def _at(self, ends: Tensor) -> SparseOperator:
        pointers = torch.arange(len(ends) + 1, device=ends.device)
        return SparseOperator((len(ends), self.nodes), pointers, ends, torch.ones_like(self.features[:, 0]))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Graph":
        """A copy on another device or, its features, in another precision."""
        return Graph(self.nodes, self.senders.to(device), self.receivers.to(device), self.features.to(device, dtype))


def graph(space: Space) -> Graph:
    """The graph of a space.

    Nodes are neighbours if they share a cell; in a discontinuous space also if their cells share a facet. Tied nodes
    count as one, and a vector across a periodic face is that within the cell. Matrix entries are those of the first
    component of a node: the others are equal, or not coupled to it.

    Args:
        space: not mixed; take the parts of a `MixedSpace`.
    """
    b = space.block_size
    groups = space.cell_dofs.cpu().numpy()
    if len(space.neighbours):
        groups = groups[space.neighbours.cpu().numpy()].reshape(len(space.neighbours), -1)
    pairs = [groups[:, [i, j]] for i in range(groups.shape[1]) for j in range(groups.shape[1]) if i != j]
    receivers, senders = np.concatenate(pairs or [np.zeros((0, 2), dtype=np.int64)]).T
    points = space.points.cpu().numpy()
    offsets = points[senders] - points[receivers]
    # `tying` has one entry per row, the number of the dof's master among the independent ones.
    master = space.tying.columns.cpu().numpy()[::b] // b
    nodes = space.tying.shape[1] // b
    keys, first = np.unique(master[receivers] * nodes + master[senders], return_index=True)
    receivers, senders, offsets = keys // nodes, keys % nodes, offsets[first]
    apart = receivers != senders
    receivers, senders, offsets = receivers[apart], senders[apart], offsets[apart]
    tying = space.tying.scipy
    entries = [
        np.asarray((tying.T @ matrix.scipy @ tying).tocsr()[b * receivers, b * senders]).ravel()
        for matrix in (space.mass, space.stiffness)
    ]
    features = torch.from_numpy(np.column_stack([offsets, np.linalg.norm(offsets, axis=1), *entries]))
    return Graph(nodes, torch.from_numpy(senders), torch.from_numpy(receivers), features).to(
        space.points.device, space.points.dtype
    )
