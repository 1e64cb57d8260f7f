"""The chains that grants end by: there when a grant needs one, and gone when none does."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.iptables.ends import (
    AHEAD,
    GRANULE,
    LATEST_END,
    Ends,
    end_chain,
    end_of_grant,
    end_rule,
    make_ends,
    read_end,
    referred,
)
from envelope.firewall.kernel import DriftKind
from tests.support.fakeiptables import FakeFilterTable

NOW = 1_800_000_001.5
USUAL = 60.0


class World:
    """The chains in a kernel, with grants as rules that jump to them."""

    def __init__(self, usual: float = USUAL) -> None:
        self.kernel = FakeFilterTable()
        self.kernel.apply([":GRANTS - [0:0]"])
        self.ends = Ends(usual)
        self.now = NOW
        # Chains that were made in a grant's transaction, and all that a look made.
        self.made = 0
        self.ahead = 0

    def found(self) -> dict[int, tuple[str, ...]]:
        return {
            end: tuple(rules) for chain, rules in self.kernel.rules.items()
            if (end := read_end(chain)) is not None
        }

    def let_in(self, *lasting: float, fails: bool = False) -> list[int]:
        """Make grants in one transaction; returns their ends."""
        ends = [end_of_grant(self.now + each) for each in lasting]
        for end in ends:
            self.ends.asked_for(end, self.now)
        making = self.ends.missing(ends, self.now, mending=False)
        self.made += bool(making)
        if not fails:
            self.kernel.apply([
                *make_ends(making), *(f"-A GRANTS -j {end_chain(end)}" for end in ends),
            ])
            self.ends.written(making, mending=False)
        return ends

    def end(self, ends: Iterable[int]) -> None:
        self.kernel.apply([f"-D GRANTS -j {end_chain(end)}" for end in ends])

    def look(self, wanted: Iterable[int] = (), fails: bool = False) -> list[DriftKind]:
        """Mend, with grants that end at `wanted` in the same transaction."""
        lines, kinds = self.ends.inspect(
            self.found(), lambda: referred(self.kernel.text()), self.now)
        making = self.ends.missing(wanted, self.now, mending=True)
        self.ahead += bool(lines)
        if not fails:
            self.kernel.apply([
                *lines, *make_ends(making), *(f"-A GRANTS -j {end_chain(end)}" for end in wanted),
            ])
            self.ends.written(making, mending=True)
        return kinds

    def check(self) -> None:
        for end, rules in self.found().items():
            assert rules == (end_rule(end),)


def test_the_name_says_the_end_and_is_as_long_as_a_name_may_be() -> None:
    assert end_chain(1_800_000_000) == "ENVELOPE-END-20270115T080000"
    assert end_rule(1_800_000_000) == "-m time --datestop 2027-01-15T08:00:00 -j ACCEPT"
    assert len(end_chain(LATEST_END)) == 28
    assert read_end(end_chain(LATEST_END)) == LATEST_END
    assert read_end("ENVELOPE-END-20271315T080000") is None


def test_in_the_long_run_no_client_waits_for_a_chain() -> None:
    """Whose grants last `--timeout`; a look makes many at once and takes old ones away."""
    world = World()
    for second in range(3600):
        world.now = NOW + second
        if second % 10 == 9:
            assert world.look() == []
        world.end(world.let_in(USUAL, USUAL + 0.3))
        assert len(world.found()) < 100
    world.check()
    assert world.made == 1
    assert world.ahead < 3600 / 40


def test_grants_of_other_durations_wait_once_or_twice() -> None:
    """Those that come again and again; `exp` and `--max-duration` set them."""
    world = World()
    for second in range(1200):
        world.now = NOW + second
        if second % 10 == 9:
            world.look()
        world.end(world.let_in(7200.0, 300.0))
    world.check()
    assert world.made <= 4


def test_durations_that_do_not_come_again_make_no_chains_ahead() -> None:
    world = World()
    for second in range(0, 600, 10):
        world.now = NOW + second
        world.end(world.let_in(1000.0 + 17 * second))
        world.look()
    assert len(world.found()) <= 80


def test_all_chains_go_when_nobody_comes_any_more() -> None:
    world = World()
    ends = world.let_in(USUAL, 9000.0)
    for second in range(0, 300, 10):
        world.now = NOW + second
        assert world.look() == []
    assert world.found().keys() == {*ends}
    world.end(ends)
    world.look()
    assert world.found() == {}


@given(steps=st.lists(st.one_of(
    st.tuples(st.just("let in"), st.sampled_from([60.0, 61.5, 300.0, 9000.0]), st.booleans()),
    st.tuples(st.just("look"), st.sampled_from([0.0, 60.0]), st.booleans()),
    st.tuples(st.just("end"), st.just(0.0), st.just(False)),
    st.tuples(st.just("spoil"), st.just(0.0), st.booleans()),
    st.tuples(st.just("clock"), st.sampled_from([1.0, 30.0, 200.0, -3600.0, 3600.0]),
              st.just(False)),
), max_size=30))
def test_no_grant_stands_without_an_end_and_every_end_is_right_after_a_look(steps) -> None:
    """Whatever fails, whatever others do, and wherever the clock goes."""
    world, live = World(), list[int]()
    for what, number, flag in steps:
        if what == "let in":
            ends = world.let_in(number, fails=flag)
            live += [] if flag else ends
        elif what == "look":
            wanted = [end_of_grant(world.now + number)] if number else []
            world.look(wanted, fails=flag)
            live += [] if flag else wanted
            if not flag:
                world.check()
                assert {*live} <= world.found().keys()
        elif what == "end" and live:
            world.end([live.pop()])
        elif what == "spoil" and world.found():
            chain = end_chain(max(world.found()))
            world.kernel.apply([f":{chain} - [0:0]", *([f"-A {chain} -j ACCEPT"] * flag)])
            # A grant that is made now is mended with the others at the next look.
            world.look()
        elif what == "clock":
            world.now += number
    world.look()
    world.check()
    assert world.look() == []


@given(flag=st.sampled_from(["emptied", "for good", "later", "more"]))
def test_what_others_do_to_an_end_is_mended_and_counted(flag) -> None:
    world = World()
    (end,) = world.let_in(USUAL)
    chain = end_chain(end)
    harm = {
        "emptied": [f":{chain} - [0:0]"],
        "for good": [f":{chain} - [0:0]", f"-A {chain} -j ACCEPT"],
        "later": [f":{chain} - [0:0]", f"-A {chain} {end_rule(end + GRANULE)}"],
        "more": [f"-I {chain} 1 -j ACCEPT"],
    }[flag]
    world.kernel.apply(harm)
    assert world.look() == [DriftKind.BASELINE]
    world.check()
    assert world.look() == []


def test_a_chain_that_others_made_is_removed_and_one_that_they_took_comes_back() -> None:
    world = World()
    (end,) = world.let_in(USUAL)
    stray = end + 10 * AHEAD
    world.kernel.apply(make_ends([stray]))
    assert world.look() == [DriftKind.CHAIN]
    assert stray not in world.found()
    gone = end_chain(end + GRANULE)
    world.kernel.apply([f":{gone} - [0:0]", f"-X {gone}"])
    assert world.look() == [DriftKind.CHAIN]
    assert end + GRANULE in world.found()


def test_a_chain_of_a_transaction_whose_outcome_is_not_known_is_no_stray() -> None:
    world = World()
    ends = world.let_in(9000.0, fails=True)
    world.kernel.apply(make_ends(ends))
    assert world.look() == []


def test_nothing_ends_later_than_the_tools_can_say() -> None:
    world = World()
    world.now = LATEST_END - 30.0
    for _ in range(3):
        assert world.let_in(USUAL) == [LATEST_END]
        world.look()
    assert max(world.found()) == LATEST_END
