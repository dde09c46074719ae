# SPDX-License-Identifier: MIT
"""EquiNO: the model, its training, the certificate of its error, and what to compare it with."""

from spon.equino import baselines, vpionet
from spon.equino.certificate import Certificate, certify, energy_at_rest
from spon.equino.corrector import Refined, Refinement
from spon.equino.evaluate.evaluator import Evaluator
from spon.equino.evaluate.export_c import export_c
from spon.equino.model import EquiNO, load
from spon.equino.snapshots import CellData, CellSpace
from spon.equino.training import refit, train

__all__ = [
    "CellData",
    "CellSpace",
    "Certificate",
    "EquiNO",
    "Evaluator",
    "Refined",
    "Refinement",
    "baselines",
    "certify",
    "energy_at_rest",
    "export_c",
    "load",
    "refit",
    "train",
    "vpionet",
]
