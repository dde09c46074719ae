# SPDX-License-Identifier: MIT
"""Operator learning between finite element spaces.

There are constitutive laws at points, as programs that torch evaluates: `Program`, `PhaseLaw`, `LocalLaws`. This
package will hold finite element spaces seen as tensors, encoders, processors and decoders, the operator networks built
from them (EquiNO, SPON, SPON-MG, VPIONet, VPINN and baselines), their losses, training and model files.

It evaluates and trains with torch and numpy alone. DOLFINx is needed only where a function space is read, and is
imported there, so that a model is trained, evaluated and benchmarked on a machine that has no FEniCSx.
"""

from spon.point_law import LocalLaws, LocalSolve, PhaseLaw
from spon.program import Program, ProgramError

__all__ = ["LocalLaws", "LocalSolve", "PhaseLaw", "Program", "ProgramError"]
