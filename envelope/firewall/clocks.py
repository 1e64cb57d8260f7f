"""Reactor seconds as wall-clock time, for rules that end at a date. Pure.

A grant of iptables ends at a date (xt_time compares with the clock that people and NTP set), while
sessions last for so many seconds of the reactor's clock, which nobody sets. Both go on during a
suspend, so that it is no step. When the wall clock is stepped, the dates have to be written anew:
set forward, the kernel would refuse a client whose session is open; set back, it would keep an
orphaned grant for as much longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Seconds between looks at the clocks, and what counts as a step; less is within a grant's margin.
WATCH_EVERY: Final = 1.0
LEAST_STEP: Final = 1.0


class WallClock:
    """Tells what the wall clock will show at a reactor second, and how far it was stepped.

    Both arguments return seconds: `wall` since the epoch, `steady` of the reactor. The same reactor
    second is always told as the same date until the wall clock is stepped: slewing, which NTP does
    all the time, makes no difference.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self._apart = wall() - steady()
        self._steps: list[int] = []

    def now(self) -> float:
        """The wall-clock time, in seconds since the epoch."""
        return self._wall()

    def at(self, second: float) -> float:
        """The wall-clock time, in seconds since the epoch, at this reactor second."""
        self._follow()
        return second + self._apart

    def steps(self) -> list[int]:
        """The steps of the wall clock since the last call, in whole seconds; mostly none.

        A step and its opposite are two: what was written between them has to be written anew.
        """
        self._follow()
        steps, self._steps = self._steps, []
        return steps

    def _follow(self) -> None:
        moved = self._wall() - self._steady() - self._apart
        if abs(moved) >= LEAST_STEP:
            self._steps.append(round(moved))
            self._apart += round(moved)
