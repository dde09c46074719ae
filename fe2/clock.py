# SPDX-License-Identifier: MIT
"""The clock of load stepping: pseudo-time from 0 to 1, and the time that it takes."""

from dataclasses import dataclass
from math import isfinite

from fe2.time_step import TimeStep


@dataclass(slots=True)
class Clock:
    """Pseudo-time in whole units of the smallest step, so that sums of steps are exact.

    Args:
        unit: of one pseudo-time.
        size: of the next step.
        now: present time.
        good: accepted steps since the last change of size.
        duration: of one pseudo-time, in the unit of the laws; None without.

    Raises:
        ValueError: a duration that is not positive and finite.
    """

    unit: int
    size: int
    now: int = 0
    good: int = 0
    duration: float | None = None

    def __post_init__(self):
        if self.duration is not None and not (isfinite(self.duration) and self.duration > 0):
            raise ValueError(f"duration = {self.duration}: need a finite time above 0")

    @property
    def time(self) -> float:
        """Pseudo-time."""
        return self.now / self.unit

    @property
    def physical_time(self) -> float | None:
        """Time in the unit of the laws, if there is a duration."""
        return None if self.duration is None else self.time * self.duration

    def step(self) -> TimeStep | None:
        """The next step in the unit of the laws, if there is a duration."""
        if self.duration is None:
            return None
        return TimeStep(self.time * self.duration, self.size / self.unit * self.duration)

    def accept(self, largest: int) -> None:
        """Advance by the present step; after two steps of this size the next ones are larger.

        Args:
            largest: size of a step.
        """
        self.now, self.good = self.now + self.size, self.good + 1
        if self.good >= 2 and self.size < largest:
            self.size, self.good = min(2 * self.size, largest), 0
