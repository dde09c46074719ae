# SPDX-License-Identifier: MIT
"""EquiNO: the model, its training, the certificate of its error, and baselines.

train, refit, EquiNOOptions, RefitOptions, EquiNOTraining    snapshots → model
EquiNO, DisplacementOperator, StressNetwork                  models; `spon.load` loads them
certify, Certificate, ModalCorrector, ModalSolution          error of a prediction, and its correction
energy_bounds, EnergyBounds, energy_at_zero_strain           bounds of the energy alone, and their reference
Evaluator, export_c                                          fast evaluation
baselines, vpionet                                           other models, for comparison
"""

import warnings as _warnings
from typing import Any as _Any

from spon.equino import baselines, vpionet
from spon.equino.baselines import StressNetwork
from spon.equino.certificate import Certificate, EnergyBounds, certify, energy_at_zero_strain, energy_bounds
from spon.equino.corrector import ModalCorrector, ModalSolution
from spon.equino.displacement_operator import DisplacementOperator
from spon.equino.evaluate.evaluator import Evaluator
from spon.equino.evaluate.export_c import export_c
from spon.equino.model import EquiNO
from spon.equino.options import EquiNOOptions, EquiNOTraining, RefitOptions
from spon.equino.training import refit, train
from spon.training.deprecated import renamed as _renamed

__all__ = [
    "Certificate",
    "DisplacementOperator",
    "EnergyBounds",
    "EquiNO",
    "EquiNOOptions",
    "EquiNOTraining",
    "Evaluator",
    "ModalCorrector",
    "ModalSolution",
    "RefitOptions",
    "StressNetwork",
    "baselines",
    "certify",
    "energy_at_zero_strain",
    "energy_bounds",
    "export_c",
    "refit",
    "train",
    "vpionet",
]

# Old name → new name.
_NEW_NAMES = {
    "CellFields": "spon.RVEModes",
    "Fields": "spon.ModesAtPoints",
}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)


def _as_published(data: _Any, **options: _Any) -> tuple[_Any, _Any]:
    """Old name of `baselines.train_as_published`, which returned the model and its history."""
    _warnings.warn(
        "EquiNO.as_published is now spon.equino.baselines.train_as_published", DeprecationWarning, stacklevel=2
    )
    result = baselines.train_as_published(data, **options)
    return result.model, result.history


# Assigned here, because the model does not import the baselines.
EquiNO.as_published = staticmethod(_as_published)  # type: ignore[attr-defined]  # a deprecated name
