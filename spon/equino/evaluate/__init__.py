# SPDX-License-Identifier: MIT
"""Fast evaluation of a trained model: machine code, GPU kernels, and C source for other programs."""

from spon.equino.evaluate.evaluator import Evaluator
from spon.equino.evaluate.export_c import export_c

__all__ = [
    "Evaluator",
    "export_c",
]
