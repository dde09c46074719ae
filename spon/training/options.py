# SPDX-License-Identifier: MIT
"""Options of all trainings on samples."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Length, step size and stopping criterion of a training.

    Args:
        steps: steps of AdamW on batches of samples, or of Adam on all samples.
        batch: samples in each of these steps.
        rate: largest learning rate.
        lbfgs: iterations of L-BFGS on all samples afterwards.
        validation: fraction of the samples that are held out to measure the error and to stop early.
        every: steps between two evaluations of the validation loss.
        patience: evaluations without an improvement by one per cent after which training stops.
        seed: of the held-out samples and of the batches.
        checkpoint: file that is written at each evaluation and removed at the end. If it exists, the steps of AdamW
            continue from it, to the same parameters on the same number of ranks; L-BFGS starts again.

    Raises:
        ValueError: a negative number, or no samples in a batch.
    """

    steps: int = 2000
    batch: int = 16
    rate: float = 3e-3
    lbfgs: int = 0
    validation: float = 0.1
    every: int = 100
    patience: int = 10
    seed: int = 0
    checkpoint: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        for name, least in {"steps": 0, "batch": 1, "lbfgs": 0, "every": 1, "patience": 0}.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} = {getattr(self, name)}, need {least} or more")
        if not self.rate > 0:
            raise ValueError(f"rate = {self.rate}, need a positive number")

    def held_out(self, samples: int) -> int:
        """Number of validation samples among `samples`.

        Raises:
            ValueError: none or all of them.
        """
        found = round(self.validation * samples)
        if not 0 < found < samples:
            raise ValueError(f"validation = {self.validation} of {samples} samples are {found}, need some and not all")
        return found
