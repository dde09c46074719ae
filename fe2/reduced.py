# SPDX-License-Identifier: MIT
"""The stiffness of the unknowns: one sparsity structure and one symbolic factorisation for all points of an RVE.

Points are solved side by side. Their matrices differ, but not by much, so one factor (that of their mean) serves as
preconditioner for all of them, and outlives the matrices it was made of. A factor applied to many vectors at once costs
a fraction of as many single applications, because its entries go through memory once.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
from mpi4py import MPI
from petsc4py import PETSc

from fe2.boundary import Unknowns

Array = npt.NDArray[np.float64]

# A factor is made anew when a solve with it needs more applications than this. One factorisation costs about ten
# applications to a single vector, or two to sixteen vectors (CHOLMOD, 2D P2 cells of 20,000 unknowns).
_PATIENCE = 4
_LIMIT = 200


class ReducedStiffness:
    """Solves with the stiffness of the unknowns, K = Tᵀ K_full T, under the side condition G w = 0 if there is one.

    Args:
        unknowns: boundary condition. pattern: full stiffness matrix whose sparsity all later ones share.
        symmetric: conjugate gradients and Cholesky, else minimal residuals (GCR) and LU.
        prefix: of the PETSc options of the preconditioner.

    Attributes:
        size: values per matrix. factorisations: made since `reset`.
    """

    def __init__(self, unknowns: Unknowns, pattern: scipy.sparse.bsr_matrix, *, symmetric: bool, prefix: str):
        self.unknowns, self.symmetric = unknowns, symmetric
        n = unknowns.size
        rows, columns = _places(pattern)
        i, j = unknowns.index[rows], unknowns.index[columns]
        kept = np.flatnonzero((i >= 0) & (j >= 0))
        entries, first, slot = np.unique(i[kept] * n + j[kept], return_index=True, return_inverse=True)
        self.size = entries.size
        # Each value comes from one place; those of tied degrees of freedom from more.
        more = np.setdiff1d(np.arange(kept.size), first)
        self._first, self._more, self._slot = kept[first], kept[more], slot[more]
        indices = (entries % n).astype(PETSc.IntType)
        indptr = np.searchsorted(entries // n, np.arange(n + 1)).astype(PETSc.IntType)
        self._matrix = scipy.sparse.csr_matrix((np.zeros(self.size), indices, indptr), shape=(n, n))
        self._mean = np.zeros(self.size)
        self._A = PETSc.Mat().createAIJWithArrays((n, n), (indptr, indices, self._mean), comm=MPI.COMM_SELF)
        if symmetric:
            self._A.setOption(PETSc.Mat.Option.SPD, True)
        self._pc = PETSc.PC().create(MPI.COMM_SELF)
        self._pc.setOptionsPrefix(prefix)
        self._pc.setType("cholesky" if symmetric else "lu")
        packages = ("cholmod", "mumps") if symmetric else ("mumps",)
        found = [p for p in packages if PETSc.Sys.hasExternalPackage(p)]
        self._pc.setFactorSolverType(found[0] if found else "petsc")
        self._pc.setFromOptions()
        self.reset()

    def destroy(self) -> None:
        """Free the PETSc objects."""
        self._pc.destroy()
        self._A.destroy()

    def reset(self) -> None:
        """Forget the factor, so that what follows depends on nothing that went before."""
        self._stale = True
        self.factorisations = 0

    def reduce(self, full: scipy.sparse.bsr_matrix) -> Array:
        """Values (size,) of the reduced matrix of a full stiffness matrix."""
        data = full.data.ravel()
        values = data[self._first]
        np.add.at(values, self._slot, data[self._more])
        return values

    def multiply(self, values: Array, x: Array) -> Array:
        """Product of the reduced matrix of `values` (size,) with each row of x (k, unknowns)."""
        self._matrix.data = values
        return np.stack([self._matrix @ row for row in x])

    def solve(
        self, values: Sequence[Array], rhs: Array, rtol: npt.ArrayLike
    ) -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Solve with m matrices side by side.

        Args:
            values: m arrays (size,) from `reduce`.
            rhs: (m, k, unknowns), k right-hand sides for each.
            rtol: (m,) or scalar, the residual relative to the right-hand side.

        Returns:
            The solutions (m, k, unknowns), how often the factor was applied for each matrix (m,), and which matrices
            were solved with to the tolerance (m,): the others may be singular or not positive definite.

        Raises:
            RuntimeError: the mean of the matrices has no factor.
        """
        m, k, n = rhs.shape
        g = self.unknowns.constraint
        if g is not None:
            rhs = np.concatenate([rhs, np.broadcast_to(g, (m, *g.shape))], axis=1)
        columns = rhs.shape[1]
        r = rhs.reshape(-1, n).copy()
        x, used = np.zeros_like(r), np.zeros(len(r), dtype=np.int64)
        tolerance = np.repeat(np.broadcast_to(rtol, m), columns) * np.linalg.norm(r, axis=1)

        def multiply(v: Array, rows: npt.NDArray[np.int64]) -> Array:
            owner = rows // columns
            return np.concatenate([self.multiply(values[int(i)], v[owner == i]) for i in np.unique(owner)])

        left = np.arange(m)
        while left.size:
            fresh = self._stale
            if fresh:
                self._factorise([values[int(i)] for i in left])
            limit = _LIMIT if fresh else _PATIENCE
            used += conjugate_directions(multiply, self._precondition, x, r, tolerance, self.symmetric, limit)
            left = np.unique(np.flatnonzero(~(np.linalg.norm(r, axis=1) <= tolerance)) // columns)
            if fresh:
                break
            self._stale = left.size > 0
        solved = np.ones(m, dtype=bool)
        solved[left] = False
        x = x.reshape(m, columns, n)
        if g is not None:
            for own in (x[i] for i in np.flatnonzero(solved)):
                y = own[k:]
                own[:k] -= np.linalg.solve((y @ g.T).T, (own[:k] @ g.T).T).T @ y
        return x[:, :k], used.reshape(m, columns).sum(axis=1), solved

    def _factorise(self, values: Sequence[Array]) -> None:
        self._mean[:] = sum(values) / len(values)
        self._A.stateIncrease()
        self._pc.setOperators(self._A, self._A)
        try:
            self._pc.setUp()
            reason = self._pc.getFailedReason()
        except PETSc.Error as error:
            reason = str(error).splitlines()[-1]
        if reason:
            raise RuntimeError(
                f"the stiffness of the RVE could not be factorised ({reason}): it may be singular, e.g. a part that "
                "nothing holds, or a material that has lost its stiffness"
            )
        self._stale = False
        self.factorisations += 1

    def _precondition(self, r: Array) -> Array:
        z = np.empty_like(r)
        # The rows of a C array are the columns of PETSc's dense matrices: no copies.
        blocks = [PETSc.Mat().createDense(a.T.shape, array=a.T, comm=MPI.COMM_SELF) for a in (r, z)]
        self._pc.matApply(*blocks)
        for block in blocks:
            block.destroy()
        return z


def _places(matrix: scipy.sparse.bsr_matrix) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of each value of a matrix of blocks, in the order of its data."""
    blocks, h, w = matrix.data.shape
    row = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    rows = row[:, None, None] * h + np.arange(h)[:, None]
    columns = matrix.indices[:, None, None].astype(np.int64) * w + np.arange(w)
    return tuple(np.broadcast_to(a, (blocks, h, w)).ravel() for a in (rows, columns))


def conjugate_directions(
    multiply: Callable[[Array, npt.NDArray[np.int64]], Array],
    precondition: Callable[[Array], Array],
    x: Array,
    r: Array,
    tolerance: Array,
    symmetric: bool,
    limit: int,
) -> npt.NDArray[np.int64]:
    """Preconditioned Krylov iterations for m systems at once, each with a matrix of its own.

    Directions p are made conjugate to the earlier ones: pᵢ·A pⱼ = 0 for symmetric positive definite matrices, which is
    the method of conjugate gradients and needs the last direction only; A pᵢ·A pⱼ = 0 for others, which minimises the
    residual (GCR: Eisenstat, Elman & Schultz, SIAM J. Numer. Anal. 20, 1983, 345–357) and needs them all.

    Args:
        multiply: (v, rows) → product of the matrix of each system in `rows` with its vector, (len(rows), n) both.
        precondition: (rows, n) → (rows, n).
        x, r: solutions and residuals (m, n), improved in place. A system with A not definite is left as it is.
        tolerance: (m,) on the norm of r. limit: iterations at most.

    Returns:
        Iterations of each system (m,).
    """
    used = np.zeros(len(r), dtype=np.int64)
    live = np.arange(len(r))
    directions: list[tuple[Array, Array, Array, Array]] = []
    usable = np.ones(len(r), dtype=bool)
    for _ in range(limit):
        going = usable & (np.linalg.norm(r[live], axis=1) > tolerance[live])
        if not going.all():
            live = live[going]
            directions = [tuple(a[going] for a in d) for d in directions]
        if not live.size:
            break
        p = precondition(r[live])
        ap = multiply(p, live)
        used[live] += 1
        for q, aq, t, length in directions:
            share = (_dot(ap, t) / length)[:, None]
            p -= share * q
            ap -= share * aq
        t = p if symmetric else ap
        length = _dot(ap, t)
        usable = length > 0
        step = np.divide(_dot(r[live], t), length, out=np.zeros(live.size), where=usable)[:, None]
        x[live] += step * p
        r[live] -= step * ap
        directions = [*([] if symmetric else directions), (p, ap, t, length)]
    return used


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("mn,mn->m", a, b)
