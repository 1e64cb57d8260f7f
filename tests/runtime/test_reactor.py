"""Timers on a clock that nobody sets and that goes on during a suspend."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from twisted.internet.base import DelayedCall
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock

from envelope.runtime.reactor import WAKE_EVERY, boot_seconds, use_boot_clock, wake_regularly


def test_pending_and_later_timers_move_to_the_boot_clock() -> None:
    """A step of the wall clock no longer matters to them."""
    reactor = EPollReactor()
    try:
        pending = reactor.callLater(100, lambda: None)
        use_boot_clock(reactor)
        use_boot_clock(reactor)
        assert reactor.seconds is boot_seconds
        assert reactor.getDelayedCalls() == [pending]
        assert 99 < pending.getTime() - boot_seconds() < 101
        later = reactor.callLater(50, lambda: None)
        assert 49 < later.getTime() - boot_seconds() < 51
        pending.reset(10)
        assert 9 < pending.getTime() - boot_seconds() < 11
    finally:
        for call in reactor.getDelayedCalls():
            call.cancel()
        reactor.removeAll()
        for fd in (reactor.waker.i, reactor.waker.o):
            os.close(fd)
        reactor._poller.close()


def test_the_clock_goes_on_during_a_suspend() -> None:
    """clock_gettime(2): CLOCK_BOOTTIME, unlike CLOCK_MONOTONIC, includes the time of suspends."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = boot_seconds()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_reactor_looks_at_its_timers_every_few_seconds() -> None:
    """epoll_wait does not count a suspend, so its timeout has to be short."""
    clock = Clock()
    wake_regularly(clock)
    for _ in range(10):
        (call,) = clock.getDelayedCalls()
        assert call.getTime() - clock.seconds() <= WAKE_EVERY
        clock.advance(WAKE_EVERY)


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
        use_boot_clock(WallClockReactor())
