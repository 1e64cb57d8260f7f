"""Which connection goes when there are too many."""

from __future__ import annotations

from envelope.admin.crowd import Crowd


def test_the_idle_go_first_and_those_that_read_stay() -> None:
    """Silent ones, then those that wait, then streams that stall, then the new one itself."""
    stalled = {"slow"}
    crowd: Crowd[str] = Crowd(4, stalled.__contains__)
    for name in ("reader", "slow", "asker", "silent"):
        assert crowd.arrived(name) is None
    crowd.streams_to("reader")
    crowd.streams_to("slow")
    crowd.asked("asker")
    dropped = []
    for name in ("one", "two", "three"):
        dropped.append(crowd.arrived(name))
        crowd.streams_to(name)
    assert dropped == ["silent", "asker", "slow"]
    assert crowd.arrived("four") == "four"
    assert crowd.streams == 4
    crowd.left("reader")
    assert crowd.arrived("five") is None


def test_the_one_that_asked_last_stays_longest() -> None:
    crowd: Crowd[str] = Crowd(2, lambda _: False)
    for name in ("one", "two"):
        crowd.arrived(name)
        crowd.asked(name)
    crowd.asked("one")
    assert crowd.arrived("three") == "two"
    assert crowd.arrived("four") == "three"
