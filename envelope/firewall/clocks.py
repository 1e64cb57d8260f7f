"""Steps of the wall clock, noticed against a clock that nobody sets. Pure.

A grant's own end in the kernel is a time of the day (xt_time compares with the clock that people
and NTP set), while sessions last for so many seconds. When the clock is set forward by more than a
grant has left, the kernel would refuse a client whose session is open; set back, it would keep an
orphaned grant for as much longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Seconds between looks at the clocks, and what counts as a step; less is within a grant's margin.
WATCH_EVERY: Final = 1.0
LEAST_STEP: Final = 1.0


class ClockWatch:
    """Tells how far `wall` was moved against `steady`; both are seconds."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self._apart = wall() - steady()

    def step(self) -> int:
        """Whole seconds that the wall clock was moved by since it last said so; mostly 0."""
        moved = self._wall() - self._steady() - self._apart
        if abs(moved) < LEAST_STEP:
            return 0
        whole = round(moved)
        self._apart += whole
        return whole


class SteadyClock:
    """Turns seconds since the epoch into seconds of a monotonic clock, and back.

    The same second is always turned into the same one, until the time of day is set: that it is
    slewed all the time to keep it right makes no difference.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._epoch = wall() - monotonic()

    def now(self) -> float:
        """The time by the monotonic clock."""
        return self._monotonic()

    def steady(self, of_day: int) -> int:
        """The second of the monotonic clock that this time of day will be, or was."""
        return round(of_day - self._offset())

    def of_day(self, steady: int) -> int:
        """The time of day that this second of the monotonic clock will be, or was."""
        return round(steady + self._offset())

    def _offset(self) -> float:
        epoch = self._wall() - self._monotonic()
        if abs(epoch - self._epoch) >= LEAST_STEP:
            self._epoch = epoch
        return self._epoch
