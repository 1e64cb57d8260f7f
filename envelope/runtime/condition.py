"""Deferreds that wait for the same thing to happen."""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Condition:
    """Any number of waiters, notified together: `threading.Condition` without its lock."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Fires at the next `notify_all`, unless it is cancelled before."""
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting.append(waiting)
        return waiting

    def notify_all(self) -> None:
        """Fire the Deferreds that wait now."""
        for waiting in list(self._waiting):
            # A callback may have cancelled it.
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                waiting.callback(None)

    def _forget(self, cancelled: Deferred[None]) -> None:
        self._waiting.remove(cancelled)
