"""Checks of the front's fuzz targets: nothing logged, nothing left, work within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from tests.support.callcounter import CallCounter
from tests.support.frontfakes import Client

# Bounds on calls of Python functions: for a connection, and for each byte sent on it.
FEW, EACH = 2000, 60


@contextmanager
def silence() -> Iterator[None]:
    """A context manager: fail if anything above debug is logged."""
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
    """`data` cut into pieces of `size` bytes; 0: one piece."""
    return [data[i : i + size] for i in range(0, len(data), size)] if size else [data]


def send(client: Client, data: bytes, size: int) -> None:
    """Send in pieces, let 12 s pass, and check the number of calls."""
    parts = pieces(data, size)
    with CallCounter() as work, silence():
        client.send(*parts)
        client.clock.pump([1.0] * 12)
    bound = FEW + EACH * len(data)
    assert work.calls <= bound, f"{work.calls} calls for {len(data)} bytes"


def leave(client: Client) -> None:
    """Lose the connection; check that no timer, connection or session is left."""
    with silence():
        client.leave()
    assert not client.factory.connections
    assert client.transport.producer is None or client.gone or client.gate.sessions
