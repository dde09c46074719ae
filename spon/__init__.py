# SPDX-License-Identifier: MIT
"""Operator learning between finite element spaces.

`load` a `Model`, evaluate and `certify` it. Training is in `spon.learn`, what to compare with in `spon.companions` and
`spon.variational`.
Constitutive laws at points are programs that torch evaluates: `Program`, `PhaseLaw`, `LocalLaws`.

It evaluates and trains with torch and numpy alone. DOLFINx is needed only where a function space is read, and is
imported there, so that a model is trained, evaluated and benchmarked on a machine that has no FEniCSx.
"""

from spon.cell import CellData, CellSpace
from spon.certificate import Certificate, certify
from spon.equino import CellFields, EquiNO, Fields
from spon.files import ModelFileError, load
from spon.model import Model
from spon.point_law import LocalLaws, LocalSolve, PhaseLaw
from spon.program import Program, ProgramError
from spon.reduced import ReducedModel, ReducedNotConverged

__all__ = [
    "CellData",
    "CellFields",
    "CellSpace",
    "Certificate",
    "EquiNO",
    "Fields",
    "LocalLaws",
    "LocalSolve",
    "Model",
    "ModelFileError",
    "PhaseLaw",
    "Program",
    "ProgramError",
    "ReducedModel",
    "ReducedNotConverged",
    "certify",
    "load",
]
