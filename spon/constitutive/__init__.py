# SPDX-License-Identifier: MIT
"""Constitutive laws at points as programs, evaluated by torch or machine code, and convex duality of their energies.

Program, ProgramError                     elementwise operations, as data
PhaseLaw, LocalSolve, LocalLaws           the law of a phase, and those of all points of an RVE
conjugate, energy_pair, EnergyPair        the conjugate energy, and the distance of strain and stress from a law
largest_tangent                           an upper bound of all tangents
"""

from spon.constitutive.duality import EnergyPair, conjugate, energy_pair, largest_tangent
from spon.constitutive.phase_law import LocalLaws, LocalSolve, PhaseLaw
from spon.constitutive.program import Program, ProgramError

__all__ = [
    "EnergyPair",
    "LocalLaws",
    "LocalSolve",
    "PhaseLaw",
    "Program",
    "ProgramError",
    "conjugate",
    "energy_pair",
    "largest_tangent",
]
