# SPDX-License-Identifier: MIT
"""Mandel vectors: symmetric tensors as vectors whose inner product is the tensors' double contraction.

2D order (xx, yy, √2 xy), 3D order (xx, yy, zz, √2 yz, √2 xz, √2 xy). A fourth-order tensor with minor symmetries
is then a matrix with the tensor's eigenvalues, and S·E is an energy density without weights.
"""

import numpy as np
import numpy.typing as npt
import ufl

_PAIRS = {1: [(0, 0)], 2: [(0, 0), (1, 1), (0, 1)], 3: [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]}


def size(dim: int) -> int:
    """Number of Mandel components of a symmetric tensor in `dim` dimensions: 1, 3 or 6."""
    return len(_PAIRS[dim])


def dimension(n: int) -> int:
    """Space dimension whose Mandel vectors have `n` components; raises ValueError for an `n` other than 1, 3, 6."""
    for dim, pairs in _PAIRS.items():
        if len(pairs) == n:
            return dim
    raise ValueError(f"a Mandel vector has 1, 3 or 6 components, not {n}")


def basis(dim: int) -> npt.NDArray[np.float64]:
    """Orthonormal symmetric tensors (d, dim, dim) that the Mandel components multiply."""
    tensors = np.zeros((size(dim), dim, dim))
    for k, (i, j) in enumerate(_PAIRS[dim]):
        tensors[k, i, j] = tensors[k, j, i] = 1.0 if i == j else np.sqrt(0.5)
    return tensors


def vector(tensor: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mandel vectors (..., d) of the symmetric parts of `tensor` (..., dim, dim); ValueError for another shape."""
    tensor = np.asarray(tensor, dtype=np.float64)
    if tensor.ndim < 2 or tensor.shape[-1] != tensor.shape[-2] or tensor.shape[-1] not in _PAIRS:
        raise ValueError(f"tensors have the shape {tensor.shape}, need (..., dim, dim) with dim 1, 2 or 3")
    return np.einsum("...ij,kij->...k", tensor, basis(tensor.shape[-1]))


def tensor(vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Symmetric tensors (..., dim, dim) of Mandel vectors `vector` (..., d)."""
    vector = np.asarray(vector, dtype=np.float64)
    return np.einsum("...k,kij->...ij", vector, basis(dimension(vector.shape[-1])))


def _engineering_factors(n: int) -> npt.NDArray[np.float64]:
    dim = dimension(n)
    return np.array([1.0] * dim + [np.sqrt(2.0)] * (n - dim))


def from_engineering(strain: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mandel strain (..., d) of an engineering (Voigt) strain (..., d) whose shear entries are γ = 2 ε."""
    strain = np.asarray(strain, dtype=np.float64)
    return strain / _engineering_factors(strain.shape[-1])


def to_engineering(strain: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Engineering (Voigt) strain (..., d), shear entries γ = 2 ε, of a Mandel strain (..., d)."""
    strain = np.asarray(strain, dtype=np.float64)
    return strain * _engineering_factors(strain.shape[-1])


def stiffness_to_engineering(stiffness: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Voigt stiffness (..., d, d), stress per engineering strain, of a Mandel stiffness (..., d, d)."""
    stiffness = np.asarray(stiffness, dtype=np.float64)
    factors = _engineering_factors(stiffness.shape[-1])
    return stiffness / factors[:, None] / factors[None, :]


def rotation(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Orthogonal matrix (d, d) that maps the Mandel vector of T to that of R T Rᵀ, for `matrix` R (dim, dim)."""
    r = np.asarray(matrix, dtype=np.float64)
    b = basis(r.shape[0])
    return np.einsum("aij,ik,bkl,jl->ab", b, r, b, r)


def ufl_vector(tensor: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
    """UFL Mandel vector (d,) of a symmetric UFL tensor (dim, dim)."""
    pairs = _PAIRS[tensor.ufl_shape[0]]
    return ufl.as_vector([tensor[i, j] if i == j else np.sqrt(2.0) * tensor[i, j] for i, j in pairs])


def ufl_tensor(vector: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
    """Symmetric UFL tensor (dim, dim) of a UFL Mandel vector (d,)."""
    dim = dimension(vector.ufl_shape[0])
    entry = {}
    for k, (i, j) in enumerate(_PAIRS[dim]):
        entry[i, j] = entry[j, i] = vector[k] if i == j else np.sqrt(0.5) * vector[k]
    return ufl.as_tensor([[entry[i, j] for j in range(dim)] for i in range(dim)])


def strain(u: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
    """UFL Mandel vector (d,) of the small strain sym(∇u) of a displacement `u`."""
    return ufl_vector(ufl.sym(ufl.grad(u)))
