"""Seconds of the day and of a clock that nobody sets."""

from envelope.firewall.clocks import SteadyClock


def test_a_second_stays_the_same_until_the_time_of_day_is_set() -> None:
    """Slewing moves nothing; a step moves what is told afterwards, and both ways agree."""
    wall, monotonic = 1_000_000.4, 50.1
    clock = SteadyClock(lambda: wall, lambda: monotonic)
    assert clock.now() == 50.1
    end = clock.steady(1_000_060)
    assert end == 110
    for slewed in (0.3, 0.6, 0.9, -0.9):
        wall, monotonic = 1_000_000.4 + 20 + slewed, 70.1
        assert clock.steady(1_000_060) == end
        assert clock.of_day(end) == 1_000_060
    wall += 3600
    assert clock.steady(1_003_660) in (end, end + 1)
    assert clock.of_day(end) in (1_003_659, 1_003_660)
    assert clock.steady(clock.of_day(end)) == end
