# SPDX-License-Identifier: MIT
"""An RVE in a few modes: POD bases, cubature, and the Galerkin solution in modes."""

from spon.reduced.galerkin import ReducedModel, ReducedNotConverged
from spon.reduced.model import Fingerprint, Model
from spon.reduced.modes import ModesAtPoints, RVEModes

__all__ = [
    "Fingerprint",
    "Model",
    "ModesAtPoints",
    "RVEModes",
    "ReducedModel",
    "ReducedNotConverged",
]
