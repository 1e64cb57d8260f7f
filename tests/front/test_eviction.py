"""Which connection is dropped when there are too many: by example, and against a slow model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envelope.addresses import Address
from envelope.front.eviction import (
    FAIR_SHARE,
    DropReason,
    EvictionLimits,
    Evictor,
    network_key,
)

MANY = 10_000


def evictor(
    connections: int = MANY, per_network: int = MANY, handshakes: int = MANY
) -> Evictor[str]:
    return Evictor(EvictionLimits(connections, per_network, handshakes))


def host(number: int) -> Address:
    return ip_address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")


def fill(full: Evictor[str], number: int, address: Address | None = None) -> list[str]:
    """Add `number` waiting connections from one address, or from one each."""
    names = [f"{address or 'flood'} {n}" for n in range(number)]
    for n, name in enumerate(names):
        full.add_waiting(name, address or host(n))
    return names


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_networks_are_32_and_64_bits(one: str, other: str, together: bool) -> None:
    assert (network_key(ip_address(one)) == network_key(ip_address(other))) is together


def test_below_the_limits_none_is_dropped() -> None:
    few = evictor(connections=6, per_network=3, handshakes=6)
    for n in range(6):
        assert few.add_waiting(str(n), host(n % 2)) == []
    assert (len(few), few.waiting, few.leaving) == (6, 6, 0)


def test_a_network_drops_its_own() -> None:
    shared = evictor(per_network=2)
    shared.add_waiting("other", host(1))
    shared.add_waiting("a", host(0))
    shared.add_waiting("b", host(0))
    assert shared.add_waiting("c", host(0)) == [("a", DropReason.NETWORK)]
    assert "a" not in shared
    assert shared.add_leaving("b", host(0)) == []
    assert shared.add_waiting("d", host(0)) == [("c", DropReason.NETWORK)], "b counts as new"
    assert shared.add_waiting("e", host(0)) == [("b", DropReason.NETWORK)]


def test_too_many_handshakes_drop_the_oldest_of_the_largest_network() -> None:
    full = evictor(handshakes=FAIR_SHARE + 3)
    full.add_waiting("good", host(1))
    flood = fill(full, FAIR_SHARE + 2, host(0))
    assert full.add_waiting("next", host(2)) == [(flood[0], DropReason.HANDSHAKES)]
    assert "good" in full


def test_few_behind_one_address_are_no_target() -> None:
    """In a flood from everywhere the oldest of all is dropped."""
    full = evictor(handshakes=20)
    flood = fill(full, 12)
    pair = fill(full, FAIR_SHARE, host(1 << 16))
    for n, victim in enumerate(flood):
        assert full.add_waiting(f"more {n}", host(500 + n)) == [(victim, DropReason.HANDSHAKES)]
    assert all(one in full for one in pair)


def test_too_many_in_total_drop_the_oldest() -> None:
    full = evictor(connections=4, handshakes=3)
    names = fill(full, 3)
    full.add_leaving(names[2], host(2))
    full.add_leaving(names[0], host(0))
    full.add_waiting("a", host(6))
    assert full.add_waiting("b", host(7)) == [(names[1], DropReason.TOTAL)]
    assert full.add_waiting("c", host(8)) == [(names[2], DropReason.TOTAL)]
    assert full.add_waiting("d", host(9)) == [("a", DropReason.HANDSHAKES)]
    assert names[0] in full


def test_a_connection_after_its_session_is_the_newest() -> None:
    full = evictor(connections=2, per_network=2)
    names = fill(full, 2, host(0))
    assert full.add_leaving("session", host(0)) == [(names[0], DropReason.NETWORK)]
    assert full.add_waiting("next", host(0)) == [(names[1], DropReason.NETWORK)]
    assert full.add_waiting("last", host(0)) == [("session", DropReason.NETWORK)]


def test_unknown_addresses_have_no_network_limit() -> None:
    behind_a_proxy = evictor(per_network=1, connections=3)
    assert [behind_a_proxy.add_waiting(str(n), None) for n in range(3)] == [[], [], []]
    assert behind_a_proxy.add_waiting("3", None) == [("0", DropReason.TOTAL)]


def test_a_removed_connection_is_not_counted() -> None:
    full = evictor(connections=1)
    full.add_waiting("a", host(0))
    full.remove("a")
    full.remove("a")
    assert len(full) == 0
    assert full.add_waiting("b", host(0)) == []


def test_one_can_be_evicted_below_the_limits() -> None:
    full = evictor()
    assert full.evict_one() is None
    names = fill(full, 3)
    full.add_leaving(names[2], host(2))
    full.add_leaving(names[0], host(0))
    assert [full.evict_one() for _ in range(4)] == [names[1], names[2], names[0], None]


@pytest.mark.parametrize("network", ["one", "many"])
def test_a_client_outlasts_as_many_new_connections_as_the_limit_allows(network: str) -> None:
    """Whether the flood comes from its own address or from everywhere."""
    full = evictor(connections=800, per_network=200, handshakes=400)
    numbers = count()

    def flood(new: int) -> None:
        for n in (next(numbers) for _ in range(new)):
            full.add_waiting(f"flood {n}", host(0 if network == "one" else n))

    flood(2000)
    full.add_waiting("good", host(0 if network == "one" else MANY))
    flood(199 if network == "one" else 399)
    assert "good" in full
    flood(1)
    assert "good" not in full


def test_a_flood_from_one_network_drops_only_its_own() -> None:
    full = evictor(connections=800, per_network=200, handshakes=400)
    full.add_waiting("good", host(1))
    fill(full, 5000, host(0))
    assert "good" in full


# -- against a model that is slow and plain ------------------------------------------------


@dataclass
class Model:
    """The same rules, over one list."""

    limits: EvictionLimits
    here: list[tuple[str, object, bool]] = field(default_factory=list)

    def waiting(self) -> list[tuple[str, object, bool]]:
        return [one for one in self.here if not one[2]]

    def remove(self, name: str) -> None:
        self.here = [one for one in self.here if one[0] != name]

    def may_go(self, connection: str, reason: DropReason, new: str) -> bool:
        """Whether the rules let `connection` be dropped now."""
        network = next(one[1] for one in self.here if one[0] == connection)
        among = self.waiting() if reason == DropReason.HANDSHAKES else self.here
        own = [one for one in among if one[1] == network]
        if connection == new:
            return False
        if reason == DropReason.NETWORK:
            return len(own) > self.limits.per_network and connection == own[0][0]
        waiting = reason == DropReason.HANDSHAKES
        most = self.limits.handshakes if waiting else self.limits.connections
        largest = max(Counter(one[1] for one in among).values())
        if largest > FAIR_SHARE:
            return len(among) > most and len(own) == largest and connection == own[0][0]
        return len(among) > most and connection == among[0][0]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "arrive", "depart", "remove", "session", "drop"]),
        st.integers(0, 5), st.integers(0, 1000),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(EVENTS, st.integers(1, 30), st.integers(1, 20), st.integers(1, 25))
def test_it_does_what_the_model_says(
    events: list[tuple[str, int, int]], connections: int, per_network: int, handshakes: int
) -> None:
    limits = EvictionLimits(connections, per_network, handshakes)
    real: Evictor[str] = Evictor(limits)
    model = Model(limits)
    addresses: list[Address | None] = [None, *map(host, range(4)), ip_address("2001:db8::1")]
    for number, (what, where, pick) in enumerate(events):
        address, name = addresses[where], f"connection {number}"
        evicted: list[tuple[str, DropReason]] = []
        if what in ("depart", "remove") and model.here:
            name, network, _ = model.here[pick % len(model.here)]
            address = next(one for one in addresses if network_key(one) == network)
        if what == "remove":
            real.remove(name)
            model.remove(name)
        elif what == "drop":
            dropped = real.evict_one()
            assert (dropped is None) == (not model.here)
            model.remove(dropped or "")
        else:
            model.remove(name)
            leaving = what != "arrive"
            model.here.append((name, network_key(address), leaving))
            add = real.add_leaving if leaving else real.add_waiting
            evicted = add(name, address)
        for connection, reason in evicted:
            assert model.may_go(connection, reason, name), (connection, reason, model.here)
            model.remove(connection)
        assert len(real) == len(model.here) <= connections
        assert real.waiting == len(model.waiting()) <= handshakes
        known = Counter(network for _, network, _ in model.here if network is not None)
        assert all(size <= per_network for size in known.values())
        assert all(one[0] in real for one in model.here)
