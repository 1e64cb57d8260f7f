"""Tokens that are used up: under any order of events, and whatever the wall clock does."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
)

from envelope.addresses import Address, Network
from envelope.sessions.usedtokens import LONGEST, Use, UsedTokens

WALL = 1_800_000_000.0
HOME, NEIGHBOUR, AWAY = (ip_address(f"203.0.{n}") for n in ("113.7", "113.8", "114.7"))
HOME6, AWAY6 = ip_address("2001:db8::7"), ip_address("2001:db8:1::7")


def network_of(address: Address) -> Network:
    return ip_network((address, 24 if address.version == 4 else 64), strict=False)


class Memory:
    """Used tokens and two clocks; the wall clock is the reactor's until it is stepped."""

    def __init__(self, use: str = "once", most: int = 1000) -> None:
        self.tokens = UsedTokens(use, network_of, most)  # type: ignore[arg-type]
        self.now = 100.0
        self.step = 0.0

    @property
    def wall(self) -> float:
        return WALL + self.now + self.step

    def use(self, token: str, expires: float, address: Address | None = HOME) -> Use:
        return self.tokens.use_of(token.encode(), expires, address)

    def opens(self, token: str, expires: float, address: Address | None = HOME) -> bool:
        """Whether a session opens with this token."""
        self.tokens.forget(self.now)
        use = self.use(token, expires, address)
        if expires <= self.wall or self.tokens.refuses(use):
            return False
        self.tokens.reserve(use)
        self.tokens.use_up(use, self.wall, self.now)
        return True


def test_once_is_one_session_of_each_family() -> None:
    memory = Memory()
    end = memory.wall + 60
    assert memory.opens("a", end)
    assert not memory.opens("a", end)
    assert not memory.opens("a", end, AWAY)
    assert memory.opens("a", end, AWAY6)
    assert not memory.opens("a", end, HOME6)
    assert memory.opens("a", end, None)
    assert not memory.opens("a", end, None)
    assert memory.opens("b", end)


def test_a_token_belongs_to_the_network_that_used_it_first() -> None:
    """The grant's network, with the prefix that the options say; one of each family."""
    memory = Memory("network")
    end = memory.wall + 60
    assert memory.opens("a", end)
    assert memory.opens("a", end, NEIGHBOUR)
    assert not memory.opens("a", end, AWAY)
    assert memory.opens("a", end, AWAY6)
    assert not memory.opens("a", end, HOME6)
    assert memory.opens("a", end)
    assert len(memory.tokens) == 2


@pytest.mark.parametrize("use", ["once", "network"])
def test_a_token_is_reserved_while_its_grant_is_made(use: str) -> None:
    """And free again when that failed."""
    memory = Memory(use)
    end = memory.wall + 60
    mine, other = memory.use("a", end), memory.use("a", end, AWAY)
    memory.tokens.reserve(mine)
    assert memory.tokens.refuses(other)
    assert memory.tokens.refuses(mine) == (use == "once")
    memory.tokens.give_back(mine)
    assert not memory.tokens.refuses(other)
    assert len(memory.tokens) == 0


def test_one_of_two_reservations_of_a_network_keeps_the_token() -> None:
    memory = Memory("network")
    end = memory.wall + 60
    mine, other = memory.use("a", end), memory.use("a", end, AWAY)
    memory.tokens.reserve(mine)
    memory.tokens.reserve(mine)
    memory.tokens.give_back(mine)
    assert memory.tokens.refuses(other)
    memory.tokens.use_up(mine, memory.wall, memory.now)
    assert memory.tokens.refuses(other)


def test_a_token_is_forgotten_when_it_has_expired() -> None:
    memory = Memory()
    assert memory.opens("a", memory.wall + 60)
    memory.now += 59
    memory.tokens.forget(memory.now)
    assert len(memory.tokens) == 1
    memory.now += 2
    memory.tokens.forget(memory.now)
    assert len(memory.tokens) == 0


def test_a_token_that_lives_long_is_remembered_for_a_day() -> None:
    """And refuses nobody else after that."""
    memory = Memory()
    end = memory.wall + 30 * LONGEST
    assert memory.opens("a", end)
    memory.now += LONGEST - 1
    assert not memory.opens("a", end)
    memory.now += 2
    assert memory.opens("b", memory.wall + 60)
    assert memory.opens("a", end)


@pytest.mark.parametrize("steps", [(-3600.0, 0.0), (3600.0, 0.0), (0.0, -3600.0),
                                   (7200.0, -7200.0)])
def test_a_step_of_the_wall_clock_opens_no_replay(steps: tuple[float, float]) -> None:
    """Before the token has expired, and after."""
    memory = Memory()
    end = memory.wall + 600
    assert memory.opens("a", end)
    for step in steps:
        memory.step += step
        assert not memory.opens("a", end)
        memory.now += 601
        assert not memory.opens("a", end)
    memory.step = 0
    assert memory.opens("b", memory.wall + 60)


def test_at_the_bound_a_further_token_is_refused_and_none_is_forgotten() -> None:
    """A network's own token needs no further memory."""
    memory = Memory("network", most=3)
    end = memory.wall + 60
    assert [memory.opens(token, end) for token in "abcd"] == [True, True, True, False]
    assert memory.tokens.full
    assert not memory.opens("a", end, HOME6)
    assert not any(memory.opens(token, end, AWAY) for token in "abc")
    assert all(memory.opens(token, end) for token in "abc")
    memory.now += 61
    assert memory.opens("e", memory.wall + 60)


def test_reservations_count_towards_the_bound() -> None:
    memory = Memory(most=2)
    uses = [memory.use(token, memory.wall + 60) for token in "abc"]
    for use in uses[:2]:
        assert not memory.tokens.refuses(use)
        memory.tokens.reserve(use)
    assert memory.tokens.refuses(uses[2])
    memory.tokens.give_back(uses[0])
    assert not memory.tokens.refuses(uses[2])


def test_where_tokens_are_any_bearers_nothing_is_remembered() -> None:
    tokens = UsedTokens()
    assert not tokens.needed
    tokens.reserve(None)
    tokens.use_up(None, WALL, 0.0)
    tokens.give_back(None)
    assert len(tokens) == 0


@dataclass(frozen=True)
class Asked:
    """A request that was admitted; its grant is being made."""

    key: tuple[str, int]
    network: Network
    use: Use


class Replays(RuleBasedStateMachine):
    """Requests with few tokens, late grants, and a wall clock that is set to anything."""

    asked = Bundle("asked")

    @initialize(use=st.sampled_from(["once", "network"]), most=st.sampled_from([2, 1000]))
    def start(self, use: str, most: int) -> None:
        self.memory = Memory(use, most)
        self.use = use
        self.most = most
        self.waiting: dict[tuple[str, int], list[Network]] = defaultdict(list)
        # The networks that used each token, with the reactor seconds until which that counts.
        self.used: dict[tuple[str, int], list[tuple[Network, float]]] = defaultdict(list)
        self.stepped = False

    @rule(target=asked, token=st.sampled_from("abcd"),
          lives=st.sampled_from([60.0, 3600.0, 3 * LONGEST]),
          address=st.sampled_from([HOME, NEIGHBOUR, AWAY, HOME6, AWAY6]))
    def ask(self, token: str, lives: float, address: IPv4Address | IPv6Address) -> Asked | None:
        memory = self.memory
        memory.tokens.forget(memory.now)
        name = f"{token}{lives}"
        # A token expires at one time, whatever the wall clock says.
        expires = WALL + 100 + lives
        key, network = (name, address.version), network_of(address)
        use = memory.use(name, expires, address)
        if expires <= memory.wall:
            return None
        users = [used for used, until in self.used[key] if memory.now < until]
        others = users + self.waiting[key]
        forbidden = bool(others) if self.use == "once" else any(n != network for n in others)
        if memory.tokens.refuses(use):
            remembered = len(memory.tokens) + sum(map(len, self.waiting.values()))
            assert forbidden or self.stepped or remembered >= self.most
            return None
        assert not forbidden
        memory.tokens.reserve(use)
        self.waiting[key].append(network)
        return Asked(key, network, use)

    @rule(asked=consumes(asked))
    def opens(self, asked: Asked | None) -> None:
        if asked is None:
            return
        memory = self.memory
        self.waiting[asked.key].remove(asked.network)
        left = asked.use.expires - memory.wall
        until = memory.now + LONGEST if left > LONGEST else float("inf")
        self.used[asked.key].append((asked.network, until))
        memory.tokens.use_up(asked.use, memory.wall, memory.now)
        assert len(memory.tokens) <= self.most

    @rule(asked=consumes(asked))
    def fails(self, asked: Asked | None) -> None:
        if asked is not None:
            self.waiting[asked.key].remove(asked.network)
            self.memory.tokens.give_back(asked.use)

    @rule(seconds=st.sampled_from([1.0, 59.5, 61.0, 3601.0, LONGEST, 2 * LONGEST]))
    def time_passes(self, seconds: float) -> None:
        self.memory.now += seconds

    @rule(step=st.sampled_from([-3 * LONGEST, -3600.0, -61.0, -1.0, 1.0, 61.0, 3600.0, LONGEST])
          | st.floats(-1e9, 1e9))
    def wall_clock_is_set(self, step: float) -> None:
        self.memory.step = step
        self.stepped = True


TestReplays = Replays.TestCase
TestReplays.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)


def test_the_memory_of_100_000_tokens() -> None:
    """`pytest -s` prints it; a flood of further tokens does not change it."""
    tokens = UsedTokens("network", network_of, most=100_000)

    def open_with(numbers: range) -> int:
        """The traced memory after sessions with these tokens."""
        for number in numbers:
            use = Use(number.to_bytes(17), 0x0A000000 + number, WALL + number % 60)
            if not tokens.refuses(use):
                tokens.reserve(use)
                tokens.use_up(use, WALL, 0.0)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = open_with(range(0))
    size = open_with(range(100_000)) - before
    flooded = open_with(range(100_000, 130_000)) - before
    tracemalloc.stop()
    print(f"\n100,000 used tokens: {size / 1e6:.1f} MB, {size / 1e5:.0f} bytes each")
    assert len(tokens) == 100_000
    assert size < 25e6
    assert flooded < 1.01 * size
