"""What operators are told, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from envelope.firewall.kernel import DriftKind
from envelope.firewall.reconcile.reports import Reports


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """The levels of what is logged."""
    levels: list[Any] = []

    def note(event: dict[str, Any]) -> None:
        levels.append(event["log_level"])

    globalLogPublisher.addObserver(note)
    yield levels
    globalLogPublisher.removeObserver(note)


def test_a_trouble_is_told_once_and_so_is_its_end(logged: list[Any]) -> None:
    reports = Reports("ipv4", lambda kind, number: None)
    for _ in range(3):
        reports.refused("no")
    assert reports.trouble == "no"
    reports.refused("still not")
    for _ in range(3):
        reports.well()
    assert reports.trouble is None
    assert logged == [LogLevel.error, LogLevel.error, LogLevel.info]


def test_a_contest_is_told_once_and_so_is_its_end(logged: list[Any]) -> None:
    """Each move counts; none is logged while it lasts."""
    counted: list[str] = []
    reports = Reports("ipv4", lambda kind, number: counted.extend([kind] * number))
    for _ in range(3):
        reports.contested(True)
        reports.differs(Counter([DriftKind.JUMP]))
        reports.mended()
    assert logged == [LogLevel.warn]
    assert len(reports.warnings) == 1
    reports.differs(Counter([DriftKind.JUMP, DriftKind.POLICY]))
    assert logged == [LogLevel.warn] * 2
    reports.contested(False)
    reports.contested(False)
    assert logged[2:] == [LogLevel.info]
    assert reports.warnings == []
    assert counted == ["jump"] * 4 + ["policy"]


def test_a_difference_counts_once_however_often_it_is_seen(logged: list[Any]) -> None:
    counted: list[str] = []
    reports = Reports("ipv4", lambda kind, number: counted.extend([kind] * number))
    reports.differs(Counter(["jump", "grant"]))
    reports.differs(Counter(["jump", "grant", "grant"]))
    assert counted == ["jump", "grant", "grant"]
    assert logged == [LogLevel.warn] * 2
    reports.mended()
    reports.differs(Counter(["jump"]))
    assert counted[3:] == ["jump"]
    reports.differs(Counter())
    assert len(logged) == 3


def test_rules_of_others_that_open_are_reported_once_and_stay_among_the_warnings(
    logged: list[Any]
) -> None:
    reports = Reports("ipv4", lambda kind, number: None)
    for _ in range(2):
        reports.opened(["ENVELOPE: -j ACCEPT"])
        (warning,) = reports.warnings
        assert warning.endswith("past ours: ENVELOPE: -j ACCEPT")
    assert logged == [LogLevel.warn]
    reports.opened([])
    assert reports.warnings == []
    reports.opened([f"ENVELOPE: -s 192.0.2.{n}/32 -j ACCEPT" for n in range(100)])
    assert len(reports.warnings) == 5
