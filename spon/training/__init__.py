# SPDX-License-Identifier: MIT
"""Fitting parameters: options, optimisers, checkpoints, several ranks, progress."""

from spon.training.options import TrainingOptions
from spon.training.progress import Live
from spon.training.result import History, TrainingResult

__all__ = [
    "History",
    "Live",
    "TrainingOptions",
    "TrainingResult",
]
