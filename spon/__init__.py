# SPDX-License-Identifier: MIT
"""Operator learning between finite element spaces.

`load` a `Model`, evaluate it, at many points by an `Evaluator`, and `certify` it; `export_c` writes it for programs
without Python. Training is in `spon.learn`, what to compare with in `spon.companions` and `spon.variational`.
Finite element spaces are tensors: `read_space`, and then `spon.constraints`, `spon.norms`, `spon.transfer`, `graph`.
Operators between them are learned by an `OperatorNetwork`, trained by `spon.operators.train` on samples that
`load_samples` reads; one that is linear makes a `Preconditioner`, trained by `spon.preconditioning.train`.
Cells that differ from point to point are a `ModeNetwork`, trained by `spon.modes.train`; on regular grids many are
solved at once, as full-field problems, by `GridCells`.
Constitutive laws at points are programs that torch evaluates: `Program`, `PhaseLaw`, `LocalLaws`.

It evaluates and trains with torch, NumPy and SciPy alone. DOLFINx is needed only where a function space is read, and is
imported there, so that a model is trained, evaluated and benchmarked on a machine that has no FEniCSx.
"""

from spon.archive import ModelFileError
from spon.cell import CellData, CellSpace
from spon.certificate import Certificate, certify
from spon.equino import CellFields, EquiNO, Fields
from spon.evaluation import Evaluator
from spon.files import load
from spon.graphs import Graph, graph
from spon.grid import GridCells, GridNotConverged, GridResponse
from spon.model import Model
from spon.modes import CellMesh, CellResponse, ModeNetwork, load_modes
from spon.operator import Operator, OperatorNetwork, load_operator
from spon.point_law import LocalLaws, LocalSolve, PhaseLaw
from spon.preconditioning import Preconditioner
from spon.program import Program, ProgramError
from spon.reading import read_space
from spon.reduced import ReducedModel, ReducedNotConverged
from spon.refined import Refined, Refinement
from spon.samples import Samples, load_samples
from spon.spaces import MixedSpace, Space, load_space
from spon.sparse import SparseOperator
from spon.standalone import export_c

__all__ = [
    "CellData",
    "CellFields",
    "CellMesh",
    "CellResponse",
    "CellSpace",
    "Certificate",
    "EquiNO",
    "Evaluator",
    "Fields",
    "Graph",
    "GridCells",
    "GridNotConverged",
    "GridResponse",
    "LocalLaws",
    "LocalSolve",
    "MixedSpace",
    "ModeNetwork",
    "Model",
    "ModelFileError",
    "Operator",
    "OperatorNetwork",
    "PhaseLaw",
    "Preconditioner",
    "Program",
    "ProgramError",
    "ReducedModel",
    "ReducedNotConverged",
    "Refined",
    "Refinement",
    "Samples",
    "Space",
    "SparseOperator",
    "certify",
    "export_c",
    "graph",
    "load",
    "load_modes",
    "load_operator",
    "load_samples",
    "load_space",
    "read_space",
]
