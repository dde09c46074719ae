# SPDX-License-Identifier: MIT
"""The stiffness of the unknowns: one sparsity structure and one symbolic factorisation for all points of an RVE.

Points are solved side by side. Their matrices differ little, so one factor (that of their mean) preconditions all of
them, also after later updates. A factor applied to many vectors at once costs a fraction of as many single
applications, because its entries pass through memory once.

This needs positive definite matrices that are close to each other. Other matrices are factorised by themselves, which
works for indefinite ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
from mpi4py import MPI
from petsc4py import PETSc

from fe2.boundary import Unknowns
from fe2.petsc_options import default_options

Array = npt.NDArray[np.float64]

# Cost of a factorisation in applications to a single vector; in applications to sixteen vectors it is two (CHOLMOD, 2D
# RVEs of degree 2 with 20,000 unknowns).
FACTORISATION = 10

# A factor is replaced when a solve with it needs more applications than the first number; with a factor of the present
# mean, no convergence within the second means that the matrices are too far apart.
_PATIENCE = 4
_LIMIT = 200

# CHOLMOD prints nothing about a matrix that is not positive definite. It raises an exception for it where the factor is
# LLᵀ; with its choice for small matrices, LDLᵀ, it would factorise an indefinite one.
_QUIET = {"mat_cholmod_print": 0}
_DEFINITE_ONLY = {"mat_cholmod_print": 0, "mat_cholmod_final_asis": 0, "mat_cholmod_final_ll": 1}

# PETSc's PCFailedReason in words.
_REASONS = {1: "a zero in its structure", 2: "a pivot is zero", 3: "out of memory"}

# Largest residual, relative to the right-hand side, of a solution with the factor of its own matrix. A direct solver
# leaves some 1e-16 times the condition number; Newton's method needs far fewer digits.
_SINGULAR = 1e-6


class NoFactor(RuntimeError):
    """A matrix that could not be factorised, and why."""


@dataclass(frozen=True, slots=True)
class Solutions:
    """Solutions with m matrices side by side.

    Args:
        x: (m, k, unknowns).
        applications: (m,) of the factor.
        solved: (m,) matrices solved with to the tolerance; others may be singular or not positive definite.
    """

    x: Array
    applications: npt.NDArray[np.int64]
    solved: npt.NDArray[np.bool_]


class ReducedStiffness:
    """Solves with the stiffness of the unknowns, K = Tᵀ K_full T, under the side condition G w = 0 if there is one.

    Args:
        unknowns: those of the boundary condition.
        pattern: full stiffness matrix whose sparsity all later ones share.
        symmetric: conjugate gradients and Cholesky, else minimal residuals (GCR) and LU.
        prefix: of the PETSc options of the preconditioner; those of the factor of a single matrix begin with
            `prefix`direct_, or with `prefix`own_ if it must be positive definite.

    Attributes:
        size: values per matrix.
        factorisations: number of them since `reset`.
    """

    def __init__(self, unknowns: Unknowns, pattern: scipy.sparse.bsr_matrix, *, symmetric: bool, prefix: str):
        self.unknowns, self.symmetric = unknowns, symmetric
        n = unknowns.size
        rows, columns = _coordinates(pattern)
        i, j = unknowns.index[rows], unknowns.index[columns]
        kept = np.flatnonzero((i >= 0) & (j >= 0))
        entries, first, slot = np.unique(i[kept] * n + j[kept], return_index=True, return_inverse=True)
        self.size = entries.size
        # Each value comes from one entry; those of tied degrees of freedom from more.
        more = np.setdiff1d(np.arange(kept.size), first)
        self._first, self._more, self._slot = kept[first], kept[more], slot[more]
        indices = (entries % n).astype(PETSc.IntType)
        indptr = np.searchsorted(entries // n, np.arange(n + 1)).astype(PETSc.IntType)
        self._matrix = scipy.sparse.csr_matrix((np.zeros(self.size), indices, indptr), shape=(n, n))
        self._mean, self._single = (
            _Factor(self._matrix, symmetric, definite, prefix + ("" if definite else "direct_"))
            for definite in (True, False)
        )
        self._own = _Factor(self._matrix, symmetric, True, prefix + "own_", _DEFINITE_ONLY)
        self.reset()

    def destroy(self) -> None:
        """Free the PETSc objects."""
        for factor in (self._mean, self._single, self._own):
            factor.destroy()

    def reset(self) -> None:
        """Drop the factor, so that later results do not depend on earlier solves."""
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

    def solve(self, values: Sequence[Array], rhs: Array, rtol: npt.ArrayLike) -> Solutions:
        """Solve with m matrices side by side.

        Args:
            values: m arrays (size,) from `reduce`.
            rhs: (m, k, unknowns), k right-hand sides for each.
            rtol: (m,) or scalar, the residual relative to the right-hand side.

        Raises:
            NoFactor: the mean of the matrices is not positive definite, or not finite.
        """
        m, k, n = rhs.shape
        if n == 0:  # an RVE whose nodes are all held or tied to one that is
            return Solutions(rhs.copy(), np.zeros(m, dtype=np.int64), np.ones(m, dtype=bool))
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

        def unsolved() -> npt.NDArray[np.int64]:
            return np.unique(np.flatnonzero(~(np.linalg.norm(r, axis=1) <= tolerance)) // columns)

        left = unsolved()
        while left.size:
            fresh = self._stale
            if fresh:
                mean = np.zeros(self.size)
                for i in left:
                    mean += values[int(i)]
                mean /= left.size
                self._mean.make(mean)
                self._stale = False
                self.factorisations += 1
            limit = _LIMIT if fresh else _PATIENCE
            used += conjugate_directions(multiply, self._mean.apply, x, r, tolerance, self.symmetric, limit)
            left = unsolved()
            if fresh:
                break
            self._stale = left.size > 0
        solved = np.ones(m, dtype=bool)
        solved[left] = False
        solutions: Array = x.reshape(m, columns, n)
        if g is not None:
            for own in (solutions[i] for i in np.flatnonzero(solved)):
                self._constrain(own, k)
        return Solutions(solutions[:, :k], used.reshape(m, columns).sum(axis=1), solved)

    def solve_alone(self, values: Array, rhs: Array) -> Array:
        """Solutions (k, unknowns) with one matrix (size,), which may be indefinite, for `rhs` (k, unknowns).

        Raises:
            NoFactor: the matrix is singular to working precision.
        """
        k, g = len(rhs), self.unknowns.constraint
        if g is not None:
            rhs = np.concatenate([rhs, g])
        self._single.make(values)
        x = self._single.apply(np.ascontiguousarray(rhs))
        residual = np.linalg.norm(rhs - self.multiply(values, x), axis=1)
        if not (residual <= _SINGULAR * np.linalg.norm(rhs, axis=1)).all():
            raise NoFactor("the stiffness is singular to working precision")
        if g is not None:
            self._constrain(x, k)
        return x[:k]

    def factorise_definite(self, values: Array) -> bool:
        """Factorise one matrix (size,) for `apply_definite`; False if it is not positive definite.

        Cholesky's factor exists for positive definite matrices alone, up to rounding. It is that of the whole matrix,
        whether there is a side condition or not: with one, False does not say that the energy has no minimum.
        """
        if not self.unknowns.size:
            return True
        try:
            self._own.make(values)
        except NoFactor:
            return False
        return self._own.positive()

    def apply_definite(self, rhs: Array) -> Array:
        """Solutions (k, unknowns) with the matrix last factorised by `factorise_definite`, for `rhs` (k, unknowns)."""
        if not self.unknowns.size:
            return rhs.copy()
        k, g = len(rhs), self.unknowns.constraint
        x = self._own.apply(np.ascontiguousarray(rhs if g is None else np.concatenate([rhs, g])))
        if g is not None:
            self._constrain(x, k)
        return x[:k]

    def negative_eigenvalues(self) -> int | None:
        """Number of them in the last `solve_alone`; None if unknown: without symmetry or MUMPS, with a side condition."""
        return self._single.negative() if self.symmetric and self.unknowns.constraint is None else None

    def _constrain(self, x: Array, k: int) -> None:
        """Impose the side condition on the first k solutions x (k + d, unknowns), by the last d, those for its rows."""
        g, y = self.unknowns.constraint, x[k:]
        assert g is not None
        x[:k] -= np.linalg.solve((y @ g.T).T, (x[:k] @ g.T).T).T @ y


def _has(package: str) -> bool:
    return bool(PETSc.Sys.hasExternalPackage(package))


class _Factor:
    """A PETSc factor of matrices with one sparsity structure.

    Args:
        structure: the sparsity.
        symmetric: Cholesky or LDLᵀ; without symmetry LU.
        definite: Cholesky, for symmetric positive definite matrices; otherwise LDLᵀ.
        prefix: of the PETSc options.
        cholmod: PETSc options of CHOLMOD that hold unless the user gives others.
    """

    def __init__(
        self,
        structure: scipy.sparse.csr_matrix,
        symmetric: bool,
        definite: bool,
        prefix: str,
        cholmod: dict[str, Any] = _QUIET,
    ):
        self._structure, self._symmetric, self._definite, self._prefix = structure, symmetric, definite, prefix
        self._cholmod = cholmod
        packages = ("cholmod", "mumps") if symmetric and definite else ("mumps",)
        found = [p for p in packages if _has(p)]
        self._package = found[0] if found else "petsc"
        # PETSc's own Cholesky factor does not pivot, so LU replaces it for indefinite matrices.
        self._type = "cholesky" if symmetric and (definite or found) else "lu"
        self._A: Any = None  # a PETSc.Mat
        self._pc: Any = None  # a PETSc.PC

    def _create(self) -> None:
        a = self._structure
        self._values = np.zeros(a.nnz)
        self._A = PETSc.Mat().createAIJWithArrays(a.shape, (a.indptr, a.indices, self._values), comm=MPI.COMM_SELF)
        self._A.setOptionsPrefix(self._prefix)
        self._A.setOption(PETSc.Mat.Option.SYMMETRIC, self._symmetric)
        if self._symmetric and self._definite:
            self._A.setOption(PETSc.Mat.Option.SPD, True)
        self._pc = PETSc.PC().create(MPI.COMM_SELF)
        self._pc.setOptionsPrefix(self._prefix)
        self._pc.setType(self._type)
        self._pc.setFactorSolverType(self._package)
        self._pc.setFromOptions()

    def make(self, values: Array) -> None:
        """Factorise the matrix of `values`, in the order of the structure; raises NoFactor."""
        if self._pc is None:
            self._create()
        self._values[:] = values
        self._A.stateIncrease()
        self._pc.setOperators(self._A, self._A)
        try:
            with default_options(self._prefix, self._cholmod if self._package == "cholmod" else {}):
                self._pc.setUp()
            code = self._pc.getFailedReason()
            reason = _REASONS.get(code, f"PETSc's reason {code}") if code else ""
        except PETSc.Error as error:
            reason = str(error).splitlines()[-1].removeprefix("[0] ")
        if reason:
            self.destroy()  # PETSc leaves the pieces of a factor that failed: the next one begins anew
            raise NoFactor(f"the stiffness could not be factorised ({reason})")

    def apply(self, r: Array) -> Array:
        """Solutions (k, unknowns) for the rows of `r`, an array in C order."""
        z = np.empty_like(r)
        # The rows of a C array are the columns of PETSc's dense matrices: no copies.
        blocks = [PETSc.Mat().createDense(a.T.shape, array=a.T, comm=MPI.COMM_SELF) for a in (r, z)]
        self._pc.matApply(*blocks)
        for block in blocks:
            block.destroy()
        return z

    def negative(self) -> int | None:
        """Negative eigenvalues, by Sylvester's law those of D in LDLᵀ of MUMPS; None if the factor is another one."""
        ours = self._package == "mumps" and self._type == "cholesky" and self._pc.getType() == "cholesky"
        return int(self._pc.getFactorMatrix().getMumpsInfog(12)) if ours else None

    def positive(self) -> bool:
        """Whether all pivots are positive.

        CHOLMOD factorises no other matrix. PETSc's own LDLᵀ does not pivot and is accurate up to the first pivot that is
        not positive, which is all that is asked here.
        """
        if self._package == "cholmod" or self._pc.getType() != "cholesky":
            return True
        if self._package == "mumps":
            return self.negative() == 0
        negative, zero, _ = self._pc.getFactorMatrix().getInertia()
        return not (negative or zero)

    def destroy(self) -> None:
        """Free the PETSc objects; `make` creates them again."""
        if self._pc is not None:
            self._pc.destroy()
            self._A.destroy()
            self._A = self._pc = None


def _coordinates(matrix: scipy.sparse.bsr_matrix) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of each value of a block matrix, in the order of its data."""
    blocks, h, w = matrix.data.shape
    row = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    rows = row[:, None, None] * h + np.arange(h)[:, None]
    columns = matrix.indices[:, None, None].astype(np.int64) * w + np.arange(w)
    return np.broadcast_to(rows, (blocks, h, w)).ravel(), np.broadcast_to(columns, (blocks, h, w)).ravel()


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
        x: solutions (m, n), improved in place; a system with A not definite is left as it is.
        r: residuals (m, n), updated in place.
        tolerance: (m,) on the norm of r.
        symmetric: conjugate gradients, else GCR.
        limit: iterations at most.

    Returns:
        Iterations of each system (m,).
    """
    used = np.zeros(len(r), dtype=np.int64)
    live = np.arange(len(r))
    directions: list[tuple[Array, Array, Array, Array]] = []
    usable: npt.NDArray[np.bool_] = np.ones(len(r), dtype=bool)
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
        usable = np.asarray(length > 0)
        step = np.divide(_dot(r[live], t), length, out=np.zeros(live.size), where=usable)[:, None]
        x[live] += step * p
        r[live] -= step * ap
        directions = [*([] if symmetric else directions), (p, ap, t, length)]
    return used


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("mn,mn->m", a, b)
