"""When to try again what the tool refused: after growing pauses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from envelope.firewall.kernel import ANSWER_WAIT
from envelope.runtime.timers import Timer

# Seconds; each pause is twice as long as the one before.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 15.0
# A change that has already failed alone may hold others up no longer than this (seconds).
RETRY_WAIT: Final = 2.0


class Retry:
    """Calls `again` once for each time that it was planned, after growing pauses."""

    def __init__(self, reactor: IReactorTime, again: Callable[[], None]) -> None:
        self._again = again
        self._pause = FIRST_PAUSE
        self._timer = Timer(reactor)

    @property
    def patience(self) -> float:
        """Seconds that the next transaction may take."""
        return ANSWER_WAIT if self._pause == FIRST_PAUSE else RETRY_WAIT

    def plan(self) -> None:
        """Try again after a pause, unless that is planned already."""
        if not self._timer.running:
            self._timer.start(self._pause, self._again)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def plan_if(self, refused: bool) -> None:
        """Plan a try if anything is refused, else begin with the shortest pause next time."""
        if refused:
            self.plan()
        else:
            self._pause = FIRST_PAUSE

    def stop(self) -> None:
        """Try no more."""
        self._timer.stop()
