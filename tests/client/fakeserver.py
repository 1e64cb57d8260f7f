"""A server on this machine's loopback that answers a request as it is told, and keeps the rest."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from types import TracebackType
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    wrapServerTLS,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from envelope.credentials.tls import ServerTLS

WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"Sec-WebSocket-Key: (\S+)")


class Peer(Protocol):
    """One connection: its request's head, what arrived after it, and whether it has ended."""

    transport: Any

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.head = b""
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self.head:
            self.received += data
            if self.server.echo_close:
                self.transport.write(b"\x88\x02\x03\xe8")
                self.transport.loseConnection()
            return
        self.head, _, self.received = data.partition(b"\r\n\r\n")
        key = _KEY.search(self.head)
        accept = hashlib.sha1((key[1] if key else b"") + WEBSOCKET).digest()
        answer = self.server.answer.replace(b"ACCEPT", base64.b64encode(accept))
        if answer:
            self.transport.write(answer)
        self.server.asked.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ACCEPT\r\n\r\n"
)


class FakeServer(Factory):
    """An async context manager; `answer` is sent for each request, `ACCEPT` filled in."""

    noisy = False

    def __init__(
        self, answer: bytes = SWITCH, *, version: int = 4, tls: tuple[Path, Path] | None = None,
        echo_close: bool = True, port: int = 0,
    ) -> None:
        self.answer = answer
        self.echo_close = echo_close
        self.asked: list[Peer] = []
        self.peers: list[Peer] = []
        self.port = port
        self._version = version
        self._tls = tls

    def buildProtocol(self, addr: object) -> Peer:
        peer = Peer(self)
        self.peers.append(peer)
        return peer

    async def __aenter__(self) -> FakeServer:
        place: Any = (
            TCP4ServerEndpoint(reactor, self.port, interface="127.0.0.1") if self._version == 4
            else TCP6ServerEndpoint(reactor, self.port, interface="::1")
        )
        if self._tls is not None:
            place = wrapServerTLS(ServerTLS.load(*self._tls), place)
        self._listening = await place.listen(self)
        self.port = self._listening.getHost().port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._listening.stopListening()
        for peer in self.peers:
            if not peer.lost.called:
                peer.transport.abortConnection()
                await peer.lost

    def url(self, scheme: str = "ws", host: str = "") -> str:
        """The URL of an envelope here."""
        host = host or ("127.0.0.1" if self._version == 4 else "[::1]")
        return f"{scheme}://{host}:{self.port}/v0/envelope/access?access_token=TheToken"
