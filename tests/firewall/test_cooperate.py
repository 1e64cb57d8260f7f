"""Long work in several turns of the reactor, on a clock of our own."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from envelope.firewall.cooperate import SLICE, in_turns, slices, step_by_step


def test_slices_are_all_there_is_in_its_order() -> None:
    assert list(slices([])) == []
    assert list(slices(range(SLICE))) == [list(range(SLICE))]
    assert [len(part) for part in slices(range(2 * SLICE + 1))] == [SLICE, SLICE, 1]


class Turns(Clock):
    """Counts the turns of the reactor that somebody waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0

    def callLater(self, *call: Any, **more: Any) -> Any:
        self.waited += 1
        return super().callLater(*call, **more)


def turns_until(clock: Turns, done: Deferred[Any]) -> int:
    """How many turns of the reactor pass until then."""
    clock.advance(0)
    assert done.called
    return clock.waited


def test_little_is_done_at_once_and_much_in_turns() -> None:
    for number, turns in ((0, 0), (1, 0), (SLICE, 0), (SLICE + 1, 1), (3 * SLICE, 2)):
        clock: Any = Turns()
        sizes: list[int] = []

        def make(part: list[int], sizes: list[int] = sizes) -> list[int]:
            sizes.append(len(part))
            return part

        done = Deferred.fromCoroutine(in_turns(clock, range(number), make))
        assert turns_until(clock, done) == turns
        assert done.result == list(range(number))
        assert max(sizes, default=0) <= SLICE
        assert not clock.getDelayedCalls()


def test_steps_share_a_turn_until_they_come_to_a_slice() -> None:
    def steps(sizes: list[int]) -> Generator[int, None, str]:
        yield from sizes
        return "done"

    for sizes, turns in (([], 0), ([1, 1, 1], 0), ([SLICE], 1), ([SLICE, 1, SLICE - 1], 2)):
        clock: Any = Turns()
        done = Deferred.fromCoroutine(step_by_step(clock, steps(sizes)))
        assert turns_until(clock, done) == turns
        assert done.result == "done"
