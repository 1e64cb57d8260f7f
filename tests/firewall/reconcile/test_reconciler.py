"""The loop over a table in memory that fails as it is told, with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from envelope.firewall import Traffic, grant_key
from envelope.firewall.errors import ToolFailed, UnreadableRules
from envelope.firewall.kernel import Key, Seen, TableLabel
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.reconcile.backlog import GATHER
from envelope.firewall.reconcile.reconciler import Reconciler
from envelope.metrics import new_registry
from tests.support.leakdetector import LoggedFailures

# Seconds that a transaction takes: 4 ms, as of a slow tool.
TAKES = 0.004


class FakeTable:
    """Grants are their ends. `refuses` says whether a transaction with a network in it fails."""

    label = TableLabel.INET
    versions = (4, 6)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kernel: dict[Key, float] = {}
        # How many networks each transaction changes, once it has begun.
        self.begun: list[int] = []
        self.readable = True
        # What moves our jump back, while another program has put something before it.
        self.moving: list[str] = []
        self.moved = 0
        self.refuses_moves = False
        self.refuses: Callable[[Key], bool] = lambda key: False
        self.looks = 0
        # What the rules that stand have counted, and those that were deleted.
        self.counted: dict[Key, int] = {}
        self.gone: list[tuple[Key, Traffic]] = []

    def written(self, key: Key, end: float) -> float:
        return end

    def is_over(self, grant: float) -> bool:
        return grant < self._clock.seconds()

    def deleted(self) -> list[tuple[Key, Traffic]]:
        deleted, self.gone = self.gone, []
        return deleted

    def lost(self) -> bool:
        return False

    async def counts(self) -> dict[Key, Traffic]:
        await deferLater(self._clock, TAKES)
        if not self.readable:
            raise UnreadableRules("a counter that cannot be printed")
        return {key: Traffic(number, 100 * number, False) for key, number in self.counted.items()}

    async def look(self, in_force: Mapping[Key, float]) -> Seen[float]:
        self.looks += 1
        await deferLater(self._clock, TAKES)
        if not self.readable:
            raise UnreadableRules("a rule that cannot be printed")
        return Seen((), (), dict(self.kernel), self.moving)

    async def write(
        self, mending: Sequence[str], in_force: Mapping[Key, float],
        wants: Mapping[Key, float | None], patience: float,
    ) -> None:
        self.begun.append(len(wants))
        await deferLater(self._clock, TAKES)
        if any(map(self.refuses, wants)) or (mending and self.refuses_moves):
            raise ToolFailed("refused")
        self.moved += bool(mending)
        for key, want in wants.items():
            self.kernel.pop(key, None)
            if key in self.counted:
                number = self.counted.pop(key)
                self.gone.append((key, Traffic(number, 100 * number, True)))
            if want is not None:
                self.kernel[key] = want


class TurnClock(Clock):
    """Can run what is due a turn at a time, as a reactor does; `advance` runs what is due since."""

    def turn(self, seconds: float = 0.0) -> None:
        self.rightNow += seconds
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class World:
    """One reconciler, and what is counted of it."""

    def __init__(self) -> None:
        self.clock = TurnClock()
        self.table = FakeTable(self.clock)
        self.registry = new_registry()
        self.reconciler: Reconciler[float] = Reconciler(
            self.clock, self.table, FirewallMetrics(self.registry))
        self.reconciler.start(False)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.001)):
            self.clock.advance(0.001)

    def allow(self, number: int) -> Deferred[None]:
        return self.reconciler.allow(key(number), self.clock.seconds() + 60)

    def revoke(self, number: int) -> Deferred[None]:
        return self.reconciler.revoke(key(number))


def key(number: int) -> Key:
    return grant_key(f"{ip_network((10 << 24) + number)}", 0)


@pytest.fixture
def world() -> World:
    return World()


def held(answer: Deferred[Any]) -> bool:
    """Whether it was answered, and well."""
    answer.addErrback(lambda _: "failed")
    return answer.called and answer.result is None


def test_a_change_alone_begins_at_once(world: World) -> None:
    for number in (1, 2):
        world.allow(number)
        assert world.table.begun == [1] * number
        world.run(0.1)


def test_while_several_come_a_transaction_gathers_in_three_turns(world: World) -> None:
    for number in (1, 2, 3):
        world.allow(number)
    world.run(0.1)
    for number in (4, 5, 6):
        assert world.table.begun == [1, 2]
        world.allow(number)
        world.clock.turn()
    assert world.table.begun == [1, 2, 3]
    world.run(0.1)
    # Turns that take long gather enough.
    world.allow(7)
    world.clock.turn(GATHER)
    assert world.table.begun == [1, 2, 3, 1]
    # And after a change alone, the next one does not wait.
    world.run(0.1)
    world.allow(8)
    assert world.table.begun == [1, 2, 3, 1, 1]


def test_what_is_asked_for_until_an_answer_shares_the_next_transaction(world: World) -> None:
    world.allow(1)
    for number in (2, 3):
        world.allow(number)
        world.run(TAKES / 4)
    world.run(TAKES)
    assert world.table.begun == [1, 2]


def test_nothing_is_written_after_the_end(world: World) -> None:
    for number in (1, 2, 3):
        world.allow(number)
    world.run(0.1)
    world.allow(4)
    ended = Deferred.fromCoroutine(world.reconciler.finish())
    assert not ended.called
    world.clock.advance(0)
    assert ended.called
    assert world.table.begun == [1, 2]


def test_grants_and_revocations_go_on_while_the_kernel_cannot_be_read(world: World) -> None:
    assert not held(first := world.allow(1))
    world.run(0.1)
    assert held(first)
    world.table.readable = False
    world.reconciler.check()
    world.run(0.1)
    assert "cannot be printed" in (world.reconciler.problem or "")
    gone, come = world.revoke(1), world.allow(2)
    world.run(0.1)
    assert held(gone)
    assert held(come)
    assert world.table.kernel.keys() == {key(2)}
    world.table.readable = True
    world.run(30)
    assert world.reconciler.problem is None


def test_a_change_that_fails_while_the_kernel_cannot_be_read_fails_alone(world: World) -> None:
    """And is refused within a moment, not after the time that readings take."""
    world.table.readable = False
    world.table.refuses = lambda each: each == key(1)
    world.reconciler.check()
    world.run(0.1)
    answers = [world.allow(number) for number in range(3)]
    world.run(0.1)
    assert [held(answer) for answer in answers] == [True, False, True]
    assert world.table.looks < 5


def test_one_refusal_is_over_when_it_is_made_up_for_however_much_goes_on(world: World) -> None:
    """At 300 visits a second, something always differs from what is wanted."""
    world.allow(0)
    world.run(0.1)
    world.table.refuses = lambda each: each == key(0)
    gone = world.revoke(0)
    world.run(0.1)
    assert not held(gone)
    assert world.reconciler.problem is not None
    world.table.refuses = lambda each: False
    ready_at = None
    for number in range(1, 3000):
        world.allow(number).addErrback(lambda _: None)
        if number > 60:
            world.revoke(number - 60)
        world.run(1 / 300)
        if ready_at is None and world.reconciler.problem is None:
            ready_at = number / 300
    assert held(gone)
    assert ready_at is not None
    assert ready_at < 2


def test_a_change_that_failed_once_is_not_starved(world: World) -> None:
    """Twenty that fail together at first, with 300 visits a second beside them."""
    failing = [True]
    world.table.refuses = lambda each: failing[0]
    answers = [world.allow(number) for number in range(20)]
    for number in range(20, 26):
        answers.append(world.allow(number))
    world.run(TAKES * 1.5)
    failing[0] = False
    for number in range(100, 400):
        world.allow(number).addErrback(lambda _: None)
        world.run(1 / 300)
    assert all(held(answer) for answer in answers)


def test_two_that_insist_on_the_first_place_do_not_move_for_ever(world: World) -> None:
    """Five moves at once, then one in five minutes at most; it is a warning meanwhile."""

    def looks(seconds: float) -> None:
        for _ in range(round(seconds / 10)):
            world.reconciler.check()
            world.run(0.02)
            world.clock.advance(10 - 0.02)

    world.table.moving = ["the lines"]
    looks(50)
    assert world.table.moved == 5
    looks(20)
    assert world.table.moved == 5
    assert world.reconciler.problem is None
    (warning,) = world.reconciler.warnings
    assert "INPUT" in warning
    looks(3600)
    assert world.table.moved < 5 + 4 + 3600 / 300
    counted = world.registry.get_sample_value(
        "envelope_firewall_drift_total", {"kind": "jump"})
    assert counted == world.table.moved
    world.table.moving = []
    looks(900)
    assert world.reconciler.warnings == []
    world.table.moving = ["the lines"]
    before = world.table.moved
    looks(30)
    assert world.table.moved == before + 3


def test_a_move_that_the_tool_refuses_is_no_move_in_a_row(world: World) -> None:
    """So that a failing tool does not look like another program."""
    world.table.moving = ["the lines"]
    world.table.refuses_moves = True
    for _ in range(9):
        world.reconciler.check()
        world.run(0.05)
    assert world.table.looks > 9
    assert world.table.moved == 0
    assert world.reconciler.warnings == []


@pytest.mark.parametrize("error", [ToolFailed, UnreadableRules, ValueError])
def test_what_a_reading_of_counters_does_not_show_is_not_known(
    world: World, error: type[Exception], logged_failures: LoggedFailures
) -> None:
    """Also when it breaks: an old number would look like a grant without traffic."""
    async def fail() -> dict[Key, Traffic]:
        raise error("broken")

    def packets() -> int | None:
        reading = world.reconciler.counting.read()
        world.run(0.1)
        assert held(reading)
        traffic = world.reconciler.counting.traffic(key(1))
        return None if traffic is None else traffic.packets

    world.allow(1)
    world.run(0.1)
    world.table.counted[key(1)] = 5
    assert packets() == 5
    counts, world.table.counts = world.table.counts, fail  # type: ignore[method-assign]
    assert packets() is None
    assert len(logged_failures.flush()) == (error is ValueError)
    world.table.counts = counts  # type: ignore[method-assign]
    assert packets() == 5
