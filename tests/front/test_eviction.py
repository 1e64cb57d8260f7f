"""Who has to go when too many stand before the door: by example, and against a slow model."""

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
    HANDSHAKES,
    NETWORK,
    TOTAL,
    Crowd,
    CrowdLimits,
    place_of,
)

MANY = 10_000


def crowd(connections: int = MANY, per_network: int = MANY, handshakes: int = MANY) -> Crowd[str]:
    return Crowd(CrowdLimits(connections, per_network, handshakes))


def somewhere(number: int) -> Address:
    return ip_address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")


def fill(full: Crowd[str], number: int, address: Address | None = None) -> list[str]:
    """Let in `number` from one address, or from one each."""
    names = [f"{address or 'flood'} {n}" for n in range(number)]
    for n, name in enumerate(names):
        full.arrive(name, address or somewhere(n))
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
    assert (place_of(ip_address(one)) == place_of(ip_address(other))) is together


def test_below_the_limits_nobody_has_to_go() -> None:
    open_house = crowd(connections=6, per_network=3, handshakes=6)
    for n in range(6):
        assert open_house.arrive(str(n), somewhere(n % 2)) == []
    assert (len(open_house), open_house.waiting, open_house.leaving) == (6, 6, 0)


def test_a_network_drops_its_own() -> None:
    shared = crowd(per_network=2)
    shared.arrive("other", somewhere(1))
    shared.arrive("a", somewhere(0))
    shared.arrive("b", somewhere(0))
    assert shared.arrive("c", somewhere(0)) == [("a", NETWORK)]
    assert "a" not in shared
    assert shared.depart("b", somewhere(0)) == []
    assert shared.arrive("d", somewhere(0)) == [("c", NETWORK)], "who leaves has time for that"
    assert shared.arrive("e", somewhere(0)) == [("b", NETWORK)]


def test_too_many_handshakes_cost_the_oldest_of_the_largest_network() -> None:
    full = crowd(handshakes=FAIR_SHARE + 3)
    full.arrive("good", somewhere(1))
    flood = fill(full, FAIR_SHARE + 2, somewhere(0))
    assert full.arrive("next", somewhere(2)) == [(flood[0], HANDSHAKES)]
    assert "good" in full


def test_few_behind_one_address_are_no_target() -> None:
    """In a flood from everywhere the oldest goes, whoever it is."""
    full = crowd(handshakes=20)
    flood = fill(full, 12)
    pair = fill(full, FAIR_SHARE, somewhere(1 << 16))
    for n, victim in enumerate(flood):
        assert full.arrive(f"more {n}", somewhere(500 + n)) == [(victim, HANDSHAKES)]
    assert all(one in full for one in pair)


def test_too_many_in_all_cost_who_is_there_for_longest() -> None:
    full = crowd(connections=4, handshakes=3)
    names = fill(full, 3)
    full.depart(names[2], somewhere(2))
    full.depart(names[0], somewhere(0))
    full.arrive("a", somewhere(6))
    assert full.arrive("b", somewhere(7)) == [(names[1], TOTAL)]
    assert full.arrive("c", somewhere(8)) == [(names[2], TOTAL)]
    assert full.arrive("d", somewhere(9)) == [("a", HANDSHAKES)]
    assert names[0] in full


def test_who_comes_from_a_session_has_time_to_read_its_goodbye() -> None:
    full = crowd(connections=2, per_network=2)
    names = fill(full, 2, somewhere(0))
    assert full.depart("session", somewhere(0)) == [(names[0], NETWORK)]
    assert full.arrive("next", somewhere(0)) == [(names[1], NETWORK)]
    assert full.arrive("last", somewhere(0)) == [("session", NETWORK)]


def test_unknown_addresses_are_no_network() -> None:
    behind_a_proxy = crowd(per_network=1, connections=3)
    assert [behind_a_proxy.arrive(str(n), None) for n in range(3)] == [[], [], []]
    assert behind_a_proxy.arrive("3", None) == [("0", TOTAL)]


def test_who_has_a_session_is_no_longer_there() -> None:
    full = crowd(connections=1)
    full.arrive("a", somewhere(0))
    full.remove("a")
    full.remove("a")
    assert len(full) == 0
    assert full.arrive("b", somewhere(0)) == []


def test_room_can_be_made() -> None:
    full = crowd()
    assert full.drop_one() is None
    names = fill(full, 3)
    full.depart(names[2], somewhere(2))
    full.depart(names[0], somewhere(0))
    assert [full.drop_one() for _ in range(4)] == [names[1], names[2], names[0], None]


@pytest.mark.parametrize("network", ["one", "many"])
def test_a_good_client_survives_as_many_newcomers_as_the_limit_allows(network: str) -> None:
    """Whether the flood comes from its own address or from everywhere."""
    full = crowd(connections=800, per_network=200, handshakes=400)
    numbers = count()

    def flood(newcomers: int) -> None:
        for n in (next(numbers) for _ in range(newcomers)):
            full.arrive(f"flood {n}", somewhere(0 if network == "one" else n))

    flood(2000)
    full.arrive("good", somewhere(0 if network == "one" else MANY))
    flood(199 if network == "one" else 399)
    assert "good" in full
    flood(1)
    assert "good" not in full


def test_a_flood_from_one_place_never_costs_others() -> None:
    full = crowd(connections=800, per_network=200, handshakes=400)
    full.arrive("good", somewhere(1))
    fill(full, 5000, somewhere(0))
    assert "good" in full


# -- against a model that is slow and plain ------------------------------------------------


@dataclass
class Model:
    """The same rules, looked for in one list."""

    limits: CrowdLimits
    here: list[tuple[str, object, bool]] = field(default_factory=list)

    def waiting(self) -> list[tuple[str, object, bool]]:
        return [one for one in self.here if not one[2]]

    def remove(self, name: str) -> None:
        self.here = [one for one in self.here if one[0] != name]

    def may_go(self, guest: str, reason: str, newcomer: str) -> bool:
        """Whether the rules let `guest` be the one that goes now."""
        place = next(one[1] for one in self.here if one[0] == guest)
        among = self.waiting() if reason == HANDSHAKES else self.here
        own = [one for one in among if one[1] == place]
        if guest == newcomer:
            return False
        if reason == NETWORK:
            return len(own) > self.limits.per_network and guest == own[0][0]
        most = self.limits.handshakes if reason == HANDSHAKES else self.limits.connections
        largest = max(Counter(one[1] for one in among).values())
        if largest > FAIR_SHARE:
            return len(among) > most and len(own) == largest and guest == own[0][0]
        return len(among) > most and guest == among[0][0]


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
    limits = CrowdLimits(connections, per_network, handshakes)
    real: Crowd[str] = Crowd(limits)
    model = Model(limits)
    addresses: list[Address | None] = [None, *map(somewhere, range(4)), ip_address("2001:db8::1")]
    for number, (what, where, pick) in enumerate(events):
        address, name = addresses[where], f"guest {number}"
        gone: list[tuple[str, str]] = []
        if what in ("depart", "remove") and model.here:
            name, place, _ = model.here[pick % len(model.here)]
            address = next(one for one in addresses if place_of(one) == place)
        if what == "remove":
            real.remove(name)
            model.remove(name)
        elif what == "drop":
            dropped = real.drop_one()
            assert (dropped is None) == (not model.here)
            model.remove(dropped or "")
        else:
            model.remove(name)
            leaving = what != "arrive"
            model.here.append((name, place_of(address), leaving))
            gone = real.depart(name, address) if leaving else real.arrive(name, address)
        for guest, reason in gone:
            assert model.may_go(guest, reason, name), (guest, reason, model.here)
            model.remove(guest)
        assert len(real) == len(model.here) <= connections
        assert real.waiting == len(model.waiting()) <= handshakes
        known = Counter(place for _, place, _ in model.here if place is not None)
        assert all(size <= per_network for size in known.values())
        assert all(one[0] in real for one in model.here)
