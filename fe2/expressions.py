# SPDX-License-Identifier: MIT
"""Expressions at points of cells, compiled once and cached."""

import numpy.typing as npt
from dolfinx import fem
from ufl.algorithms.map_integrands import map_expr_dag
from ufl.classes import Expr, Label
from ufl.corealg.multifunction import MultiFunction


class _Numbered(MultiFunction):
    """The labels of variables, numbered within the expression."""

    expr = MultiFunction.reuse_if_untouched

    def __init__(self):
        super().__init__()
        self._labels = {}

    def label(self, o):
        return self._labels.setdefault(o, Label(len(self._labels)))


def compile_expression(value: Expr, points: npt.NDArray) -> fem.Expression:
    """`value` at points (n, dim) of the reference cell, compiled.

    UFL numbers the variables of `ufl.diff` throughout a process, and these numbers are part of the cache key: without
    new numbers each RVE would be compiled anew.
    """
    return fem.Expression(map_expr_dag(_Numbered(), value), points)
