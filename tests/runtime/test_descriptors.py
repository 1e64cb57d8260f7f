"""Enough open files for the limits that were asked for, or one line."""

from __future__ import annotations

import pytest

from envelope.config import Config
from envelope.runtime.descriptors import RESERVE, TooFewDescriptors, ensure, needed

CONFIG = Config(max_clients=10, monitoring_slots=5, max_connections=100)
WANTED = 115 + RESERVE


class System:
    """Stands in for the module `resource`."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = -1

    def __init__(self, soft: int, hard: int, privileged: bool = False) -> None:
        self.limits = (soft, hard)
        self._privileged = privileged

    def getrlimit(self, which: int, /) -> tuple[int, int]:
        assert which == self.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int], /) -> None:
        assert which == self.RLIMIT_NOFILE
        if limits[1] > self.limits[1] != self.RLIM_INFINITY and not self._privileged:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


def test_sessions_connections_and_a_reserve_are_needed() -> None:
    assert needed(CONFIG) == WANTED


def test_the_defaults_fit_the_customary_hard_limit() -> None:
    """4096, where nobody has set another (Linux's INR_OPEN_MAX)."""
    assert needed(Config()) <= 4096


@pytest.mark.parametrize("soft", [WANTED, 100_000, -1])
def test_a_sufficient_limit_is_not_changed(soft: int) -> None:
    system = System(soft, soft)
    ensure(CONFIG, system)
    assert system.limits == (soft, soft)


@pytest.mark.parametrize("hard", [WANTED, 100_000, -1])
def test_the_soft_limit_is_raised(hard: int) -> None:
    system = System(50, hard)
    ensure(CONFIG, system)
    assert system.limits == (WANTED, hard)


def test_the_hard_limit_is_raised_if_allowed() -> None:
    system = System(50, 100, privileged=True)
    ensure(CONFIG, system)
    assert system.limits == (WANTED, WANTED)


def test_too_few_are_one_line_that_says_what_to_do() -> None:
    system = System(50, WANTED - 1)
    with pytest.raises(TooFewDescriptors) as caught:
        ensure(CONFIG, system)
    line = str(caught.value)
    assert "\n" not in line
    assert f"need {WANTED} open files, and {WANTED - 1} are allowed" in line
    assert "--max-connections=100" in line
    assert system.limits == (50, WANTED - 1)


def test_the_limits_are_those_of_this_process() -> None:
    ensure(Config())
