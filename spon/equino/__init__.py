# SPDX-License-Identifier: MIT
"""EquiNO: the model, its training, the certificate of its error, and what to compare it with."""

from spon.equino import baselines, vpionet
from spon.equino.certificate import Certificate, certify
from spon.equino.corrector import ModalCorrector, ModalSolution
from spon.equino.evaluate.evaluator import Evaluator
from spon.equino.evaluate.export_c import export_c
from spon.equino.model import EquiNO, load
from spon.equino.rve_snapshots import RVESnapshots, RVESpace
from spon.equino.training import refit, train

__all__ = [
    "Certificate",
    "EquiNO",
    "Evaluator",
    "ModalCorrector",
    "ModalSolution",
    "RVESnapshots",
    "RVESpace",
    "baselines",
    "certify",
    "export_c",
    "load",
    "refit",
    "train",
    "vpionet",
]
