"""Callers that wait for a network, and how long."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from envelope.firewall import FirewallError
from envelope.firewall.kernel import Key
from envelope.firewall.reconcile.waiters import ALLOW_WAIT, Waiters

ONE, TWO, THREE = (Key(f"203.0.113.{number}/32") for number in (1, 2, 3))


class Kept(Waiters):
    """Waiters that refuse whom nobody answered in time, and remember in which order."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.late: list[tuple[Key, float]] = []
        super().__init__(self.clock, self.refuse, lambda _key: None)

    def refuse(self, key: Key) -> None:
        self.late.append((key, self.clock.seconds()))
        self.refused(key, "too late")

    def ask(self, key: Key) -> Deferred[None]:
        answer = self.await_allowed(key)
        answer.addErrback(lambda failure: failure.trap(FirewallError) and None)
        return answer


@pytest.fixture
def waiters() -> Kept:
    return Kept()


def test_each_network_waits_from_its_own_first_question(waiters: Kept) -> None:
    """One that was answered and asked for again waits anew."""
    for number, key in enumerate((ONE, TWO, THREE, TWO)):
        waiters.ask(key)
        waiters.clock.advance(1 if number < 3 else 0)
    waiters.allowed(ONE)
    again = waiters.ask(ONE)
    waiters.clock.pump([0.5] * 40)
    assert waiters.late == [
        (TWO, 1 + ALLOW_WAIT), (THREE, 2 + ALLOW_WAIT), (ONE, 3 + ALLOW_WAIT),
    ]
    assert again.called
    assert not waiters.clock.getDelayedCalls()


def test_an_answer_in_time_is_never_late(waiters: Kept) -> None:
    for key in (ONE, TWO):
        waiters.ask(key)
    waiters.clock.advance(ALLOW_WAIT - 1)
    waiters.allowed(ONE)
    waiters.refused(TWO, "the tool refused it")
    waiters.clock.advance(ALLOW_WAIT)
    assert waiters.late == []
    assert not waiters.clock.getDelayedCalls()


def test_one_that_is_answered_because_another_is_late_is_not_late(waiters: Kept) -> None:
    """Both would have waited until the same moment."""
    waiters.ask(ONE)
    other = waiters.ask(TWO)
    refuse = waiters.refuse

    def refuse_and_allow(key: Key) -> None:
        refuse(key)
        waiters.allowed(TWO)

    waiters._too_late = refuse_and_allow
    waiters.clock.advance(ALLOW_WAIT)
    assert waiters.late == [(ONE, ALLOW_WAIT)]
    assert other.called


def test_nothing_is_due_once_the_firewall_is_closed(waiters: Kept) -> None:
    answers = [waiters.ask(ONE), waiters.ask(TWO)]
    waiters.dismiss()
    assert all(each.called for each in answers)
    assert not waiters.clock.getDelayedCalls()
