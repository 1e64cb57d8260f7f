"""Timers on the monotonic clock."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from twisted.internet.base import DelayedCall
from twisted.internet.epollreactor import EPollReactor

from envelope.runtime.reactor import use_monotonic_clock


def test_pending_and_later_timers_move_to_the_monotonic_clock() -> None:
    """A step of the wall clock no longer matters to them."""
    reactor = EPollReactor()
    try:
        pending = reactor.callLater(100, lambda: None)
        use_monotonic_clock(reactor)
        use_monotonic_clock(reactor)
        assert reactor.seconds is time.monotonic
        assert reactor.getDelayedCalls() == [pending]
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
            os.close(fd)
        reactor._poller.close()


class WallClockReactor:
    """A reactor whose timers do not follow `seconds`."""

    def __init__(self) -> None:
        self.calls: list[DelayedCall] = []

    def seconds(self) -> float:
        return time.time()

    def callLater(self, delay: float, function: Any) -> DelayedCall:
        self.calls.append(DelayedCall(
            time.time() + delay, function, (), {}, self.calls.remove, lambda _: None
        ))
        return self.calls[-1]

    def getDelayedCalls(self) -> list[DelayedCall]:
        return list(self.calls)


def test_a_reactor_whose_timers_stay_on_the_wall_clock_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"does not take its time from reactor\.seconds"):
        use_monotonic_clock(WallClockReactor())
