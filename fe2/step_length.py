# SPDX-License-Identifier: MIT
"""How much of a Newton step to take where stresses are prescribed.

The residual's component along the step is the slope of a potential, and changes sign where the step goes too far. This
is what happens when a plastic material is unloaded with the soft tangent of its yielding: the step is a hundred times
too long, ends in reversed yielding, and its residual is about as large as before. The place where the slope vanishes is
then enclosed, and found by the Illinois variant of the false position (Dowell & Jarratt, BIT 11, 1971, 168–174).
"""

from collections.abc import Callable

import numpy as np

# A trial is taken whose residual, or whose slope beyond the zero, has fallen to this; and the last of so many trials.
_ENOUGH, _TRIALS = 0.5, 12

# Where the material has no finite stress, the step is shortened to this part.
_BACK = 0.25


def take_step(trial: Callable[[float], tuple[float, float]], size: float, slope: float) -> None:
    """Try the whole step, and shorter ones while they go too far; the last trial is the one taken.

    Args:
        trial: length → norm of the residual there, and its component along the step.
        size: norm of the residual at length 0.
        slope: its component there; only for a positive one are shorter steps of use.
    """
    low, low_slope, high, high_slope, side = 0.0, slope, 1.0, np.nan, 0
    length = 1.0
    for _ in range(_TRIALS):
        norm, there = trial(length)
        if not np.isfinite(norm):
            high, high_slope, side = length, np.nan, 0
            length = low + _BACK * (high - low)
            continue
        if norm <= _ENOUGH * size or abs(there) <= _ENOUGH * slope or not slope > 0:
            return
        if there > 0 and np.isnan(high_slope):  # not too far
            return
        if there > 0:
            low, low_slope = length, there
            high_slope, side = high_slope / 2 if side > 0 else high_slope, 1
        else:
            high, high_slope = length, there
            low_slope, side = low_slope / 2 if side < 0 else low_slope, -1
        length = low + low_slope / (low_slope - high_slope) * (high - low)
