"""Sessions: slots, deadlines, and the order in which a session ends; without sockets or kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from envelope.addresses import Address
from envelope.config import Config
from envelope.credentials.tokens import Claims
from envelope.firewall import FirewallError, GrantId
from envelope.metrics import new_registry
from envelope.protocol import End
from envelope.sessions.admission import AccessRequest, Admission
from envelope.sessions.answers import FULL, NO_ADDRESS, REVOKED, STOPPING, Refusal, Refused
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from envelope.sessions.view import Slots
from tests.support.scriptedfirewall import ScriptedFirewall

ADDRESS = ip_address("203.0.113.7")
GRANT = GrantId(ip_network("203.0.113.7/32"))
OTHER = ip_address("203.0.113.8")
NOW = 1_000_000.0


class Carrier:
    """A connection that remembers how it was closed."""

    def __init__(self, firewall: ScriptedFirewall) -> None:
        self.firewall = firewall
        self.closed: list[tuple[int, str]] = []
        self.open_when_closed: list[bool] = []

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))
        self.open_when_closed.append(GRANT in self.firewall.grants)

    def abort(self) -> None:
        self.closed.append((0, "abort"))


class World:
    """Sessions over a scripted firewall and a clock."""

    def __init__(self, **options: object) -> None:
        self.clock = Clock()
        self.clock_set_by = 0.0
        self.firewall = ScriptedFirewall()
        self.own: set[Address] = set()
        self.metrics = new_registry()
        settings = {"token_required": False, "firewall": "none", **options}
        self.sessions = Sessions(
            self.clock, Config(**settings), self.firewall,  # type: ignore[arg-type]
            self.verify, SessionMetrics(self.metrics),
            lambda: NOW + self.clock.seconds() + self.clock_set_by, own=self.own,
        )

    @staticmethod
    def verify(text: str, now: float) -> Claims:
        """A token is its subject, and after a blank its jti."""
        subject, _, jti = text.partition(" ")
        return Claims("locate", subject, (), now + 30, token_id=jti.encode() or None,
                      jti=jti or None)

    def request(self, token: str | None = None) -> AccessRequest:
        return AccessRequest("GET", "/v0/envelope/access", token, None)

    def admit(self, address=ADDRESS, token=None):
        outcome = self.sessions.decide(self.request(token), address).outcome
        if isinstance(outcome, Refusal):
            return outcome, None
        carrier = Carrier(self.firewall)
        return self.sessions.admit(address, outcome, carrier), carrier

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0


def result(answer: Deferred):
    """What a Deferred has come to."""
    found = []
    answer.addBoth(found.append)
    return found[0] if found else None


def test_at_its_deadline_a_session_ends_and_its_grant_is_revoked_before_the_close_frame() -> None:
    """Close code 4000."""
    world = World()
    answer, carrier = world.admit()
    assert result(answer) is not None
    assert GRANT in world.firewall.grants
    world.clock.advance(59.9)
    assert carrier.closed == []
    world.clock.advance(0.2)
    assert carrier.closed == [(4000, "deadline")]
    assert carrier.open_when_closed == [False]
    assert len(world.sessions) == 0
    assert world.clock.getDelayedCalls() == []
    assert world.metric("envelope_requests_total", status="success") == 1


@pytest.mark.parametrize(("act", "closed"), [
    (lambda s: s.client_left(), []),
    (lambda s: s.data_received(), [(1003, "data")]),
])
def test_each_end_frees_slot_network_and_timer(act, closed) -> None:
    world = World()
    answer, carrier = world.admit()
    act(result(answer))
    assert carrier.closed == closed
    assert len(world.sessions) == 0
    assert world.firewall.grants == {}
    assert world.clock.getDelayedCalls() == []


def test_a_client_that_closes_is_answered_once_the_grant_is_revoked() -> None:
    world = World()
    answer, carrier = world.admit()
    session = result(answer)
    world.firewall.hold_back = True
    gone = []
    session.client_closed().addCallback(gone.append)
    assert gone == []
    assert world.admit()[0] is FULL
    world.firewall.release()
    assert gone == [None]
    assert carrier.closed == []
    session.client_left()
    session.data_received()
    assert result(session.client_closed()) is None
    assert len(world.sessions) == 0


def test_a_session_holds_its_slot_while_the_grant_is_made() -> None:
    world = World()
    world.firewall.hold_back = True
    answer, _ = world.admit()
    assert world.admit()[0] is FULL
    world.firewall.release()
    assert result(answer) is not None


def test_a_client_that_is_lost_while_the_grant_is_made_leaves_no_grant() -> None:
    """Whether the firewall finishes the grant or the revocation first."""
    world = World()
    world.firewall.hold_back = True
    answer, _ = world.admit()
    answer.addErrback(lambda _: None)
    answer.cancel()
    assert len(world.sessions) == 1
    world.firewall.release()
    assert world.firewall.grants == {}
    assert len(world.sessions) == 0
    assert world.clock.getDelayedCalls() == []


def test_a_grant_that_fails_frees_the_slot() -> None:
    world = World()
    world.firewall.refuse = lambda call, _: "broken" if call == "allow" else None
    answer, _ = world.admit()
    assert result(answer).check(FirewallError)
    assert len(world.sessions) == 0
    world.firewall.refuse = lambda *_: None
    assert result(world.admit()[0]) is not None
    assert world.metric("envelope_requests_total", status="iptables-grant-failure") == 1


def test_sessions_of_one_network_share_its_grant() -> None:
    """Its end becomes earlier when the longest session ends; the last session revokes it."""
    world = World(max_clients=2)
    first, _ = world.admit()
    end = world.firewall.grants[GRANT]
    world.clock.advance(10)
    second, _ = world.admit()
    assert world.firewall.grants[GRANT] == end + 10
    result(second).client_left()
    assert world.firewall.grants[GRANT] == end
    result(first).client_left()
    assert world.firewall.grants == {}


def test_a_grant_that_fails_leaves_the_networks_other_sessions_theirs() -> None:
    """With the end from before."""
    world = World(max_clients=2)
    world.admit()
    end = world.firewall.grants[GRANT]
    world.clock.advance(10)
    calls: list[str] = []

    def refuse(call: str, _: object) -> str | None:
        calls.append(call)
        return "broken" if len(calls) == 1 else None

    world.firewall.refuse = refuse
    assert result(world.admit()[0]).check(FirewallError)
    assert calls == ["allow", "allow"]
    assert world.firewall.grants[GRANT] == end


def test_a_stop_ends_all_sessions() -> None:
    """Open ones with 1001, and 503 for those whose grant is being made."""
    world = World(max_clients=3)
    answer, carrier = world.admit()
    assert result(answer)
    world.firewall.hold_back = True
    pending, _ = world.admit(ip_address("2001:db8::7"))
    world.sessions.stopping = True
    assert world.admit()[0] is STOPPING
    world.sessions.end_all(End.SHUTDOWN)
    empty = world.sessions.when_empty()
    assert result(empty) is None
    assert len(world.sessions) == 2
    world.firewall.release()
    assert result(pending).check(Refused)
    assert carrier.closed == [(1001, "stopping")]
    assert world.firewall.grants == {}
    assert world.sessions.when_empty().called


def test_monitoring_has_slots_of_its_own() -> None:
    """They are kept when all others are taken."""
    world = World(monitoring_slots=1)
    world.admit()
    refused = world.sessions.decide(world.request("other"), ADDRESS)
    assert refused.outcome is FULL
    let_in = world.sessions.decide(world.request("monitoring"), ADDRESS)
    assert isinstance(let_in.outcome, Admission)


def test_a_session_of_monitoring_leaves_the_clients_their_slots() -> None:
    """And gives its own back when it ends."""
    world = World(monitoring_slots=1)
    for _ in range(2):
        decision = world.sessions.decide(world.request("monitoring"), ADDRESS)
        assert isinstance(decision.outcome, Admission)
        answer = world.sessions.admit(ADDRESS, decision.outcome, Carrier(world.firewall))
        client = world.sessions.decide(world.request("ndt"), ADDRESS)
        assert isinstance(client.outcome, Admission)
        result(answer).client_left()


def test_a_client_without_an_address_needs_no_grant() -> None:
    """It came over a UNIX socket, and no firewall is managed."""
    world = World()
    answer, _ = world.admit(None)
    assert result(answer) is not None
    assert world.firewall.grants == {}
    world.sessions.end_all(End.REVOKED)
    assert len(world.sessions) == 0


@pytest.mark.parametrize("by", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_moves_no_deadline(by) -> None:
    """Nor the end of a shared grant, told in the new time when the longer of two leaves."""
    world = World(max_clients=2)
    first, carrier = world.admit()
    assert result(first) is not None
    world.clock.advance(10)
    second, _ = world.admit()
    assert world.firewall.grants[GRANT] == 70
    world.clock_set_by = by
    world.clock.advance(10)
    result(second).client_left()
    assert world.firewall.grants[GRANT] == 60
    world.clock.advance(39.9)
    assert carrier.closed == []
    world.clock.advance(0.2)
    assert carrier.closed == [(4000, "deadline")]


def test_a_stop_answers_clients_whose_grants_are_being_made_at_once() -> None:
    """They do not wait for the firewall, which may fail; the slot is held until it has revoked."""
    world = World()
    world.firewall.hold_back = True
    answer, carrier = world.admit()
    world.sessions.end_all(End.SHUTDOWN)
    refused = result(answer)
    assert isinstance(refused.value, Refused)
    assert refused.value.refusal is STOPPING
    assert world.metric("envelope_requests_total", status="draining") == 1
    assert len(world.sessions) == 1
    world.firewall.release()
    assert len(world.sessions) == 0
    assert world.firewall.grants == {}
    assert carrier.closed == []


def test_with_a_firewall_a_client_without_an_address_is_refused() -> None:
    """A proxy that sends no address; without a firewall none is needed."""
    guarded, open_house = World(firewall="iptables"), World()
    assert guarded.admit(None) == (NO_ADDRESS, None)
    assert guarded.metric("envelope_requests_total", status="websocket-setup-failure") == 1
    assert result(open_house.admit(None)[0]) is not None


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.9.9.9", "::1", "203.0.113.1", "0.0.0.0", "ff02::1"],
)
def test_with_a_firewall_an_address_that_is_no_clients_is_refused(text: str) -> None:
    """This host's own, loopback ones, and those that a proxy can only have made up."""
    address = ip_address(text)
    guarded, open_house = World(firewall="iptables"), World()
    for world in (guarded, open_house):
        world.own.add(ip_address("203.0.113.1"))
    assert guarded.admit(address) == (NO_ADDRESS, None)
    assert guarded.metric("envelope_requests_total", status="websocket-setup-failure") == 1
    assert result(guarded.admit(ADDRESS)[0]) is not None
    assert result(open_house.admit(address)[0]) is not None


def test_an_operator_sees_each_open_session() -> None:
    """Until its slot is free; not one whose grant is being made."""
    world = World(max_clients=3, monitoring_slots=1)
    answer, _ = world.admit()
    session = result(answer)
    world.clock.advance(10)
    world.clock_set_by = 3600
    view, = world.sessions.views()
    assert (view.address, view.network, view.subject) == (ADDRESS, GRANT.network, None)
    assert (view.since, view.until) == (NOW, NOW + 60)
    assert (view.packets, view.bytes, view.claims) == (None, None, {})
    world.firewall.hold_back = True
    world.admit(OTHER)
    assert world.sessions.views() == [view]
    assert world.sessions.slots == Slots(2, 3)
    session.client_left()
    assert world.sessions.views() == [view]
    world.firewall.release()
    assert [each.address for each in world.sessions.views()] == [OTHER]


def test_watchers_are_told_when_a_session_has_opened_and_when_it_has_ended() -> None:
    world = World()
    seen: list[int] = []
    world.sessions.watchers.append(lambda: seen.append(len(world.sessions.views())))
    world.firewall.hold_back = True
    answer, _ = world.admit()
    assert seen == []
    world.firewall.release()
    assert seen == [1]
    world.firewall.hold_back = False
    result(answer).client_left()
    assert seen == [1, 0]


def test_an_operator_ends_sessions_by_their_ids() -> None:
    """The ids of no session are returned, and the others are ended all the same."""
    world = World(max_clients=3)
    carriers = [world.admit()[1] for _ in range(3)]
    first, second, third = (view.id for view in world.sessions.views())
    assert world.sessions.revoke_sessions([first, "unknown", third, first]) == ["unknown"]
    assert [view.id for view in world.sessions.views()] == [second]
    revoked = [(4001, "revoked")]
    assert [carrier.closed for carrier in carriers] == [revoked, [], revoked]
    assert carriers[2].open_when_closed == [True]
    assert world.sessions.revoke_sessions([first]) == [first]


def test_an_operator_ends_the_sessions_of_a_network() -> None:
    """Those whose address lies in it, of either family."""
    world = World(max_clients=4, grant_prefix4=24)
    for text in ("203.0.113.7", "203.0.113.8", "2001:db8::7", "198.51.100.1"):
        world.admit(ip_address(text))
    assert world.sessions.revoke_network(ip_network("203.0.113.8/32")) == 1
    assert world.sessions.revoke_network(ip_network("2001:db8::/32")) == 1
    assert [str(view.address) for view in world.sessions.views()] == ["203.0.113.7", "198.51.100.1"]
    assert world.sessions.revoke_all() == 2
    assert world.sessions.revoke_all() == 0
    assert world.metric("envelope_session_seconds_count", end="revoked") == 4


def test_a_client_whose_grant_is_being_made_when_an_operator_ends_it_is_answered() -> None:
    """With 503; its slot is free once the firewall has answered."""
    world = World()
    world.firewall.hold_back = True
    answer, carrier = world.admit()
    assert world.sessions.revoke_all() == 1
    refused = result(answer)
    assert refused.value.refusal is REVOKED
    assert world.metric("envelope_requests_total", status="websocket-setup-failure") == 1
    world.firewall.release()
    assert (len(world.sessions), carrier.closed) == (0, [])
    assert world.firewall.grants == {}
