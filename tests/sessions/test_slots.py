"""Slots under any order of comings and goings, against a model that pairs sessions one by one."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)
from twisted.internet.defer import CancelledError

from envelope.addresses import AddressFamily
from envelope.firewall import FirewallError
from envelope.sessions.answers import FULL, Refused
from envelope.sessions.slots import TakenSlots, visitor_of
from tests.sessions.test_registry import World

V4, V6 = AddressFamily.IPV4, AddressFamily.IPV6
ANNA, BERT = visitor_of(b"anna", "ndt"), visitor_of(b"bert", "ndt")


def test_a_visitor_over_both_families_takes_one_slot() -> None:
    taken = TakenSlots()
    taken.enter(ANNA, V4)
    assert not taken.needs_slot(ANNA, V6)
    assert taken.needs_slot(ANNA, V4)
    assert taken.needs_slot(BERT, V6)
    taken.enter(ANNA, V6)
    assert taken.taken == 1
    taken.leave(ANNA, V4)
    assert taken.taken == 1
    taken.leave(ANNA, V6)
    assert taken.taken == 0


def test_the_same_token_for_another_subject_is_another_visitor() -> None:
    taken = TakenSlots()
    taken.enter(ANNA, V4)
    assert taken.needs_slot(visitor_of(b"anna", "wehe"), V6)


@pytest.mark.parametrize(("visitor", "family"), [(None, V4), (None, None), (ANNA, None)])
def test_without_jti_or_address_each_session_takes_a_slot(visitor, family) -> None:
    taken = TakenSlots()
    for number in (1, 2):
        assert taken.needs_slot(visitor, family)
        taken.enter(visitor, family)
        assert taken.taken == number


def test_a_session_that_is_not_in_cannot_leave() -> None:
    taken = TakenSlots()
    taken.enter(ANNA, V4)
    for visitor, family in ((ANNA, V6), (BERT, V4)):
        with pytest.raises(ValueError, match="no such session"):
            taken.leave(visitor, family)
    taken.leave(ANNA, V4)
    with pytest.raises(ValueError, match="no such session"):
        taken.leave(None, None)


def test_monitoring_over_both_families_takes_one_of_the_slots_kept_for_it() -> None:
    """A second one takes the other."""
    world = World(max_clients=1, monitoring_slots=2)
    for jti in "ab":
        for address in ("203.0.113.7", "2001:db8::7"):
            world.admit(ip_address(address), f"monitoring {jti}")
            assert world.sessions.slots.used == 0
    assert len(world.sessions) == 4
    world.admit(ip_address("203.0.113.7"), "monitoring c")
    assert world.sessions.slots.used == 1
    assert world.admit(ip_address("203.0.113.7"), "ndt c")[0] is FULL


def slots_needed(sessions: list[tuple[str | None, int]]) -> int:
    """How many slots these sessions (jti, IP version) need, paired one by one."""
    slots: list[list[tuple[str | None, int]]] = []
    for jti, version in sessions:
        fits = (
            slot for slot in slots
            if jti is not None and len(slot) == 1 and slot[0] == (jti, 10 - version)
        )
        slot = next(fits, None)
        if slot is None:
            slots.append([(jti, version)])
        else:
            slot.append((jti, version))
    return len(slots)


@dataclass
class Client:
    """A client that was admitted: in until the firewall has revoked its grant or failed to make it.

    `gone`: its session has to end.
    """

    subject: str
    jti: str | None
    version: int
    answer: Any
    opened: bool = False
    gone: bool = False


class Comings(RuleBasedStateMachine):
    """Clients come and go over both families, while the firewall answers late."""

    clients = Bundle("clients")

    @initialize(most=st.integers(1, 3), kept=st.integers(0, 2))
    def start(self, most: int, kept: int) -> None:
        self.world = World(max_clients=most, monitoring_slots=kept)
        self.world.firewall.hold_back = True
        self.most, self.kept = most, kept
        self.inside: list[Client] = []
        self.number = 0

    def taken(self, *more: tuple[str, str | None, int]) -> tuple[int, int]:
        """The slots that clients and monitoring take; with one more session, if it is given."""
        sessions = [*((each.subject, each.jti, each.version) for each in self.inside), *more]
        clients, monitoring = (
            slots_needed([(jti, version) for subject, jti, version in sessions if subject == asked])
            for asked in ("ndt", "monitoring")
        )
        return clients, monitoring

    @rule(target=clients, subject=st.sampled_from(["ndt", "monitoring"]),
          jti=st.sampled_from([None, "a", "b"]), version=st.sampled_from([4, 6]))
    def come(self, subject: str, jti: str | None, version: int) -> Client | None:
        self.number += 1
        clients, monitoring = self.taken()
        admitted = (
            self.taken((subject, jti, version)) == (clients, monitoring)
            or clients + max(0, monitoring - self.kept) < self.most
            or (subject == "monitoring" and monitoring < self.kept)
        )
        network = "203.0.113." if version == 4 else "2001:db8::"
        answer, _ = self.world.admit(
            ip_address(f"{network}{self.number}"), f"{subject} {jti or ''}")
        if not admitted:
            assert answer is FULL
            return None
        client = Client(subject, jti, version, answer)
        self.inside.append(client)
        answer.addErrback(lambda failure: failure.trap(CancelledError, FirewallError, Refused))
        return client

    @rule(client=consumes(clients), how=st.sampled_from(["client_left", "client_closed"]))
    def go(self, client: Client | None, how: str) -> None:
        if client not in self.inside or client.gone:
            return
        client.gone = True
        if client.opened:
            getattr(client.answer.result, how)()
        else:
            client.answer.cancel()

    @rule()
    def operator_ends_all(self) -> None:
        self.world.sessions.revoke_all()
        for client in self.inside:
            client.gone = True

    @rule(fails=st.booleans())
    def firewall_answers(self, fails: bool) -> None:
        self.world.firewall.refuse = (
            lambda call, _: "broken" if fails and call == "allow" else None
        )
        self.world.firewall.release()
        self.world.firewall.refuse = lambda *_: None
        self.inside = [
            each for each in self.inside if not each.gone and (each.opened or not fails)
        ]
        for client in self.inside:
            client.opened = True

    @invariant()
    def no_slot_is_lost_or_given_twice(self) -> None:
        clients, monitoring = self.taken()
        used = self.world.sessions.slots.used
        assert used == clients + max(0, monitoring - self.kept)
        assert used <= self.most
        assert self.world.metric("envelope_slots_used") == used
        assert len(self.world.sessions) == len(self.inside)


TestComings = Comings.TestCase
TestComings.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
