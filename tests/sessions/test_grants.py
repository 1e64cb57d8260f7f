"""What sessions' grants let in: in their events, in the metrics, and in what operators see."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from envelope.firewall import GrantId, Traffic
from envelope.sessions.grants import READ_APART
from tests.sessions.test_registry import ADDRESS, World, result


class Counting(World):
    """Sessions whose firewall says of every grant that `traffic` was let in."""

    def __init__(self, traffic: Traffic | None) -> None:
        super().__init__(max_clients=9)
        self.traffic = traffic
        self.readings = 0
        revoke = self.firewall.revoke

        def revoked(grant: GrantId) -> Deferred[Traffic | None]:
            return revoke(grant).addCallback(lambda _: self.traffic)

        self.firewall.revoke = revoked  # type: ignore[method-assign]
        self.firewall.traffic = lambda _: self.traffic  # type: ignore[method-assign]
        self.firewall.read_traffic = self.read  # type: ignore[method-assign]

    def read(self) -> Deferred[None]:
        self.readings += 1
        return succeed(None)

    def received(self, what: str) -> float:
        return self.metric(f"envelope_session_received_{what}_total", family="ipv4")

    def leave(self, answer: Any) -> tuple[str, dict[str, Any]]:
        """Let a session's client leave; its last event."""
        with capturedLogs() as events:
            result(answer).client_left()
        return formatEvent(events[-1]), events[-1]


def test_a_session_says_what_its_grant_let_in() -> None:
    """All of it, or at least so much, or nothing when that is not known."""
    world = Counting(Traffic(5, 300, exact=True))
    text, event = world.leave(world.admit()[0])
    assert "lost, 5 packets (300 bytes) let in;" in f"{text};"
    assert [event[name] for name in ("packets", "bytes", "exact", "shared")] == [
        5, 300, True, False]
    assert (world.received("packets"), world.received("bytes")) == (5, 300)
    world.traffic = Traffic(2, 100, exact=False)
    text, _ = world.leave(world.admit()[0])
    assert "at least 2 packets (100 bytes) let in" in text
    world.traffic = None
    text, event = world.leave(world.admit()[0])
    assert "let in" not in text
    assert (event["packets"], event["bytes"], event["exact"]) == (None, None, False)
    assert (world.received("packets"), world.received("bytes")) == (7, 400)


def test_sessions_that_share_a_grant_say_so_and_count_once() -> None:
    """Each tells the figures of all, the last one too; then the grant is another one."""
    world = Counting(Traffic(5, 300, exact=False))
    first, second = world.admit()[0], world.admit()[0]
    text, event = world.leave(first)
    assert "at least 5 packets (300 bytes) let in for all sessions of its network" in text
    assert event["shared"]
    assert world.received("packets") == 0
    world.traffic = Traffic(9, 500, exact=True)
    text, event = world.leave(second)
    assert ", 9 packets (500 bytes) let in for all sessions of its network" in text
    assert world.received("packets") == 9
    assert not world.leave(world.admit()[0])[1]["shared"]


def test_who_looks_begins_a_reading_but_not_at_each_look() -> None:
    world = Counting(Traffic(5, 300, exact=False))
    world.admit(ADDRESS)
    for _ in range(3):
        view, = world.sessions.views()
    assert (view.packets, view.bytes) == (5, 300)
    assert world.readings == 1
    world.clock.advance(READ_APART)
    world.sessions.views()
    assert world.readings == 2
