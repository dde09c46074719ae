# SPDX-License-Identifier: MIT
"""The stiffness of the unknowns: one sparsity structure and one symbolic factorisation for all points of an RVE.

A numeric factor outlives the matrix it was made of: as preconditioner of a Krylov method it solves with the next
matrices in a few iterations, each far cheaper than a new factorisation. Only when the iterations become too many is the
factor made anew.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse
from mpi4py import MPI
from petsc4py import PETSc

from fe2.boundary import Unknowns

Array = npt.NDArray[np.float64]

# One MUMPS factorisation costs about as much as this many iterations (measured on 2D P2 cells of 20,000 unknowns).
_ITERATIONS_PER_FACTOR = 5


class ReducedStiffness:
    """Solves with the stiffness of the unknowns, K = Tᵀ K_full T, under the side condition G w = 0 if there is one.

    Args:
        unknowns: boundary condition. pattern: full stiffness matrix whose sparsity all later ones share.
        symmetric: conjugate gradients and Cholesky, else GMRES and LU. prefix: of the PETSc options.

    Attributes:
        factorisations, iterations: counted since `reset`, the measure of the work done.
    """

    def __init__(self, unknowns: Unknowns, pattern: scipy.sparse.csr_matrix, *, symmetric: bool, prefix: str):
        self.unknowns = unknowns
        n = unknowns.size
        rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
        i, j = unknowns.index[rows], unknowns.index[pattern.indices]
        self._kept = np.flatnonzero((i >= 0) & (j >= 0))
        entries, self._slot = np.unique(i[self._kept] * n + j[self._kept], return_inverse=True)
        indices = (entries % n).astype(PETSc.IntType)
        indptr = np.searchsorted(entries // n, np.arange(n + 1)).astype(PETSc.IntType)
        self.matrix = scipy.sparse.csr_matrix((np.zeros(entries.size), indices, indptr), shape=(n, n))
        # PETSc works on the arrays of the scipy matrix.
        self._A = PETSc.Mat().createAIJWithArrays((n, n), (indptr, indices, self.matrix.data), comm=MPI.COMM_SELF)
        if symmetric:
            self._A.setOption(PETSc.Mat.Option.SPD, True)
        self._ksp = PETSc.KSP().create(MPI.COMM_SELF)
        self._ksp.setOptionsPrefix(prefix)
        self._ksp.setType("cg" if symmetric else "gmres")
        self._ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        if not symmetric:
            self._ksp.setPCSide(PETSc.PC.Side.RIGHT)
        pc = self._ksp.getPC()
        pc.setType("cholesky" if symmetric else "lu")
        pc.setFactorSolverType("mumps")
        self._ksp.setFromOptions()
        self._ksp.setOperators(self._A)
        self._x, self._b = self._A.createVecs()
        self._constraint_solution: Array | None = None
        self.reset()

    def destroy(self) -> None:
        """Free the PETSc objects."""
        for o in (self._ksp, self._A, self._x, self._b):
            o.destroy()

    def reset(self) -> None:
        """Forget the factor and the counts, so that what follows depends on nothing that went before."""
        self._factored = False
        self.factorisations = self.iterations = 0

    @property
    def work(self) -> float:
        """Work since `reset` in units of one solve with a factor."""
        return self.iterations + _ITERATIONS_PER_FACTOR * self.factorisations

    def update(self, full: scipy.sparse.csr_matrix) -> None:
        """Take the values of a full stiffness matrix."""
        self.matrix.data[:] = np.bincount(self._slot, full.data[self._kept], minlength=self.matrix.data.size)
        self._A.stateIncrease()
        self._ksp.setOperators(self._A)
        self._constraint_solution = None

    def solve(self, rhs: Array, rtol: float) -> Array:
        """Solution (size,) or (size, k) for `rhs` of that shape, to the relative residual `rtol`.

        Raises:
            RuntimeError: the factorisation failed (a singular stiffness).
        """
        x = self._unconstrained(rhs, rtol)
        g = self.unknowns.constraint
        if g is None:
            return x
        if self._constraint_solution is None:
            self._constraint_solution = self._unconstrained(g.T, 1e-12)
        y = self._constraint_solution
        return x - y @ np.linalg.solve(g @ y, g @ x)

    def _unconstrained(self, rhs: Array, rtol: float) -> Array:
        if rhs.ndim == 2:
            return np.stack([self._unconstrained(column, rtol) for column in rhs.T], axis=1)
        self._b.array[:] = rhs
        for attempt in range(2):
            if not self._factored:
                # The PC by itself: KSPSetUp would see no reason to factorise again.
                pc = self._ksp.getPC()
                pc.setReusePreconditioner(False)
                pc.setOperators(self._A, self._A)
                pc.setUp()
                pc.setReusePreconditioner(True)
                self._factored = True
                self.factorisations += 1
                fresh = True
            else:
                fresh = attempt > 0
            self._ksp.setTolerances(rtol=rtol, atol=1e-300, max_it=_ITERATIONS_PER_FACTOR if not fresh else 100)
            self._ksp.solve(self._b, self._x)
            self.iterations += self._ksp.getIterationNumber()
            if self._ksp.getConvergedReason() > 0:
                return self._x.array.copy()
            if fresh:
                break
            self._factored = False
        raise RuntimeError(
            f"the stiffness of the RVE could not be solved with (PETSc reason {self._ksp.getConvergedReason()}): "
            "it may be singular, e.g. a part that nothing holds, or a material that has lost its stiffness"
        )
