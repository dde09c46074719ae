# SPDX-License-Identifier: MIT
"""Finite element spaces as tensors: reading them, transfer between them, norms, constraints and graphs."""

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
