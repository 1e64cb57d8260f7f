"""Requests: any bytes must give at most one answer, which does not depend on how they are cut.

The first byte is the size of the pieces that the rest is sent in, 0 for one piece.
"""

from __future__ import annotations

import re

from tests.fuzz.frontchecks import leave, send
from tests.support.frontfakes import Client, FakeGate

_STATUSES = frozenset((101, 400, 401, 404, 405, 426, 431, 503))
_HEAD = re.compile(
    rb"HTTP/1\.1 [1-5]\d\d [A-Za-z -]+\r\n(?:[A-Z][A-Za-z-]+: [\x20-\x7e]+\r\n)+\r\n")
# The most bytes that the service sends by itself; more than that can only come from the input.
_LONGEST_ANSWER = 400


def one(data: bytes) -> None:
    """Send the bytes in pieces on one connection, and in one piece on another; compare."""
    size, sent = (data[0] if data else 0), data[1:]
    first, second = _served(sent, size), _served(sent, 0)
    assert first == second, "the outcome depends on how the bytes were cut"


def _served(sent: bytes, size: int) -> tuple[bytes, int, list[str]]:
    client = Client(FakeGate())
    send(client, sent, size)
    received, sessions = client.received, len(client.gate.sessions)
    heard = [word for session in client.gate.sessions for word in session.heard]
    assert len(received) <= _LONGEST_ANSWER + len(sent)
    assert sessions <= 1
    assert len(client.gate.asked) <= 1, "more than one request on a connection"
    if received:
        head = _HEAD.match(received)
        assert head, received[:200]
        assert client.status in _STATUSES
        assert received.count(b"HTTP/1.1 ") == 1 or client.status == 101
    assert (client.status == 101) == (sessions == 1)
    if sessions:
        request = client.gate.asked[0]
        assert (request.token, request.method, request.path) == (
            "good", "GET", "/v0/envelope/access")
    else:
        assert client.gone, "the connection was not closed"
        assert len(received) <= _LONGEST_ANSWER
    leave(client)
    return received, sessions, heard
