"""Transactions that were applied though the tool died before it said so: no difference by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed

from envelope.firewall import Traffic
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables.rules import CHAIN, GRANTS
from envelope.firewall.iptables.tree import Tree
from envelope.firewall.kernel import Key
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.reconcile.reconciler import Reconciler
from tests.firewall.iptables.test_table import Table
from tests.support.fakeiptables import Rejected

# So many grants fit into one chain.
FULL = 32


class World:
    """A reconciler over a table whose tool dies after its next transaction if `dies` says so.

    With `drops`, that transaction is not applied. A chain holds `most` grants.
    """

    def __init__(self, most: int = FULL) -> None:
        self.registry = CollectorRegistry()
        self.made = Table()
        self.made.table._writer = self  # type: ignore[assignment]
        self.reconciler = Reconciler(
            self.made.clock, self.made.table, FirewallMetrics(self.registry))
        self.reconciler.start(False)
        self.made.table._source = self  # type: ignore[assignment]
        self.made.table._structure = replace(
            self.made.table._standing, trees=(Tree.of(GRANTS, 32, FULL // most),))
        self.dies = self.drops = False
        # Readings wait for it, and fail unless `readable`.
        self.reading: Deferred[None] = succeed(None)
        self.readable = True
        # Transactions that the kernel could not take.
        self.refused = 0

    def apply(self, lines: Sequence[str], patience: float) -> Deferred[None]:
        """See `OpenTool`."""
        if not self.drops:
            try:
                self.made.kernel.apply([*lines])
            except Rejected as line:
                self.refused += 1
                return fail(ToolFailed(f"refused: {line}"))
        dies, self.dies, self.drops = self.dies, False, False
        return fail(ToolFailed("the tool died")) if dies else succeed(None)

    async def text(self, ends: Iterable[int]) -> str:
        """See `Reader`."""
        await self.reading
        if not self.readable:
            raise ToolFailed("the rules cannot be shown")
        return await self.made.text(ends)

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass, and with it all that is due."""
        for _ in range(round(seconds / 0.01)):
            self.made.clock.advance(0.01)

    def allow(self, *numbers: int) -> list[Deferred[None]]:
        """Let these networks in."""
        return [self.reconciler.allow(key(number), 9000.0) for number in numbers]

    def revoke(self, *numbers: int) -> list[Deferred[Traffic | None]]:
        """Shut these networks out."""
        return [self.reconciler.revoke(key(number)) for number in numbers]

    def look_at_once(self) -> None:
        """Have the rules compared, whatever is known of them."""
        self.made.table._certainty.know(None)
        self.reconciler.check()

    def look(self) -> None:
        """The same, and wait for that."""
        self.look_at_once()
        self.run()

    def rules_of(self, number: int) -> list[str]:
        """The kernel's rules that let a network in."""
        return [rule for rules in self.made.kernel.rules.values() for rule in rules
                if rule.startswith(f"-s {key(number)} ")]

    def members(self) -> set[Key]:
        """The networks that the table knows to be in its chains."""
        chains = self.made.table._standing.trees[0].members
        return {each for keys in chains.values() for each in keys}

    def branches(self) -> int:
        """How many further chains the grants are spread over."""
        return sum("-B" in chain for chain in self.made.kernel.rules)

    def drift(self) -> dict[str, float]:
        """The differences that were counted, by kind."""
        return {
            sample.labels["kind"]: sample.value
            for metric in self.registry.collect() for sample in metric.samples
            if sample.name == "envelope_firewall_drift_total" and sample.value
        }


def key(number: int) -> Key:
    return Key(f"203.0.113.{number}/32")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.made.counters.close()


@pytest.mark.parametrize("drops", [False, True])
def test_grants_that_were_spread_over_more_chains(world: World, drops: bool) -> None:
    """Or would have been."""
    world.allow(*range(1, FULL + 1))
    world.run()
    assert world.branches() == 0
    world.dies, world.drops = True, drops
    answers = world.allow(FULL + 1)
    world.run()
    assert not world.drift()
    answers += world.allow(*range(FULL + 2, 2 * FULL))
    world.run()
    assert all(answer.called for answer in answers)
    world.look()
    assert world.branches()
    assert not world.drift()


@pytest.mark.parametrize("drops", [False, True])
def test_grants_that_were_gathered_in_fewer_chains(world: World, drops: bool) -> None:
    """Or would have been."""
    world.allow(*range(1, FULL + 2))
    world.run()
    staying = [*range(1, FULL + 2)]
    while len(staying) > FULL // 2 + 1:
        world.revoke(staying.pop())
        world.run()
    assert world.branches() == 1
    world.dies, world.drops = True, drops
    answers = world.revoke(staying.pop())
    world.run()
    assert answers[0].called
    assert world.branches() == 0
    world.look()
    assert not world.drift()


def test_a_grant_that_the_mending_of_a_look_has_made(world: World) -> None:
    """It moves to another chain with the others."""
    first, late = 8, 20
    world.allow(*range(first, late), *range(late + 1, first + FULL))
    world.run()
    world.reading = Deferred()
    world.look()
    answers = world.allow(late)
    world.dies = True
    world.reading.callback(None)
    world.run()
    assert answers[0].called
    world.allow(first + FULL, first + FULL + 1)
    world.run()
    assert world.branches() == 2
    world.look()
    assert not world.drift()
    answers = world.revoke(late)
    world.run()
    assert answers[0].called
    assert not world.drift()


def test_a_grant_that_was_written_twice(world: World) -> None:
    """The second time because the rules could not be read after the first."""
    world.readable = False
    world.look()
    world.dies = True
    answers = world.allow(1)
    world.run(0.05)
    assert answers[0].called
    assert len(world.rules_of(1)) == 2
    world.readable = True
    world.run()
    assert len(world.rules_of(1)) == 1
    assert not world.drift()


def test_what_was_written_before_the_rules_could_be_read_again(world: World) -> None:
    """Meanwhile the chains stay as they are, since nobody knows which ones there are."""
    world.allow(*range(1, FULL + 1))
    world.run()
    world.readable = False
    world.look()
    world.dies = True
    answers = world.allow(FULL + 1)
    world.run(0.05)
    answers += world.allow(FULL + 2)
    world.run(0.05)
    assert all(answer.called for answer in answers)
    assert world.branches() == 1
    world.readable = True
    world.run()
    assert not world.refused
    assert not world.drift()
    assert world.members() == {*world.reconciler._in_force}


def test_after_a_mending_that_failed_a_revocation_is_answered_when_it_holds(world: World) -> None:
    """Rules that can be read are read after each failure, so that no grant is written twice."""
    world.made.kernel.rules[CHAIN].pop()
    world.dies = True
    world.look_at_once()
    world.dies = True
    allowed = world.allow(1)
    world.run(0.05)
    assert allowed[0].called
    revoked = world.revoke(1)
    while not revoked[0].called:
        world.run(0.01)
    assert not world.rules_of(1)


@settings(deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from(["in", "out", "many in", "many out", "look", "dies", "drops", "time"]),
    st.integers(1, 40),
), max_size=60))
def test_nothing_of_ours_counts_as_changed_by_others(moves: list[tuple[str, int]]) -> None:
    """Whatever is asked for, and whichever transactions are not answered."""
    world = World(most=4)
    inside: dict[int, None] = {}
    for what, number in moves:
        some = [*inside][-number:] if "out" in what else [*range(number, number + 12)]
        some = some if "many" in what else some[:1]
        if "in" in what:
            inside |= dict.fromkeys(some)
            for answer in world.allow(*some):
                answer.addErrback(lambda _: None)
        elif "out" in what:
            for each in some:
                del inside[each]
            world.revoke(*some)
        elif what == "look":
            world.look_at_once()
        elif what == "time":
            world.run(number / 100)
        else:
            world.dies, world.drops = True, what == "drops"
    world.dies = world.drops = False
    world.run(3.0)
    world.look()
    world.made.counters.close()
    assert not world.drift()
    assert world.members() == {*world.reconciler._in_force}
