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
