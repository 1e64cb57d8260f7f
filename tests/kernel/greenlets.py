"""Lets synchronous test code, such as hypothesis' state machines, block on Deferreds."""

from __future__ import annotations

from collections.abc import Callable

from greenlet import greenlet
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def in_greenlet(call: Callable[[], None]) -> Deferred[None]:
    """Run `call`, which may use `blockon`, in a greenlet of its own; fires when it has ended."""
    done: Deferred[None] = Deferred()

    def run() -> None:
        outcome: Failure | None = None
        try:
            call()
        except BaseException:
            outcome = Failure()
        # Called back from the reactor's greenlet, or the waiting test would go on in this one.
        reactor.callLater(0, done.callback, outcome)

    greenlet(run).switch()
    return done
