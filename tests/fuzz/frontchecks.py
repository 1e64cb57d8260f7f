"""What every target of the front checks: nothing logged, nothing left, work in proportion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from tests.support.callcounter import CallCounter
from tests.support.frontfakes import Client

# Calls of Python functions for any connection, and for each byte sent on it.
FEW, EACH = 2000, 60


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is logged above debug."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] > LogLevel.debug:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not events, events


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut as a network might; 0 leaves it whole."""
    return [data[i : i + size] for i in range(0, len(data), size)] if size else [data]


def send(client: Client, data: bytes, size: int) -> None:
    """Send in pieces, and count the work."""
    parts = pieces(data, size)
    with CallCounter() as work, silence():
        client.send(*parts)
        client.clock.pump([1.0] * 12)
    bound = FEW + EACH * len(data)
    assert work.calls <= bound, f"{work.calls} calls for {len(data)} bytes"


def leave(client: Client) -> None:
    """The connection is lost: no timer, no connection, no session is left."""
    with silence():
        client.leave()
    assert not client.factory.connections
    assert client.transport.producer is None or client.gone or client.gate.sessions
