"""Frames: any bytes after the 101 must give the pongs and the one end that RFC 6455 asks for.

The first byte is the size of the pieces that the rest is sent in, 0 for one piece. `read`, which
shares no code with the service, computes the expected pongs and end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.fuzz.frontchecks import leave, send
from tests.support.frontfakes import HELLO, Client, FakeGate

_FRAMES_A_SECOND = 100
_DATA, _CONTROL = frozenset((0, 1, 2)), frozenset((8, 9, 10))
# Close codes that may be sent (RFC 6455 section 7.4 and its registry). The registry has 1014 too,
# for gateways; Autobahn (26.10) does not know it and answers 1002.
_CODES = frozenset((*range(1000, 1004), *range(1007, 1014), *range(3000, 5000)))


@dataclass
class Expected:
    """The expected pongs in their order, and the end: None while the session goes on."""

    pongs: list[bytes] = field(default_factory=list)
    end: str | None = None
    code: int | None = None


def one(data: bytes) -> None:
    """Open a session, send the bytes, and compare with `read`."""
    size, sent = (data[0] if data else 0), data[1:]
    client = Client(FakeGate())
    client.send(HELLO)
    expected = read(sent)
    send(client, sent, size)
    (session,) = client.gate.sessions
    frames = client.frames()
    assert [payload for opcode, payload in frames if opcode == 10] == expected.pongs
    assert {opcode for opcode, _ in frames} <= {8, 10}
    assert client.close_code() == expected.code
    assert session.heard == ([expected.end] if expected.end else [])
    assert client.gone == (expected.end is not None)
    leave(client)
    assert session.heard[1:] in ([], ["left"])


def read(sent: bytes) -> Expected:
    """The expected outcome of these bytes (RFC 6455 sections 5.2 to 5.5 and 7.4)."""
    expected, inside, frames = Expected(), False, 0
    while len(sent) >= 2:
        first, second = sent[0], sent[1]
        fin, opcode, length, start = first >> 7, first & 15, second & 127, 2
        control = opcode >= 8
        if (
            first & 0x70 or not second & 0x80 or opcode not in _DATA | _CONTROL
            or (control and (not fin or length > 125 or (opcode == 8 and length == 1)))
            or (not control and (opcode == 0) != inside)
        ):
            return _broken(expected, 1002)
        size = {126: 2, 127: 8}.get(length, 0)
        if len(sent) < start + size + 4:
            return expected
        if size:
            length, start = int.from_bytes(sent[2 : 2 + size]), 2 + size
            if length < (126 if size == 2 else 1 << 16) or length >> 63:
                return _broken(expected, 1002)
        frames += 1
        if frames > _FRAMES_A_SECOND:
            return _broken(expected, 1008)
        if not control:
            expected.end, expected.code = "data", 1003
            return expected
        mask, body = sent[start : start + 4], sent[start + 4 : start + 4 + length]
        if len(body) < length:
            return expected
        body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))
        sent = sent[start + 4 + length :]
        if opcode == 9:
            expected.pongs.append(body)
        elif opcode == 8:
            return _closed(expected, body)
    return expected


def _broken(expected: Expected, code: int) -> Expected:
    expected.end, expected.code = "closed", code
    return expected


def _closed(expected: Expected, body: bytes) -> Expected:
    if not body:
        return _broken(expected, 1000)
    if struct.unpack("!H", body[:2])[0] not in _CODES:
        return _broken(expected, 1002)
    try:
        body[2:].decode()
    except UnicodeDecodeError:
        return _broken(expected, 1007)
    return _broken(expected, 1000)
