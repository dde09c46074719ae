# SPDX-License-Identifier: MIT
"""Connects `fe2` and `spon`; the only package that imports both.

SurrogateLaw, CertifiedLaw                laws of a trained model, with the exact law as fallback
ModesLaw, mode_network                    a law of RVEs that differ from point to point
GridLaw, grid_rves                        RVEs given as images, solved in batches by FFT
assign_devices, Placement                 which device serves which ranks
micro_fields                              fields of the RVE from a model
translate, phase_law, local_laws          UFL as programs that torch evaluates
rve_snapshots, sample_operator            training data, from snapshots and from solvers
FieldOperator, LearnedPC, Residual        operator networks on functions, in solvers, trained by a form's residual
PointLaw, ExternalLaw, micro_simulation   laws for other programs
"""

import meshes.compat  # noqa: F401  (before any import of DOLFINx)
from coupling.certified import CertifiedLaw
from coupling.external_operator import ExternalLaw
from coupling.field_operator import FieldOperator, LearnedPC, sparse_operator
from coupling.grid_law import GridLaw, grid_rves
from coupling.manager import MicroData, micro_simulation
from coupling.micro_fields import MicroFields, micro_fields
from coupling.modes_law import ModesLaw, mode_network
from coupling.operator_samples import sample_operator
from coupling.placement import Placement, assign_devices
from coupling.point_law import PointLaw
from coupling.residual import Residual
from coupling.snapshots import rve_snapshots
from coupling.surrogate import SurrogateLaw
from coupling.trained_range import OutsideRange, OutsideRangeWarning
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
    "assign_devices",
    "grid_rves",
    "local_laws",
    "micro_fields",
    "micro_simulation",
    "mode_network",
    "phase_law",
    "rve_snapshots",
    "sample_operator",
    "sparse_operator",
    "translate",
]

# Old name → new name.
_NEW_NAMES: dict[str, str] = {
    "cell_data": "coupling.rve_snapshots",
    "grid_cells": "coupling.grid_rves",
    "place": "coupling.assign_devices",
    "samples": "coupling.sample_operator",
}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)
