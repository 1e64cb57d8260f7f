"""Pauses between attempts, on a clock of our own."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from envelope.firewall.kernel import ANSWER_WAIT
from envelope.firewall.reconcile.retry import FIRST_PAUSE, LONGEST_PAUSE, RETRY_WAIT, Retry


def retry() -> tuple[Any, Retry, list[float]]:
    clock: Any = Clock()
    times: list[float] = []
    return clock, Retry(clock, lambda: times.append(clock.seconds())), times


def test_each_pause_is_twice_as_long_up_to_the_longest() -> None:
    clock, again, times = retry()
    pauses = []
    for _ in range(12):
        again.plan()
        (planned,) = clock.getDelayedCalls()
        pauses.append(planned.getTime() - clock.seconds())
        clock.advance(LONGEST_PAUSE)
    assert pauses == pytest.approx([min(FIRST_PAUSE * 2**n, LONGEST_PAUSE) for n in range(12)])
    assert len(times) == 12


def test_planning_twice_is_planning_once() -> None:
    clock, again, times = retry()
    again.plan()
    again.plan()
    clock.advance(FIRST_PAUSE)
    assert times == [FIRST_PAUSE]


def test_the_first_attempt_is_patient_and_so_is_one_after_success() -> None:
    """A change that was refused before may not hold up others for long."""
    clock, again, _ = retry()
    assert again.patience == ANSWER_WAIT
    again.plan()
    assert again.patience == RETRY_WAIT
    clock.advance(FIRST_PAUSE)
    again.plan_if(refused=False)
    assert again.patience == ANSWER_WAIT
    again.plan()
    (planned,) = clock.getDelayedCalls()
    assert planned.getTime() - clock.seconds() == FIRST_PAUSE
    again.stop()
    assert not clock.getDelayedCalls()
