# SPDX-License-Identifier: MIT
"""Checks that a model and an exact law belong to the same RVE, by their fingerprints or else by their stresses."""

import numpy as np
import torch
from mpi4py import MPI

from coupling.trained_range import TrainedRange
from fe2 import Law
from fe2.fingerprints import fingerprint
from spon import EquiNO, Evaluator, Model, ModesAtPoints, certify


def has_same_rve(model: Model, law: Law) -> bool:
    """Whether a model and a law both have fingerprints, and these are equal.

    A law without an `rve`, such as a formula, has none, and some models have none.

    Raises:
        ValueError: the fingerprints differ, or the law has another RVE at each point.
    """
    if getattr(law, "own_rves", False):
        raise ValueError(f"{type(law).__name__} has another RVE at each point, the model has a single one")
    rve = getattr(law, "rve", None)
    if rve is None or model.fingerprint is None:
        return False
    model.require(fingerprint(rve))
    return True


def require_same_stress(predict: Evaluator, law: Law, at: ModesAtPoints) -> None:
    """Check by the certificate that the stress of a law may be that of the RVE of a model.

    Args:
        predict: evaluates the model, a `spon.EquiNO`.
        law: the exact law.
        at: the points at which the certificate is computed.

    Raises:
        ValueError: a stress that is not within the bounds, or without bound.
    """
    model, trained = predict.model, TrainedRange.of(predict.model)
    assert isinstance(model, EquiNO)
    strain = trained.strain(0.7 * np.diag(np.minimum(abs(trained.lower), abs(trained.upper))))
    state = law.initial_state(len(strain))
    exact = law.evaluate(strain, state, state, MPI.COMM_SELF).stress
    with torch.no_grad():
        bound = certify(model, torch.from_numpy(strain), at).stress_bound.numpy()
    if np.isnan(bound).any():
        raise ValueError(
            f"{type(law).__name__} has no RVE to compare with that of the model, and the stress of the model has no "
            "bound: pair the model with fe2.ExactLaw(rve)"
        )
    error = abs(predict(strain)[0] - exact)
    # On a cubature the bound is an estimate, off by some per cent.
    k = int((error - 2 * bound).max(axis=1).argmax())
    if not (error <= 2 * bound).all():
        raise ValueError(
            f"{type(law).__name__} is not of the model's RVE: at the strain {strain[k].tolist()} its stress is "
            f"{error[k].tolist()} MPa from that of the model, whose error is at most {bound[k].tolist()}"
        )
