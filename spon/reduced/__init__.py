# SPDX-License-Identifier: MIT
"""An RVE in a few modes: POD bases, cubature, and the Galerkin solution in modes."""

from spon.reduced.basis import CellFields, Fields
from spon.reduced.galerkin import ReducedModel, ReducedNotConverged
from spon.reduced.model import Fingerprint, Model

__all__ = [
    "CellFields",
    "Fields",
    "Fingerprint",
    "Model",
    "ReducedModel",
    "ReducedNotConverged",
]
