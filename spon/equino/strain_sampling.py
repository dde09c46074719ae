# SPDX-License-Identifier: MIT
"""Macroscale strains to train at."""

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor


def sobol_strains(n: int, half_range: Tensor, seed: int, toward_zero: float = 0.0) -> Tensor:
    """n strains (n, d) of a scrambled Sobol sequence in the box of ±`half_range`.

    Args:
        n: number of strains.
        half_range: (d,) largest strains.
        seed: of the scrambling.
        toward_zero: fraction of the strains that are scaled towards zero by factors uniform in (0, 1). In many
            dimensions nearly all of a box is far from its centre, where loading starts.
    """
    d = half_range.numel()
    sequence = qmc.Sobol(d + 1, seed=np.random.default_rng(seed)).random_base2((n - 1).bit_length())[:n]
    factor = np.minimum(1.0, sequence[:, d:] / toward_zero) if toward_zero else 1.0
    return half_range * torch.from_numpy((2 * sequence[:, :d] - 1) * factor)
