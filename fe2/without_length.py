# SPDX-License-Identifier: MIT
"""The stress of an accepted state whose materials depend on time: that of a step in time of no length from it.

In such a step nothing flows, so that its stress is a function of strain and state. At the end of a step the two are the
same for materials whose viscous parts are in series with springs. A dashpot beside a spring has a stress that no state
holds; the mean stress shows it.
"""

import numpy as np
import numpy.typing as npt

from fe2.body import Body
from fe2.time_step import TimeStep

Array = npt.NDArray[np.float64]

# Length of a step in which nothing flows, in any unit of time; and the largest difference of mean stresses that are the
# same, relative to the largest local stress: above the tolerance of equilibrium, far below viscous stresses that count.
_NO_LENGTH, _SAME_STRESS = 1e-100, 1e-8


def begin_without_length(body: Body, time: float) -> None:
    """Begin a step of no length.

    Args:
        body: whose materials depend on time.
        time: at the end of the step.
    """
    body.set_step(TimeStep(time, _NO_LENGTH))


def check_mean_stress(body: Body, mean: Array, expected: Array) -> None:
    """Check that local stresses in a step of no length are those at the end of the last step.

    Args:
        body: at strain and state of that end.
        mean: (d,), of the stresses of the body.
        expected: (d,), the homogenised stress at that end.

    Raises:
        ValueError: they are not; the message names the materials.
    """
    off = abs(mean - expected).max()
    if not off <= _SAME_STRESS * abs(body.stress()).max(initial=0.0):
        names = " and ".join({type(m).__name__: None for m in body.materials.values() if m.rate_dependent})
        raise ValueError(
            f"the stress in a step of no length from the state is {off:.3g} MPa from that at the end of the last "
            f"step: {names} has a stress that is no function of strain and state, or divides by a power of dt. "
            "Local stresses of such materials are those of homogenise(..., fields=True, step=step)"
        )
