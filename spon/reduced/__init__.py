# SPDX-License-Identifier: MIT
"""An RVE in a few modes: snapshots, POD bases, cubature, and Galerkin's method in the modes.

RVESnapshots, RVESpace                                  solved problems as arrays
pod_bases, Bases, ModesAtPoints, RVEModes               from snapshots to modes
ReducedModel, ReducedSolution, ReducedNotConverged      Galerkin's method in the modes
Model, LocalFields, Fingerprint                         the interface of all models of an RVE
"""

from spon.reduced.bases import Bases, pod_bases
from spon.reduced.galerkin import ReducedModel, ReducedNotConverged, ReducedSolution
from spon.reduced.model import Fingerprint, LocalFields, Model
from spon.reduced.modes import ModesAtPoints, RVEModes
from spon.reduced.snapshots import RVESnapshots, RVESpace

__all__ = [
    "Bases",
    "Fingerprint",
    "LocalFields",
    "Model",
    "ModesAtPoints",
    "RVEModes",
    "RVESnapshots",
    "RVESpace",
    "ReducedModel",
    "ReducedNotConverged",
    "ReducedSolution",
    "pod_bases",
]
