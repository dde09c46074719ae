# SPDX-License-Identifier: MIT
"""Constitutive laws at points as programs that torch and machine code evaluate, and the duals of their energies."""

from spon.constitutive.duality import indicator, largest_tangent
from spon.constitutive.phase_law import LocalLaws, LocalSolve, PhaseLaw
from spon.constitutive.program import Program, ProgramError

__all__ = [
    "LocalLaws",
    "LocalSolve",
    "PhaseLaw",
    "Program",
    "ProgramError",
    "indicator",
    "largest_tangent",
]
