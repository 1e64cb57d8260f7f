"""One open envelope: holds the WebSocket, and notices how it ends."""

from __future__ import annotations

import base64
import os
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from envelope.addresses import Address
from envelope.client.connecting import Exchange, connect
from envelope.client.frames import CLOSE, PING, PONG, BrokenFrame, Frame, FrameReader, masked_frame
from envelope.client.handshake import fault_of, handshake_reader
from envelope.client.outcomes import Ended, Refused, shown
from envelope.client.urls import ServerURL

# Seconds that a server has to answer our close frame. It removes the grant before.
_CLOSE_PATIENCE: Final = 2.0
_NORMAL: Final = (1000).to_bytes(2)


class Connection(Exchange):
    """A connection to the server of an envelope.

    It sends the request, an answer to each ping (RFC 6455 section 5.5.2) and one close frame, and
    nothing else: the server takes data for the end.
    """

    def __init__(self, reactor: Any, url: ServerURL, insecure: bool, user_agent: str) -> None:
        self._key = base64.b64encode(os.urandom(16))
        super().__init__(url, handshake_reader(url, self._key, user_agent), insecure)
        self.ended: Deferred[Ended] = Deferred()
        self._reactor = reactor
        self._frames = FrameReader()
        self._close_sent = False
        self._full = False
        self._gone: Deferred[None] = Deferred()

    @property
    def address(self) -> Address:
        """The server's address."""
        return _address(self.transport.getPeer().host)

    @property
    def client_address(self) -> Address:
        """Our own address."""
        return _address(self.transport.getHost().host)

    async def open(self, version: int | None, patience: float) -> None:
        """Connect and ask, for at most `patience` reactor seconds; raise `Refused`."""
        opening = Deferred.fromCoroutine(self._open(version, patience))
        try:
            await opening.addTimeout(patience, self._reactor, self._too_late)
        except BaseException:
            if self.transport is not None:
                self.abort()
            raise

    async def _open(self, version: int | None, patience: float) -> None:
        await connect(self._reactor, self._url, self, version, patience)
        answer = await self.answered
        if answer.status != 101:
            text = shown(answer.text, self._url.text) or "without a text"
            raise Refused(self._url.server, answer.status, text, answer.retry_after)
        fault = fault_of(answer, self._key)
        if fault is not None:
            raise Refused(self._url.server, 101, fault)
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Answer no ping until further notice, because the server does not read the answers.

        They would pile up here (RFC 6455 section 5.5.3 allows to answer the latest ping alone).
        """
        self._full = True

    def resumeProducing(self) -> None:
        """Answer pings again."""
        self._full = False

    def stopProducing(self) -> None:
        """Do nothing: the connection is gone."""

    def _too_late(self, _result: object, seconds: float) -> Any:
        raise Refused(self._url.server, None, f"there was no answer within {seconds:g} s")

    async def close(self) -> None:
        """Close the envelope, and wait until the connection is gone, at most for some seconds."""
        if not self.lost:
            self._send_close(_NORMAL)
            timer = self._reactor.callLater(_CLOSE_PATIENCE, self.abort)
            await self._gone
            if timer.active():
                timer.cancel()

    def received(self, data: bytes) -> None:
        """Read frames."""
        if self.ended.called:
            return
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except BrokenFrame:
            self._end(Ended.LOST)
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notice the end if no close frame told it."""
        super().connectionLost(reason)
        self._end(Ended.LOST)
        self._gone.callback(None)

    def _take(self, frame: Frame) -> None:
        if frame.opcode == PING:
            if not self._full:
                self._send(PONG, frame.payload)
        elif frame.opcode == CLOSE:
            self._end(Ended.of_code(frame.code))
            self._send_close(frame.payload[:2])
            # RFC 6455 section 7.1.1 lets a client close once both close frames are exchanged.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _send_close(self, payload: bytes) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._send(CLOSE, payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE or not self._close_sent:
            self.transport.write(masked_frame(opcode, payload, os.urandom(4)))

    def _end(self, end: Ended) -> None:
        if not self.ended.called:
            self.ended.callback(end)


def _address(host: str) -> Address:
    """An address with its zone, an IPv4-mapped one as IPv4."""
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
