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

import importlib
from typing import TYPE_CHECKING

import meshes.compat  # noqa: F401  (before any import of DOLFINx)
from meshes.deprecation import renamed as _renamed

if TYPE_CHECKING:
    from coupling.certified import CertifiedLaw
    from coupling.external_operator import ExternalLaw
    from coupling.field_operator import FieldOperator, LearnedPC, sparse_operator
    from coupling.grid_law import GridLaw, grid_rves
    from coupling.manager import MicroData, micro_simulation
    from coupling.model_fields import MicroFields, micro_fields
    from coupling.modes_law import ModesLaw, mode_network
    from coupling.operator_samples import sample_operator
    from coupling.placement import Placement, assign_devices
    from coupling.point_law import PointLaw
    from coupling.residual import Residual
    from coupling.snapshots import rve_snapshots
    from coupling.surrogate import SurrogateLaw
    from coupling.trained_range import OutsideRange, OutsideRangeWarning
    from coupling.translation import TranslationError, local_laws, phase_law, translate

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

# Public name → module, imported when the name is first used: a law then does not wait for what others need.
_MODULES = {
    "CertifiedLaw": "coupling.certified",
    "ExternalLaw": "coupling.external_operator",
    "FieldOperator": "coupling.field_operator",
    "GridLaw": "coupling.grid_law",
    "LearnedPC": "coupling.field_operator",
    "MicroData": "coupling.manager",
    "MicroFields": "coupling.model_fields",
    "ModesLaw": "coupling.modes_law",
    "OutsideRange": "coupling.trained_range",
    "OutsideRangeWarning": "coupling.trained_range",
    "Placement": "coupling.placement",
    "PointLaw": "coupling.point_law",
    "Residual": "coupling.residual",
    "SurrogateLaw": "coupling.surrogate",
    "TranslationError": "coupling.translation",
    "assign_devices": "coupling.placement",
    "grid_rves": "coupling.grid_law",
    "local_laws": "coupling.translation",
    "micro_fields": "coupling.model_fields",
    "micro_simulation": "coupling.manager",
    "mode_network": "coupling.modes_law",
    "phase_law": "coupling.translation",
    "rve_snapshots": "coupling.snapshots",
    "sample_operator": "coupling.operator_samples",
    "sparse_operator": "coupling.field_operator",
    "translate": "coupling.translation",
}

# Old name → new name.
_NEW_NAMES: dict[str, str] = {
    "cell_data": "coupling.rve_snapshots",
    "grid_cells": "coupling.grid_rves",
    "place": "coupling.assign_devices",
    "samples": "coupling.sample_operator",
}


def __getattr__(name: str):
    if name not in _MODULES:
        return _renamed(__name__, name, _NEW_NAMES)
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
