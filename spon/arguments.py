# SPDX-License-Identifier: MIT
"""Conversion of numeric arguments: tensors, arrays or lists of real numbers."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def real_tensor(what: str, given: Tensor | npt.ArrayLike) -> Tensor:
    """Numbers as a tensor of the same precision; lists become float64.

    Args:
        what: the argument, in the plural, for messages.
        given: a tensor, an array or lists.

    Raises:
        ValueError: complex numbers, or no numbers.
    """
    # By NumPy, since torch converts lists to single precision.
    found = given if isinstance(given, Tensor) else np.asarray(given)
    if isinstance(found, np.ndarray):
        if found.dtype.kind not in "iufc":
            raise ValueError(f"{what} are of the type {found.dtype}, need real numbers")
        found = torch.as_tensor(np.ascontiguousarray(found))
    if found.is_complex():
        raise ValueError(f"{what} are of the type {found.dtype}, need real numbers")
    return found
