"""Tests that block on Deferreds in calls that are no coroutines, as hypothesis' machines do.
"""

from __future__ import annotations

from collections.abc import Callable

from greenlet import greenlet
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def in_greenlet(call: Callable[[], None]) -> Deferred[None]:
    """Run what blocks on Deferreds beside the reactor, whose greenlet tests run in."""
    done: Deferred[None] = Deferred()

    def run() -> None:
        outcome: Failure | None = None
        try:
            call()
        except BaseException:
            outcome = Failure()
        # In the reactor's greenlet: whoever waits would else go on in this one, without end.
        reactor.callLater(0, done.callback, outcome)

    greenlet(run).switch()
    return done
