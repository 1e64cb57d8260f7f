"""An unexpected error is logged with its traceback, and with nothing that the client sent."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogEvent, eventAsJSON, eventAsText, globalLogPublisher
from twisted.python import log
from twisted.python.failure import Failure

from envelope.addresses import Address
from envelope.sessions.admission import AccessRequest, Decision
from tests.support.frontfakes import UPGRADE, Client, FakeGate, frame, request

CANARY = "CanaryWord"
HELLO = request(
    f"GET /v0/envelope/access?access_token=good&x={CANARY} HTTP/1.1".encode(),
    UPGRADE + f"Cookie: {CANARY}\r\n".encode())


@pytest.fixture
def logged() -> Any:
    """Every event, of every level."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def words(events: list[LogEvent]) -> str:
    """All that any of twisted's own observers would write."""
    return "\n".join(
        text for event in events for text in (eventAsText(event), eventAsJSON(event), repr(event)))


def test_an_unexpected_error_of_the_gate_later(logged: list[LogEvent]) -> None:
    """The traceback is there, the request is not."""
    client = Client(FakeGate(at_once=False))
    client.send(HELLO)
    try:
        secret = CANARY
        raise RuntimeError("a fault") from ValueError(len(secret))
    except RuntimeError as error:
        client.gate.fail(error)
    assert client.status == 500
    client.leave()
    said = words(logged)
    assert "unexpected error of the gate" in said
    assert "RuntimeError: a fault" in said
    assert CANARY not in said
    assert CANARY.encode() not in client.received


class BrokenGate(FakeGate):
    """Breaks while it decides."""

    def decide(self, request: AccessRequest, address: Address | None) -> Decision:
        raise RuntimeError("a fault")


def test_an_unexpected_error_of_the_gate_at_once(logged: list[LogEvent]) -> None:
    """As the reactor would log it (twisted.python.log.callWithLogger)."""
    client = Client(BrokenGate())
    try:
        client.send(HELLO)
    except RuntimeError:
        log.err(Failure())
    client.leave()
    said = words(logged)
    assert "RuntimeError: a fault" in said
    assert CANARY not in said


def test_an_unexpected_error_of_a_session(logged: list[LogEvent]) -> None:
    """With the client's bytes still at hand."""
    client = Client()
    client.send(HELLO)
    (session,) = client.gate.sessions

    def broken() -> None:
        raise RuntimeError("a fault")

    session.data_received = broken  # type: ignore[method-assign]
    try:
        client.send(frame(1, CANARY.encode()))
    except RuntimeError:
        log.err(Failure())
    client.leave()
    said = words(logged)
    assert "RuntimeError: a fault" in said
    assert CANARY not in said
