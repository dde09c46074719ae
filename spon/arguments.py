# SPDX-License-Identifier: MIT
"""What is handed in as numbers: tensors, arrays or lists, real alone."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def real_tensor(what: str, given: Tensor | npt.ArrayLike) -> Tensor:
    """`given` as a tensor, with the precision that it has; lists have that of Python's numbers, float64.

    Raises:
        ValueError: complex numbers, or what are no numbers; `what` says whose, in the plural.
    """
    # By NumPy, as torch takes lists in single precision.
    found = given if isinstance(given, Tensor) else np.asarray(given)
    if isinstance(found, np.ndarray):
        if found.dtype.kind not in "iufc":
            raise ValueError(f"{what} are of the type {found.dtype}, need real numbers")
        found = torch.as_tensor(np.ascontiguousarray(found))
    if found.is_complex():
        raise ValueError(f"{what} are of the type {found.dtype}, need real numbers")
    return found
