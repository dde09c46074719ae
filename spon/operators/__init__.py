# SPDX-License-Identifier: MIT
"""SPON: structure-preserving operator networks between finite element spaces, their training and samples."""

from spon.operators.network import OperatorNetwork
from spon.operators.operator_samples import OperatorSamples
from spon.operators.preconditioner import Preconditioner, train_preconditioner
from spon.operators.structure import Structure
from spon.operators.training import relative_errors, rollout, train

__all__ = [
    "OperatorNetwork",
    "OperatorSamples",
    "Preconditioner",
    "Structure",
    "relative_errors",
    "rollout",
    "train",
    "train_preconditioner",
]
