"""A fake gate, its sessions, and a client without sockets, for tests of the front."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope.addresses import Address
from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from envelope.front.connection import Connection
from envelope.front.factory import FrontFactory
from envelope.front.limits import Limits
from envelope.sessions.admission import (
    AccessRequest,
    Admission,
    Decision,
    Expectations,
    Load,
    decide,
)
from envelope.sessions.gate import ICarrier, ISession

GOOD = Claims("locate", "ndt", ("mlab1",), 2000.0)
PATH = b"/v0/envelope/access?access_token=good"
UPGRADE = (
    b"Host: envelope.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGVsbG8K\r\n"
)
HELLO = b"GET " + PATH + b" HTTP/1.1\r\n" + UPGRADE + b"\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: //dJbGO3MDD1eDqm6w/w9EeyE2o=\r\n\r\n"
)


class FakeSession:
    """Records what it is told; its grant is revoked at once, or when `revoked` is called."""

    def __init__(self, carrier: ICarrier, at_once: bool) -> None:
        self.carrier = carrier
        self.heard: list[str] = []
        self._at_once = at_once
        self._leaving: list[Deferred[None]] = []

    def client_left(self) -> None:
        self.heard.append("left")

    def client_closed(self) -> Deferred[None]:
        self.heard.append("closed")
        if self._at_once:
            return succeed(None)
        leaving: Deferred[None] = Deferred()
        self._leaving.append(leaving)
        return leaving

    def data_received(self) -> None:
        self.heard.append("data")
        if self._at_once:
            self.carrier.close(1003, "data")

    def revoked(self) -> None:
        """The grant is revoked."""
        leaving, self._leaving = self._leaving, []
        for one in leaving:
            one.callback(None)


class FakeGate:
    """Decides as the service does; `good` is the valid token. Admits at once, or when told to."""

    def __init__(self, at_once: bool = True, revoke_at_once: bool = True) -> None:
        self.at_once = at_once
        self.revoke_at_once = revoke_at_once
        self.load = Load(max_clients=1000)
        self.token_required = True
        self.asked: list[AccessRequest] = []
        self.addresses: list[Address | None] = []
        self.counted: list[str] = []
        self.cancelled = 0
        self.sessions: list[FakeSession] = []
        self._pending: list[tuple[Deferred[Any], ICarrier]] = []

    def decide(self, request: AccessRequest, address: Address | None) -> Decision:
        self.asked.append(request)
        self.addresses.append(address)
        expected = Expectations({"ndt": 0, "monitoring": 0}, self.token_required, 60.0)
        return decide(request, _verify, expected, self.load, 1000.0)

    def admit(
        self, address: Address | None, admission: Admission, carrier: ICarrier
    ) -> Deferred[ISession]:
        asked: Deferred[ISession] = Deferred(self._cancel)
        self._pending.append((asked, carrier))
        if self.at_once:
            self.grant()
        return asked

    def count(self, reason: str) -> None:
        self.counted.append(reason)

    def _cancel(self, asked: Deferred[Any]) -> None:
        self.cancelled += 1

    def grant(self) -> FakeSession:
        """The grant of the client that has waited for longest is in force."""
        asked, carrier = self._pending.pop(0)
        session = FakeSession(carrier, self.revoke_at_once)
        self.sessions.append(session)
        asked.callback(session)
        return session

    def fail(self, error: Exception) -> None:
        """The admission of the client that has waited for longest fails."""
        self._pending.pop(0)[0].errback(Failure(error))


def _verify(token: str, now: float) -> Claims | TokenRefusal:
    return GOOD if token == "good" else TokenRefusal(TokenReason.MALFORMED)


@implementer(ITCPTransport)
class Transport(StringTransport):
    """A TCP transport that records whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Client:
    """One client of a front, without sockets."""

    def __init__(
        self,
        gate: FakeGate | None = None,
        clock: Clock | None = None,
        limits: Limits = Limits(),  # noqa: B008
        factory: FrontFactory | None = None,
        peer: Any = None,
    ) -> None:
        self.gate = gate or FakeGate()
        self.clock = clock or Clock()
        self.factory = factory or FrontFactory(self.gate, self.clock, limits)
        made = self.factory.buildProtocol(None)
        assert isinstance(made, Connection)
        self.front = made
        # Lenient, because TLS reads on after its `loseConnection`, and may be paused then.
        self.transport = Transport(
            lenient=True, peerAddress=peer or IPv4Address("TCP", "203.0.113.7", 4711)
        )
        self.front.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> bytes:
        """Send, and return everything received so far."""
        for piece in pieces:
            if not self.gone:
                self.front.dataReceived(piece)
        return self.received

    def dribble(self, data: bytes) -> bytes:
        """Send byte by byte."""
        return self.send(*(data[i : i + 1] for i in range(len(data))))

    @property
    def received(self) -> bytes:
        value: bytes = self.transport.value()
        return value

    @property
    def gone(self) -> bool:
        """Whether the service has closed or aborted the connection."""
        return bool(self.transport.disconnecting or self.transport.aborted)

    @property
    def status(self) -> int:
        """The status of the answer, 0 without an answer."""
        return int(self.received[9:12] or 0)

    def leave(self) -> None:
        """Lose the connection; no timer may remain."""
        self.leave_quietly()
        assert not self.clock.getDelayedCalls()

    def leave_quietly(self) -> None:
        """Lose the connection; other connections may have timers."""
        self.front.connectionLost(Failure(ConnectionResetError()))

    def frames(self) -> list[tuple[int, bytes]]:
        """Opcode and payload of each frame after the 101."""
        head, _, data = self.received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        frames = []
        while data:
            assert data[0] & 0x80, "the service never sends fragments"
            assert data[1] < 126, "the service sends short frames only, unmasked"
            end = 2 + data[1]
            frames.append((data[0] & 0x0F, data[2:end]))
            data = data[end:]
        return frames

    def close_code(self) -> int | None:
        """The code of the one close frame, which must be the last frame; None without one."""
        frames = self.frames()
        closing = [payload for opcode, payload in frames if opcode == 8]
        if not closing:
            return None
        assert len(closing) == 1
        assert frames[-1][0] == 8
        code: int = struct.unpack("!H", closing[0][:2])[0]
        return code


def frame(
    opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, mask: bytes = b"\1\2\3\4"
) -> bytes:
    """A frame as a client sends it; `mask` may be empty."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        size = bytes([masked | len(payload)])
    elif len(payload) < 65536:
        size = bytes([masked | 126]) + struct.pack("!H", len(payload))
    else:
        size = bytes([masked | 127]) + struct.pack("!Q", len(payload))
    body = bytes(c ^ mask[i % 4] for i, c in enumerate(payload)) if mask else payload
    return bytes([first]) + size + mask + body


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(8, struct.pack("!H", code) + reason)


def request(
    line: bytes = b"GET " + PATH + b" HTTP/1.1", headers: bytes = UPGRADE, after: bytes = b""
) -> bytes:
    """A request; `headers` include their line ends."""
    return line + b"\r\n" + headers + b"\r\n" + after


Check = Callable[[Client], None]
