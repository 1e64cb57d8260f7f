"""The time of day told by a clock that nobody sets.
"""

from __future__ import annotations

from collections.abc import Callable

from envelope.firewall.clockwatch import LEAST_STEP


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
