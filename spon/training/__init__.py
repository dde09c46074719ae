# SPDX-License-Identifier: MIT
"""Fitting parameters: optimisers, checkpoints, several ranks, progress."""

from spon.training.fit import History
from spon.training.progress import Live

__all__ = [
    "History",
    "Live",
]
