"""Waiters that are notified together, or cancel."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from envelope.runtime.condition import Condition


def test_all_waiters_are_notified_once() -> None:
    condition, fired = Condition(), []
    for name in "ab":
        condition.wait().addCallback(lambda _, name=name: fired.append(name))
    condition.notify_all()
    condition.notify_all()
    assert fired == ["a", "b"]


def test_a_cancelled_waiter_is_not_notified() -> None:
    condition = Condition()
    waiting = condition.wait()
    waiting.cancel()
    condition.notify_all()
    failed = []
    waiting.addErrback(lambda failure: failed.append(failure.check(CancelledError)))
    assert failed == [CancelledError]


def test_a_waiter_may_cancel_another_and_wait_again() -> None:
    condition, fired = Condition(), []
    first, second = condition.wait(), condition.wait()
    second.addErrback(lambda _: fired.append("cancelled"))

    def notified(_: None) -> None:
        second.cancel()
        condition.wait().addCallback(lambda _: fired.append("again"))

    first.addCallback(notified)
    condition.notify_all()
    assert fired == ["cancelled"]
    condition.notify_all()
    assert fired == ["cancelled", "again"]
