"""Reactor seconds as wall-clock time, and steps of the wall clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.clocks import LEAST_STEP, WallClock


class Clocks:
    """Two clocks; one of them can be set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.set_by = 0.0
        self.wall = WallClock(lambda: 1e9 + self.now + self.set_by, lambda: self.now)


@pytest.mark.parametrize("by", [3600, -3600, 1, -1])
def test_a_step_is_reported_once(by) -> None:
    """However much time has passed."""
    clocks = Clocks()
    clocks.now += 86400
    assert clocks.wall.steps() == []
    clocks.set_by += by
    assert clocks.wall.steps() == [by]
    clocks.now += 86400
    assert clocks.wall.steps() == []


@pytest.mark.parametrize("by", [3600, -3600])
def test_a_step_that_was_not_reported_yet_counts_for_new_ends(by) -> None:
    """And is reported all the same, so that older ends are written anew."""
    clocks = Clocks()
    clocks.set_by += by
    assert clocks.wall.at(60) == 1e9 + 60 + by
    assert clocks.wall.steps() == [by]
    assert clocks.wall.steps() == []


def test_a_step_and_its_opposite_are_two() -> None:
    """What was written between them has another end."""
    clocks = Clocks()
    clocks.set_by = -3600
    assert clocks.wall.at(60) == 1e9 + 60 - 3600
    clocks.set_by = 0
    assert clocks.wall.steps() == [-3600, 3600]


def test_a_second_is_the_same_date_until_the_clock_is_stepped() -> None:
    """Slewing moves nothing."""
    clocks = Clocks()
    for slewed in (0.3, 0.9, -0.9):
        clocks.set_by = slewed
        assert clocks.wall.at(60) == 1e9 + 60
    assert clocks.wall.now() == 1e9 - 0.9


def test_a_suspend_is_no_step() -> None:
    """Both clocks have gone on meanwhile."""
    clocks = Clocks()
    end = clocks.wall.at(600)
    clocks.now += 3600
    assert clocks.wall.steps() == []
    assert clocks.wall.at(600) == end < clocks.wall.now()


@given(st.lists(st.floats(-5, 5), max_size=50))
def test_what_was_reported_adds_up_to_what_happened(steps) -> None:
    """Slow drift included: what is not reported yet is less than a step."""
    clocks = Clocks()
    reported = 0
    for step in steps:
        clocks.set_by += step
        reported += sum(clocks.wall.steps())
        assert abs(clocks.wall.at(0) - clocks.wall.now()) < LEAST_STEP + 0.001
    assert abs(clocks.set_by - reported) < LEAST_STEP + 0.001
