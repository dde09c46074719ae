# SPDX-License-Identifier: MIT
"""Constant sparse matrices whose products torch differentiates.

Fields have the shape (dofs, batch · channel): a row of the matrix then adds up contiguous rows of the field, which is
several times faster than with the batch first (`benchmarks/bench_spmm.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SparseOperator:
    """A constant matrix in CSR format, applied from the left: `A @ x`, and `A.T @ y`.

    Products are differentiable in x any number of times, in reverse and in forward mode and under `torch.func`;
    derivatives are products with the same matrix and its transpose. Results are reproducible.

    Args:
        shape: (rows, columns).
        pointers: (rows + 1,) int64, start of each row.
        columns: (entries,) int64.
        values: (entries,).
    """

    shape: tuple[int, int]
    pointers: Tensor
    columns: Tensor
    values: Tensor

    @classmethod
    def of(cls, matrix, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu") -> SparseOperator:
        """From a SciPy sparse matrix or array, without its zero entries.

        Args:
            matrix: a SciPy sparse matrix or array.
            dtype: of the values.
            device: of the values.
        """
        csr = scipy.sparse.csr_array(matrix, copy=True)
        csr.sum_duplicates()
        csr.eliminate_zeros()
        pointers, columns = (torch.from_numpy(a.astype(np.int64)).to(device) for a in (csr.indptr, csr.indices))
        return cls(csr.shape, pointers, columns, torch.from_numpy(csr.data).to(device, dtype))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> SparseOperator:
        """The same matrix on another device or in another precision."""
        pointers, columns = self.pointers.to(device), self.columns.to(device)
        return SparseOperator(self.shape, pointers, columns, self.values.to(device, dtype))

    @cached_property
    def T(self) -> SparseOperator:
        """The transpose, computed on first use and kept."""
        other = SparseOperator.of(self.scipy.T, dtype=self.values.dtype, device=self.values.device)
        other.__dict__["T"] = self
        return other

    @cached_property
    def scipy(self) -> scipy.sparse.csr_array:
        """As a SciPy array, which shares the memory of values on the CPU."""
        values, columns, pointers = (t.cpu().numpy() for t in (self.values, self.columns, self.pointers))
        return scipy.sparse.csr_array((values, columns, pointers), shape=self.shape)

    @cached_property
    def _torch(self) -> Tensor:
        return torch.sparse_csr_tensor(self.pointers, self.columns, self.values, self.shape, check_invariants=False)

    def __matmul__(self, x: Tensor) -> Tensor:
        """The product (rows, ...) with a field.

        Args:
            x: (columns, ...).

        Raises:
            ValueError: x of another length, precision or device than the matrix.
        """
        if x.ndim == 0 or x.shape[0] != self.shape[1]:
            raise ValueError(f"x has the shape {tuple(x.shape)}, need ({self.shape[1]}, ...)")
        if x.dtype != self.values.dtype or x.device != self.values.device:
            need = f"{self.values.dtype} on {self.values.device}"
            raise ValueError(f"x is {x.dtype} on {x.device}, the matrix {need}: move one with .to(device, dtype)")
        trailing = x.shape[1:]
        return _Product.apply(self, x.reshape(len(x), math.prod(trailing))).reshape(self.shape[0], *trailing)

    def _product(self, x: Tensor) -> Tensor:
        """The product (rows, b) with x (columns, b), without derivatives."""
        if x.device.type == "cpu":
            # SciPy's kernel is faster than torch's on the CPU (benchmarks/spmm.json), for any build of torch.
            return torch.from_numpy(self.scipy @ x.detach().contiguous().numpy())
        return self._torch @ x


class _Product(torch.autograd.Function):
    """y = A x, whose derivatives are products, too."""

    @staticmethod
    def forward(operator, x):
        return operator._product(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.operator = inputs[0]

    @staticmethod
    def backward(ctx, gradient):
        return None, _Product.apply(ctx.operator.T, gradient)

    @staticmethod
    def jvp(ctx, _, tangent):
        return _Product.apply(ctx.operator, tangent)

    @staticmethod
    def vmap(info, in_dims, operator, x):
        x = x.movedim(in_dims[1], -1)
        y = _Product.apply(operator, x.reshape(len(x), math.prod(x.shape[1:])))
        return y.reshape(len(y), *x.shape[1:]), x.ndim - 1
