# SPDX-License-Identifier: MIT
"""Constitutive laws at points as programs, evaluated by torch or machine code, and convex duality of their energies.

Program, ProgramError                     elementwise operations, as data
PhaseLaw, LocalSolve, LocalLaws           the law of a phase, and those of all points of an RVE
conjugate, energy_pair, EnergyPair        the conjugate energy, and the distance of strain and stress from a law
constitutive_error                        that distance, also where energies are not convex
largest_tangent                           an upper bound of all tangents
Measure                                   what laws and models are given; objectivity at finite strain
"""

from spon.constitutive.duality import EnergyPair, conjugate, constitutive_error, energy_pair, largest_tangent
from spon.constitutive.measure import Measure
from spon.constitutive.phase_law import LocalLaws, LocalSolve, PhaseLaw
from spon.constitutive.program import Program, ProgramError

__all__ = [
    "EnergyPair",
    "LocalLaws",
    "LocalSolve",
    "Measure",
    "PhaseLaw",
    "Program",
    "ProgramError",
    "conjugate",
    "constitutive_error",
    "energy_pair",
    "largest_tangent",
]
