# SPDX-License-Identifier: MIT
"""Operator learning on finite element spaces, with torch, NumPy and SciPy alone.

The packages, from the top down; each imports only those below it:

    spon.microstructure      models of RVEs that differ from point to point
    spon.equino              EquiNO, the model of one RVE: training, certificate, fast evaluation, baselines
    spon.operators           SPON, operator networks between finite element spaces
    spon.reduced             snapshots of an RVE, its modes, and Galerkin's method in them
    spon.spaces, spon.training, spon.constitutive          spaces as tensors; fitting; laws at points
    spon.sparse, spon.archive, spon.jit, spon.arguments    matrices, files, machine code, input

The names that most scripts need are also here: `load`; `EquiNO`, `EquiNOOptions`, `Evaluator`, `certify`;
`OperatorNetwork`, `Preconditioner`; `ModeNetwork`, `GridRVEs`. Only `spon.spaces` needs DOLFINx, to read a function
space: models are trained, evaluated and benchmarked on machines without FEniCSx.
"""

from spon import constitutive, equino, microstructure, operators, reduced, spaces, training
from spon.archive import ModelFileError, load
from spon.constitutive.phase_law import LocalLaws, LocalSolve, PhaseLaw
from spon.constitutive.program import Program, ProgramError
from spon.equino.certificate import Certificate, certify
from spon.equino.corrector import ModalCorrector, ModalSolution
from spon.equino.evaluate.evaluator import Evaluator
from spon.equino.evaluate.export_c import export_c
from spon.equino.model import EquiNO
from spon.equino.options import EquiNOOptions
from spon.microstructure import ModeNetwork, RVEMesh, RVEResponse
from spon.microstructure.fft import GridNotConverged, GridResponse, GridRVEs
from spon.operators.network import OperatorNetwork
from spon.operators.operator_samples import OperatorSamples
from spon.operators.preconditioner import Preconditioner
from spon.operators.structure import Structure
from spon.reduced.galerkin import ReducedModel, ReducedNotConverged
from spon.reduced.model import Model
from spon.reduced.modes import ModesAtPoints, RVEModes
from spon.reduced.snapshots import RVESnapshots, RVESpace
from spon.spaces.graphs import Graph, graph
from spon.spaces.read import read_space
from spon.spaces.space import MixedSpace, Space
from spon.sparse import SparseOperator
from spon.training.deprecated import renamed as _renamed
from spon.training.options import TrainingOptions

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "EquiNO",
    "EquiNOOptions",
    "Evaluator",
    "Graph",
    "GridNotConverged",
    "GridRVEs",
    "GridResponse",
    "LocalLaws",
    "LocalSolve",
    "MixedSpace",
    "ModalCorrector",
    "ModalSolution",
    "ModeNetwork",
    "Model",
    "ModelFileError",
    "ModesAtPoints",
    "OperatorNetwork",
    "OperatorSamples",
    "PhaseLaw",
    "Preconditioner",
    "Program",
    "ProgramError",
    "RVEMesh",
    "RVEModes",
    "RVEResponse",
    "RVESnapshots",
    "RVESpace",
    "ReducedModel",
    "ReducedNotConverged",
    "Space",
    "SparseOperator",
    "Structure",
    "TrainingOptions",
    "certify",
    "constitutive",
    "equino",
    "export_c",
    "graph",
    "load",
    "microstructure",
    "operators",
    "read_space",
    "reduced",
    "spaces",
    "training",
]

# Old name → new name.
_NEW_NAMES = {
    "Operator": "spon.operators.network.OperatorNetwork.from_discretisation",
    "CellData": "spon.RVESnapshots",
    "CellFields": "spon.RVEModes",
    "CellSpace": "spon.RVESpace",
    "Fields": "spon.ModesAtPoints",
    "Refined": "spon.ModalSolution",
    "Refinement": "spon.ModalCorrector",
    "CellMesh": "spon.RVEMesh",
    "CellResponse": "spon.RVEResponse",
    "GridCells": "spon.GridRVEs",
    "Samples": "spon.OperatorSamples",
    "companions": "spon.equino.baselines",
    "constraints": "spon.spaces.constraints",
    "learn": "spon.equino.training",
    "load_modes": "spon.load",
    "load_operator": "spon.load",
    "load_samples": "spon.load",
    "load_space": "spon.load",
    "modes": "spon.microstructure",
    "norms": "spon.spaces.norms",
    "preconditioning": "spon.operators.preconditioner",
    "transfer": "spon.spaces.transfer",
    "progress": "spon.training.progress",
    "variational": "spon.equino.vpionet",
}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)
