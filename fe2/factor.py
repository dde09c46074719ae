# SPDX-License-Identifier: MIT
"""Factors of matrices with one sparsity structure, by the packages that PETSc has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
from mpi4py import MPI
from petsc4py import PETSc

from fe2.petsc_options import default_options

Array = npt.NDArray[np.float64]

# CHOLMOD prints nothing about a matrix that is not positive definite. It raises an exception for it where the factor is
# LLᵀ; with its choice for small matrices, LDLᵀ, it would factorise an indefinite one.
_QUIET = {"mat_cholmod_print": 0}
DEFINITE_ONLY = {"mat_cholmod_print": 0, "mat_cholmod_final_asis": 0, "mat_cholmod_final_ll": 1}

# PETSc's PCFailedReason in words.
_REASONS = {1: "a zero in its structure", 2: "a pivot is zero", 3: "out of memory"}


class NoFactor(RuntimeError):
    """A matrix that could not be factorised, and why."""


def _has(package: str) -> bool:
    return bool(PETSc.Sys.hasExternalPackage(package))


class Factor:
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

        CHOLMOD factorises no other matrix. PETSc's own LDLᵀ does not pivot and is accurate up to the first pivot that
        is not positive, which is all that is asked here.
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
