# SPDX-License-Identifier: MIT
"""SPON: structure-preserving operator networks between finite element spaces, their training and samples."""

from spon.operators.network import Operator, OperatorNetwork, load_operator
from spon.operators.preconditioner import Preconditioner, train_preconditioner
from spon.operators.samples import Samples, load_samples
from spon.operators.training import relative_errors, rollout, train

__all__ = [
    "Operator",
    "OperatorNetwork",
    "Preconditioner",
    "Samples",
    "load_operator",
    "load_samples",
    "relative_errors",
    "rollout",
    "train",
    "train_preconditioner",
]
