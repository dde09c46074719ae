# SPDX-License-Identifier: MIT
"""SPON: structure-preserving operator networks between finite element spaces, their training and samples."""

from spon.operators.network import Operator, OperatorNetwork, load_operator
from spon.operators.operator_samples import OperatorSamples
from spon.operators.preconditioner import Preconditioner, train_preconditioner
from spon.operators.training import relative_errors, rollout, train

__all__ = [
    "Operator",
    "OperatorNetwork",
    "OperatorSamples",
    "Preconditioner",
    "load_operator",
    "relative_errors",
    "rollout",
    "train",
    "train_preconditioner",
]
