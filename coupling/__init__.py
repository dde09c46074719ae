# SPDX-License-Identifier: MIT
"""The plug between `fe2` and `spon`.

There is the translation of UFL to programs that torch evaluates (`translate`, `phase_law`, `local_laws`), snapshots as
arrays to learn from (`rve_snapshots`), laws backed by trained models (`SurrogateLaw`, and `CertifiedLaw`, which takes
the model's modes or the exact law where the certificate is not good enough), on a device of their own or one that
ranks share (`place`), and the fields inside of a point (`micro_fields`). Operator networks act on functions of DOLFINx
(`FieldOperator`), precondition its solvers (`LearnedPC`), and learn from the residual of a form (`Residual`) or from
what its solvers found, on all ranks (`samples`). Where each point has a cell of its own, a network of their modes
(`mode_network`) makes the law (`ModesLaw`). Image cells are solved in batches by FFT (`grid_cells`, `GridLaw`).

Laws also serve programs that know nothing of `fe2`: `PointLaw`, `micro_simulation`, and `ExternalLaw`, the function of
an external operator in a form.

It is the only package that imports both sides: neither knows the other.
"""

from coupling.cells import ModesLaw, mode_network
from coupling.certified import CertifiedLaw
from coupling.external import ExternalLaw
from coupling.grids import GridLaw, grid_cells
from coupling.laws import OutsideRange, OutsideRangeWarning, SurrogateLaw
from coupling.manager import MicroData, micro_simulation
from coupling.micro import MicroFields, micro_fields
from coupling.operators import FieldOperator, LearnedPC, sparse_operator
from coupling.placement import Placement, place
from coupling.points import PointLaw
from coupling.residual import Residual
from coupling.sampling import samples
from coupling.snapshots import rve_snapshots
from coupling.translate import TranslationError, local_laws, phase_law, translate
from meshes.deprecation import renamed as _renamed

__version__ = "0.1.0"

__all__ = [
    "CertifiedLaw",
    "ExternalLaw",
    "FieldOperator",
    "GridLaw",
    "LearnedPC",
    "MicroData",
    "MicroFields",
    "ModesLaw",
    "OutsideRange",
    "OutsideRangeWarning",
    "Placement",
    "PointLaw",
    "Residual",
    "SurrogateLaw",
    "TranslationError",
    "grid_cells",
    "local_laws",
    "micro_fields",
    "micro_simulation",
    "mode_network",
    "phase_law",
    "place",
    "rve_snapshots",
    "samples",
    "sparse_operator",
    "translate",
]

# Old name → new name.
_NEW_NAMES: dict[str, str] = {"cell_data": "coupling.rve_snapshots"}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)
