"""Steps of the wall clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.clocks import ClockWatch


class Clocks:
    """Two clocks; one of them can be set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.set_by = 0.0
        self.watch = ClockWatch(lambda: 1e9 + self.now + self.set_by, lambda: self.now)


@pytest.mark.parametrize("by", [3600, -3600, 1, -1])
def test_a_step_is_told_once(by) -> None:
    """However much time has passed."""
    clocks = Clocks()
    clocks.now += 86400
    assert clocks.watch.step() == 0
    clocks.set_by += by
    assert clocks.watch.step() == by
    clocks.now += 86400
    assert clocks.watch.step() == 0


@given(st.lists(st.floats(-5, 5), max_size=50))
def test_what_was_told_adds_up_to_what_happened(steps) -> None:
    """Slow drift included: what is not told yet is less than what would be told."""
    clocks = Clocks()
    told = 0
    for step in steps:
        clocks.set_by += step
        told += clocks.watch.step()
    assert abs(clocks.set_by - told) < 1.001
