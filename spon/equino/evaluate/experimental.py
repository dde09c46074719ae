# SPDX-License-Identifier: MIT
"""The warning of code that has never run on its hardware."""

import functools
import warnings


class ExperimentalWarning(UserWarning):
    """The code has never run on its hardware, so check the results."""


@functools.cache  # one warning in a process
def warn_never_run_on_a_gpu() -> None:
    """Warn, once, that evaluation on a GPU is experimental."""
    warnings.warn(
        'evaluation on a GPU is experimental: it has never run on a GPU so far. Compare some results with device="cpu"',
        ExperimentalWarning,
        stacklevel=4,  # to the caller of Evaluator, CudaGraphs or FusedResponse, or near it
    )
