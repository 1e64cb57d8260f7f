"""Timers on the monotonic clock."""

import time

from twisted.internet.epollreactor import EPollReactor

from envelope.runtime.reactor import count_monotonically


def test_pending_and_later_timers_move_to_the_monotonic_clock() -> None:
    """A step of the wall clock no longer matters to them."""
    reactor = EPollReactor()
    try:
        pending = reactor.callLater(100, lambda: None)
        count_monotonically(reactor)
        count_monotonically(reactor)
        assert reactor.seconds is time.monotonic
        assert 99 < pending.getTime() - time.monotonic() < 101
        later = reactor.callLater(50, lambda: None)
        assert 49 < later.getTime() - time.monotonic() < 51
        pending.reset(10)
        assert 9 < pending.getTime() - time.monotonic() < 11
    finally:
        for call in reactor.getDelayedCalls():
            call.cancel()
        reactor.removeAll()
        for fd in (reactor.waker.i, reactor.waker.o):
            import os
            os.close(fd)
        reactor._poller.close()
