"""Flows at a start, at grants' ends, and at a stop, over a kernel in memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.cooperate import SLICE
from envelope.firewall.flows import Flows
from envelope.firewall.flows.connections import Ended, UdpFlow
from envelope.firewall.flows.cutter import MOST_AT_ONCE, Cutter
from envelope.firewall.flows.udp import APART
from envelope.firewall.granted import Cut
from envelope.firewall.policy import RuleChoices
from tests.support.flowkernel import HERE, THERE, MemorySockets, MemoryTracking, connection


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What the log is told."""
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def lines(events: list[Any]) -> str:
    """The lines of the log."""
    return "\n".join(formatEvent(event) for event in events)


SERVICE = (PortRange.parse("tcp/8880"),)
A, B = ip_network("203.0.113.7/32"), ip_network("198.51.100.0/24")


class Rig:
    """Flows over a kernel in memory."""

    def __init__(self, tracking: MemoryTracking | None = None, **options: object) -> None:
        self.clock = Clock()
        self.sockets = MemorySockets()
        self.tracking = tracking or MemoryTracking()
        self.flows = Flows(self.clock, self.sockets, self.tracking)
        self.choices = RuleChoices.of(Config(**options), SERVICE)

    def run(self, coroutine: object) -> object:
        """Let it come to its end; reactor turns pass."""
        results: list[object] = []
        waited = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
        waited.addCallback(results.append)
        for _ in range(1000):
            if results:
                return results[0]
            self.clock.advance(0.001)
        raise AssertionError("it never ended")

    def start(self) -> bool:
        """Prepare and start; whether the rules have to remember."""
        remember = self.run(self.flows.prepare(self.choices))
        self.run(self.flows.start(bool(remember)))
        return bool(remember)


@pytest.mark.parametrize(("options", "told"), [
    ({}, 1), ({"established": "keep"}, 0), ({"established": "keep", "baseline": "service"}, 0)])
def test_it_is_told_that_an_operators_own_rules_cut(options, told, logged) -> None:
    Rig(**{"baseline": "operator", **options}).start()
    assert lines(logged).count("cut: with --baseline=operator your own rules decide") == told


def test_at_a_start_strangers_end_and_the_hosts_own_are_made_known() -> None:
    """Served ports that stay open, and other devices, are left alone."""
    rig = Rig()
    own = connection(True, port=40000)
    kept = [own, connection(False, port=8880), connection(False, "udp", 53),
            connection(False, remote="198.51.100.7", local="198.51.100.1")]
    rig.sockets.devices = {ip_address("198.51.100.7"): "lab1"}
    rig.sockets.open = [*kept, connection(False), connection(False, port=41000)]
    assert rig.start()
    assert rig.sockets.open == kept
    assert rig.tracking.told == [own]
    assert not rig.tracking.is_loose
    rig.flows.stop()
    assert rig.tracking.is_loose


def test_flows_through_another_name_of_the_device_end_too() -> None:
    """Under that name alone, once it is no longer one of several."""
    rig = Rig()
    rig.start()
    rig.sockets.devices = {THERE: "wan0"}
    for names, ends in [(("eth0", "wan0"), True), (("eth0",), False), (("wan0",), True)]:
        rig.flows.guard(names)
        rig.sockets.open = [connection(False)]
        rig.clock.advance(1)
        rig.run(rig.flows.ended(Cut(A, (), others=False, unused=False)))
        assert (rig.sockets.open == []) is ends, names
    rig.flows.stop()


@pytest.mark.parametrize("options", [{"established": "keep"}, {"baseline": "operator"}])
def test_where_flows_are_kept_or_rules_are_the_operators_nothing_is_done(options) -> None:
    """But what a killed predecessor set is given back."""
    rig = Rig(MemoryTracking(is_loose=False), **options)
    rig.sockets.open = [connection(False)]
    rig.run(rig.flows.prepare(rig.choices))
    assert not rig.tracking.is_loose
    assert rig.run(rig.flows.start(True))
    assert rig.tracking.is_loose
    rig.run(rig.flows.ended(Cut(A, (), others=False, unused=False)))
    assert not rig.sockets.destroyed


def test_a_setting_that_may_not_be_written_is_left_alone() -> None:
    """Nothing has to be remembered, and sockets are destroyed all the same."""
    rig = Rig(MemoryTracking(fixed=True))
    rig.sockets.open = [connection(False)]
    assert not rig.start()
    assert rig.sockets.destroyed
    assert rig.tracking.is_loose
    rig.flows.stop()


@pytest.mark.parametrize("options", [{"established": "keep"}, {"baseline": "operator"}])
def test_what_cannot_be_given_back_at_a_start_has_to_be_remembered(options) -> None:
    """And is given back at the stop, if it can be then."""
    rig = Rig(MemoryTracking(is_loose=False, fixed=True), **options)
    rig.run(rig.flows.prepare(rig.choices))
    assert not rig.run(rig.flows.start(True))
    rig.tracking.fixed = False
    rig.flows.stop()
    assert rig.tracking.is_loose


@pytest.mark.parametrize("on_stop", ["restore", "keep"])
@pytest.mark.parametrize("was_loose", [True, False])
def test_a_start_that_fails_leaves_the_setting_as_it_was(was_loose, on_stop) -> None:
    """Its rules go in any case; those that a killed service left stay, with their marker."""
    rig = Rig(MemoryTracking(is_loose=was_loose), on_stop=on_stop)
    rig.run(rig.flows.prepare(rig.choices))
    rig.run(rig.flows.start(True))
    assert not rig.tracking.is_loose
    rig.flows.stop(failed=True)
    assert rig.tracking.is_loose is was_loose


def test_rules_that_stay_keep_what_they_need() -> None:
    """With `--on-stop=keep` the setting stays as they do, for the next start to give back."""
    rig = Rig(on_stop="keep")
    assert rig.start()
    rig.flows.stop()
    assert not rig.tracking.is_loose


def test_nothing_is_asked_of_the_kernel_after_the_end() -> None:
    """Grants may still end, and a look may still be due."""
    rig = Rig()
    rig.start()
    rig.flows.close()
    rig.sockets.open, lists = [connection(False)], rig.sockets.lists
    rig.run(rig.flows.ended(Cut(A, (), others=False, unused=False)))
    rig.run(rig.flows.look([A]))
    assert rig.sockets.lists == lists


def test_a_look_that_the_end_interrupts_is_no_warning(logged) -> None:
    """The kernel's socket is closed between two of its turns."""
    rig = Rig()
    rig.start()
    rig.tracking.told.clear()
    rig.sockets.open = [connection(True, port=port) for port in range(1000)]
    looking = Deferred.fromCoroutine(rig.flows.look([]))
    assert not looking.called
    rig.flows.close()
    rig.run(looking)
    assert "Bad file descriptor" not in lines(logged)


def test_the_operators_own_strictness_stays() -> None:
    """A setting that was 0 is 0 afterwards."""
    rig = Rig(MemoryTracking(is_loose=False))
    assert not rig.start()
    rig.flows.stop()
    assert not rig.tracking.is_loose


def test_what_a_killed_service_set_is_given_back_by_its_successor() -> None:
    """The rules remember it for both."""
    rig = Rig(MemoryTracking(is_loose=False))
    assert rig.run(rig.flows.prepare(rig.choices)) is False
    rig.run(rig.flows.start(True))
    assert not rig.tracking.is_loose
    rig.flows.stop()
    assert rig.tracking.is_loose


def test_sockets_that_cannot_be_destroyed_are_left_alone() -> None:
    """The setting does what it can."""
    rig = Rig()
    rig.sockets.indestructible = "Operation not permitted"
    rig.sockets.open = [connection(False)]
    rig.start()
    rig.run(rig.flows.ended(Cut(A, (), others=False, unused=False)))
    assert len(rig.sockets.open) == 1
    assert not rig.tracking.is_loose


def test_connections_that_tracking_has_no_room_for_are_told(logged) -> None:
    """The others are made known."""
    rig = Rig()
    rig.tracking.full = 2
    rig.sockets.open = [connection(True, port=40000 + n) for n in range(5)]
    rig.run(rig.flows.prepare(rig.choices))
    assert len(rig.tracking.told) == 2
    assert "3 of the host's own connections may be cut" in lines(logged)


def test_a_grants_end_takes_its_clients_connections_alone() -> None:
    """The host's own, and others' live on; the service's connection gets its close frame."""
    rig = Rig(proxy_port=(443,))
    rig.start()
    kept = [connection(True, port=40000), connection(False, remote="203.0.113.8"),
            connection(False, port=8880), connection(False, port=443)]
    rig.sockets.open = [*kept, connection(False), connection(None, "udp", 5000)]
    rig.run(rig.flows.ended(Cut(A, (), others=True, unused=False)))
    assert rig.sockets.open == kept
    rig.sockets.open.append(connection(False, port=443, remote="192.0.2.1"))
    rig.run(rig.flows.ended(Cut(A, (), others=False, unused=False)))
    assert rig.sockets.open == kept[:3], "the last grant takes the proxies' ports along"


def test_under_a_grant_that_let_nothing_in_nothing_was_opened() -> None:
    """So no sockets are listed, but for the proxies' ports, which all strangers could use."""
    rig = Rig()
    rig.start()
    before = rig.sockets.lists
    assert rig.flows.ended(Cut(A, (), others=False, unused=True)) is None
    assert rig.sockets.lists == before
    rig = Rig(proxy_port=(443,))
    rig.start()
    rig.sockets.open = [connection(False, port=443, remote="192.0.2.1")]
    rig.run(rig.flows.ended(Cut(A, (), others=False, unused=True)))
    assert rig.sockets.open == []


def test_ends_of_the_same_moment_share_a_list() -> None:
    """As many as one list takes."""
    rig = Rig()
    cutter = Cutter(rig.clock, rig.sockets, ("eth0",))
    ends = [cutter.end(Ended(ip_network((0x0A000000 + n, 32)))) for n in range(MOST_AT_ONCE + 1)]
    rig.run(ends[-1])
    assert all(end.called for end in ends)
    assert rig.sockets.lists == 2


def test_a_network_that_is_let_in_again_is_spared() -> None:
    """The answer to its end comes at once."""
    rig = Rig()
    rig.start()
    rig.sockets.open = [connection(False)]
    ended = rig.flows.ended(Cut(A, (), others=True, unused=False))
    rig.flows.granted(A)
    assert ended.called
    rig.clock.pump([0.01] * 10)
    assert rig.sockets.open


def test_flows_that_another_grant_of_the_network_allows_live_on() -> None:
    """Whether it is there when one ends, or comes before the flows are cut."""
    rig = Rig()
    rig.start()
    first, second = PortRange("tcp", 5000, 5000), PortRange("tcp", 6000, 6001)
    flows = [connection(False, port=port) for port in (5000, 6000, 7000)]
    rig.sockets.open = [*flows]
    rig.run(rig.flows.ended(Cut(A, (second,), others=True, unused=False)))
    assert rig.sockets.open == [flows[1]]
    rig.sockets.open = [*flows]
    ended = rig.flows.ended(Cut(A, (), others=True, unused=False))
    rig.flows.granted(A, (first,))
    assert not ended.called
    rig.run(ended)
    assert rig.sockets.open == [flows[0]]


@pytest.mark.parametrize(("error", "said"), [
    (OSError(errno.ENOBUFS, "no buffer space"),
     "flows may stay open after their grant: no buffer space"),
    (ValueError("an answer that cannot be read"), "ending flows broke"),
])
def test_a_kernel_that_does_not_answer_holds_nobody_up(logged, error: Exception, said: str) -> None:
    """It is said, and the next grants that end are tried again."""
    rig = Rig()
    rig.start()
    rig.sockets.broken = error
    ends = [rig.flows.ended(Cut(each, (), others=True, unused=False))
            for each in [*B.subnets(new_prefix=32)][:MOST_AT_ONCE + 1]]
    for end in ends:
        rig.run(end)
    assert said in lines(logged)
    rig.sockets.broken = None
    rig.sockets.open = [connection(False)]
    rig.run(rig.flows.ended(Cut(A, (), others=True, unused=False)))
    assert rig.sockets.open == []


def flow(port: int, turned: bool = False, remote: str = str(THERE)) -> UdpFlow:
    """A client's flow to a port of this host."""
    begun = UdpFlow(ip_address(remote), 40000, HERE, port)
    return begun.turned if turned else begun


def test_udp_flows_of_clients_stay_theirs() -> None:
    """Also where a server sent first; the host's own, and those to nobody, are left alone."""
    rig = Rig()
    rig.start()
    rig.clock.advance(2 * APART)
    rig.sockets.served["udp"] = {5000, 53, 45000}
    rig.tracking.flows = [
        flow(5000), flow(5001), flow(53), flow(5000, remote="203.0.113.8"),
        flow(5000, turned=True), flow(45000, turned=True), flow(41000, turned=True),
    ]
    rig.run(rig.flows.ended(Cut(A, (), others=True, unused=False)))
    held = [(flow(5000), False), (flow(5000), True)]
    assert rig.tracking.held == held
    rig.run(rig.flows.ended(Cut(A, (), others=True, unused=False)))
    assert rig.tracking.held == held, "too soon"
    rig.clock.advance(APART)
    rig.clock.advance(0)
    assert rig.tracking.held == [*held, *held]
    rig.tracking.held.clear()
    rig.run(rig.flows.look([ip_network("203.0.113.8/32")]))
    assert rig.tracking.held == [(flow(5000, remote="203.0.113.8"), False)]


def test_a_look_at_thousands_of_networks_takes_several_turns() -> None:
    """The last one's flow is pinned all the same."""
    rig = Rig()
    rig.start()
    rig.clock.advance(2 * APART)
    rig.sockets.served["udp"] = {5000}
    rig.tracking.flows = [flow(5000)]
    networks = [*(ip_network((0x0A000000 + n, 32)) for n in range(SLICE)), A]
    looking = Deferred.fromCoroutine(rig.flows.look(networks))
    assert not looking.called
    rig.run(looking)
    assert rig.tracking.held == [(flow(5000), False)]


def test_a_look_makes_the_hosts_own_known_again_after_a_flush() -> None:
    """Whether there was one shows in a flow that is nobody's."""
    rig = Rig()
    rig.start()
    rig.run(rig.flows.look([]))
    rig.sockets.open = [connection(True, port=40000)]
    rig.run(rig.flows.look([]))
    assert rig.sockets.open[0] not in rig.tracking.told
    rig.tracking.told.clear()
    rig.run(rig.flows.look([]))
    assert rig.sockets.open[0] in rig.tracking.told
