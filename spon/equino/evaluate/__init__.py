# SPDX-License-Identifier: MIT
"""Fast evaluation of a trained model.

Evaluator, Prediction    many points in one batch: machine code on a CPU, one kernel on a GPU, or torch
export_c                 C source for other programs
ExperimentalWarning      for evaluation on a GPU, which has never been run
"""

from spon.equino.evaluate.evaluator import Evaluator, Prediction
from spon.equino.evaluate.experimental import ExperimentalWarning
from spon.equino.evaluate.export_c import export_c

__all__ = [
    "Evaluator",
    "ExperimentalWarning",
    "Prediction",
    "export_c",
]
