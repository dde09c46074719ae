# SPDX-License-Identifier: MIT
"""Finite element spaces as tensors.

    read_space, load_space, Space, MixedSpace    spaces, from DOLFINx or from a file
    norms, constraints                           norms and strong conditions of fields
    transfer                                     evaluation and interpolation, as sparse matrices
    graph, Graph                                 nodes that share a cell

Below them, for the packages above: `quadrature` (points, gradients, means between meshes) and `geometry`.
"""

from spon.spaces import constraints, norms, transfer
from spon.spaces.graphs import Graph, graph
from spon.spaces.read import read_space
from spon.spaces.space import MixedSpace, Space, load_space

__all__ = [
    "Graph",
    "MixedSpace",
    "Space",
    "constraints",
    "graph",
    "load_space",
    "norms",
    "read_space",
    "transfer",
]
