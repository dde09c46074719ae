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

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
from petsc4py import PETSc

from fe2.boundary import Unknowns
from fe2.factor import DEFINITE_ONLY, Factor, NoFactor

Array = npt.NDArray[np.float64]

# Cost of a factorisation in applications to a single vector; in applications to sixteen vectors it is two (CHOLMOD, 2D
# RVEs of degree 2 with 20,000 unknowns).
FACTORISATION = 10

# A factor is replaced when a solve with it needs more applications than the first number; with a factor of the present
# mean, no convergence within the second means that the matrices are too far apart.
_PATIENCE = 4
_LIMIT = 200

# Largest residual, relative to the right-hand side, of a solution with the factor of its own matrix. A direct solver
# leaves some 1e-16 times the condition number; Newton's method needs far fewer digits.
_SINGULAR = 1e-6


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
            Factor(self._matrix, symmetric, definite, prefix + ("" if definite else "direct_"))
            for definite in (True, False)
        )
        g, pins = unknowns.constraint, unknowns.pins
        # The side condition's rows and those of the pins, see `_pinned`, and where the values of the pins are.
        self._rows = np.ascontiguousarray(np.concatenate([g, np.arange(n) == pins[:, None]])) if pins.size else g
        starts = zip(indptr[pins], indptr[pins + 1], pins, strict=True)
        self._diagonal = np.array([a + np.searchsorted(indices[a:b], i) for a, b, i in starts], dtype=np.int64)
        self._own = Factor(self._matrix, symmetric, True, prefix + "own_", DEFINITE_ONLY)
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
        values, given = [self._pinned(v) for v in values], values
        if n == 0:  # an RVE whose nodes are all held or tied to one that is
            return Solutions(rhs.copy(), np.zeros(m, dtype=np.int64), np.ones(m, dtype=bool))
        g = self._rows
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
            for i in np.flatnonzero(solved):
                self._constrain(solutions[i], k, self._pin(given[int(i)]))
        return Solutions(solutions[:, :k], used.reshape(m, columns).sum(axis=1), solved)

    def solve_alone(self, values: Array, rhs: Array) -> Array:
        """Solutions (k, unknowns) with one matrix (size,), which may be indefinite, for `rhs` (k, unknowns).

        Raises:
            NoFactor: the matrix is singular to working precision.
        """
        k, g, pinned = len(rhs), self._rows, self._pinned(values)
        if g is not None:
            rhs = np.concatenate([rhs, g])
        self._single.make(pinned)
        x = self._single.apply(np.ascontiguousarray(rhs))
        residual = np.linalg.norm(rhs - self.multiply(pinned, x), axis=1)
        if not (residual <= _SINGULAR * np.linalg.norm(rhs, axis=1)).all():
            raise NoFactor("the stiffness is singular to working precision")
        if g is not None:
            self._constrain(x, k, self._pin(values))
        return x[:k]

    def definite(self, values: Array) -> bool | None:
        """Whether one matrix (size,) is positive definite under the side condition; if so, `apply_definite` follows.

        Cholesky's factor exists for positive definite matrices alone, up to rounding. With a side condition, None: it
        could be, although the matrix is not.
        """
        if not self.unknowns.size:
            return True
        self._factorised = values
        try:
            self._own.make(self._pinned(values))
            found = self._own.positive()
        except NoFactor:
            found = False
        if self._rows is None or not found:
            return found or (None if self._rows is not None else False)
        if not self.unknowns.pins.size:
            return True
        # By Haynsworth's law for the inertia of bordered matrices: as many positive eigenvalues as side conditions.
        assert self._rows is not None
        y = self._own.apply(self._rows)
        small, scale = self._bordered(y, self._pin(values)), np.einsum("kn,kn->k", y, self._rows) ** -0.5
        positive = int((np.linalg.eigvalsh(scale * small * scale[:, None]) > 0).sum())
        return positive == len(small) - self.unknowns.pins.size

    def apply_definite(self, rhs: Array) -> Array:
        """Solutions (k, unknowns) with the matrix last found definite, for `rhs` (k, unknowns)."""
        if not self.unknowns.size:
            return rhs.copy()
        k, g = len(rhs), self._rows
        x = self._own.apply(np.ascontiguousarray(rhs if g is None else np.concatenate([rhs, g])))
        if g is not None:
            self._constrain(x, k, self._pin(self._factorised))
        return x[:k]

    def negative_eigenvalues(self) -> int | None:
        """Number of them in the last `solve_alone`; None if unknown: no symmetry or MUMPS, or a side condition."""
        return self._single.negative() if self.symmetric and self._rows is None else None

    def _pin(self, values: Array) -> float:
        """What the diagonal of the pins is raised by."""
        return float(abs(values[self._diagonal]).max(initial=0.0)) or float(abs(values).max(initial=0.0))

    def _pinned(self, values: Array) -> Array:
        """Values of K' = K + a Σ p pᵀ, with unit vectors p of the pins and a of the size of K; without pins K."""
        if not self._diagonal.size:
            return values
        pinned = values.copy()
        pinned[self._diagonal] += self._pin(values)
        return pinned

    def _bordered(self, y: Array, pin: float) -> Array:
        """E K'⁻¹ Eᵀ, less 1/a for the pins, with all rows E and their solutions y = (K'⁻¹ Eᵀ)ᵀ."""
        assert self._rows is not None
        small: Array = y @ self._rows.T
        last = np.arange(len(small) - self._diagonal.size, len(small))
        small[last, last] -= 1 / pin if last.size else 0.0
        return small

    def _constrain(self, x: Array, k: int, pin: float) -> None:
        """Impose the side condition on the first k solutions x with K', by the others, those for its rows and the pins.

        K w = b − Gᵀ λ is K' w = b − Gᵀ λ + a Σ p (p·w), so that w = x − yᵀ c with G w = 0 and p·w = −c/a.
        """
        g, y = self._rows, x[k:]
        assert g is not None
        x[:k] -= np.linalg.solve(self._bordered(y, pin).T, (x[:k] @ g.T).T).T @ y


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
