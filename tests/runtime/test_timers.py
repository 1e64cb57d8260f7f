"""A timer: fired once, replaced, stopped, and free of reference cycles."""

from __future__ import annotations

import gc
import weakref

import pytest
from twisted.internet.task import Clock

from envelope.runtime.timers import Timer


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_calls_once_with_its_arguments(clock: Clock) -> None:
    timer, called = Timer(clock), []
    timer.start(2.0, lambda *arguments: called.append(arguments), "a", 1)
    assert timer.running
    clock.advance(1.9)
    assert called == []
    clock.advance(10)
    assert called == [("a", 1)]
    assert not timer.running


def test_a_second_start_replaces_the_first(clock: Clock) -> None:
    timer, called = Timer(clock), []
    timer.start(1.0, called.append, "first")
    timer.start(2.0, called.append, "second")
    clock.advance(5)
    assert called == ["second"]
    assert not clock.getDelayedCalls()


def test_it_can_be_stopped_at_any_time(clock: Clock) -> None:
    timer, called = Timer(clock), []
    timer.stop()
    timer.start(1.0, called.append, "late")
    timer.stop()
    timer.stop()
    assert not timer.running
    assert not clock.getDelayedCalls()
    timer.start(1.0, called.append, "in time")
    clock.advance(1)
    timer.stop()
    assert called == ["in time"]


def test_the_function_that_it_calls_may_stop_it_or_start_it_again(clock: Clock) -> None:
    timer, seen = Timer(clock), []

    def again() -> None:
        seen.append(timer.running)
        timer.stop()
        timer.start(1.0, again)

    timer.start(1.0, again)
    clock.pump([1.0, 1.0])
    assert seen == [False, False]
    timer.stop()


def test_a_function_that_raises_leaves_it_usable(clock: Clock) -> None:
    timer, called = Timer(clock), []
    timer.start(1.0, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)
    timer.start(1.0, called.append, "after")
    clock.advance(1)
    assert called == ["after"]


class Owner:
    """Has a timer that calls its own method."""

    def __init__(self, clock: Clock) -> None:
        self.timer = Timer(clock)
        self.timer.start(1.0, self.done)

    def done(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("way", ["fired", "stopped"])
def test_its_owner_goes_without_the_garbage_collector(clock: Clock, way: str) -> None:
    gc.disable()
    try:
        owner = Owner(clock)
        gone = weakref.ref(owner)
        if way == "fired":
            clock.advance(1)
        else:
            owner.timer.stop()
        del owner
        assert gone() is None
    finally:
        gc.enable()
