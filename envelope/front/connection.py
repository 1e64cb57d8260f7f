"""One client's connection: the Twisted protocol from accept to the end.

Received bytes go to an `Opening` until the gate has admitted the client, then to a WebSocket
`Channel`. At most one timer runs, for whatever the peer could delay: the request, the close
handshake, the disconnect. None runs while the gate admits the client, because the firewall answers
in time (`IFirewall.allow`) and the client must be told. None runs during a session, which has its
own deadline; the kernel detects dead peers (`envelope.front.listeners`).

After a refusal or the end of a session, only the peer's close still matters. It is waited for, but
reading stops when more than `Limits.closing_bytes` arrive before it; the timer then ends the
connection. Dropping it at once could cost the peer the answer, which a TCP reset may overtake.
"""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope.addresses import Address, client_address
from envelope.front.eviction import DropReason
from envelope.front.handshake import refusal_response, switching_response
from envelope.front.opening import Opening
from envelope.front.shared import IFront
from envelope.front.websocket import Channel
from envelope.runtime.timers import Timer
from envelope.runtime.transports import together
from envelope.sessions.answers import Refusal
from envelope.sessions.gate import ISession

_log = Logger(namespace="envelope.connection")


@implementer(IHandshakeListener)
class Connection(Protocol):
    """One client; implements `IRequester`, `IFrameHandler` and `ICarrier`."""

    transport: Any
    _timer: Timer
    # Defaults on the class: a held session sets few of them, which saves memory.
    address: Address | None = None
    _opening: Opening | None = None
    _session: ISession | None = None
    _switched: bool = False
    _channel: Channel | None = None
    _is_producer: bool = False
    # The client is refused, or its session is ending.
    _closing: bool = False
    # Bytes that have arrived since then.
    _surplus: int = 0

    def __init__(self, factory: IFront[Connection]) -> None:
        self.factory = factory

    @property
    def waiting(self) -> bool:
        """Whether the whole request has not arrived yet."""
        return self._opening is not None and self._opening.waiting

    # -- called by the transport -----------------------------------------------------------

    def connectionMade(self) -> None:
        """Wait for a request."""
        self.address = client_address(self.transport.getPeer())
        self.factory.connected(self, self.address)
        self._opening = Opening(self, self.factory.gate, self.factory.limits)
        self._timer = Timer(self.factory.reactor)
        self._timer.start(self.factory.limits.request_seconds, self.drop, DropReason.TIMEOUT)

    def handshakeCompleted(self) -> None:
        """TLS is up, so a PROXY header was read before and the client's address is known."""
        self._learn_address()

    def _learn_address(self) -> None:
        if self.address is None:
            self.address = client_address(self.transport.getPeer())
            if self.address is not None:
                self.factory.address_learnt(self, self.address)

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on to the opening or the channel; after a refusal they are ignored."""
        if self._closing:
            self._surplus += len(data)
            if self._surplus > self.factory.limits.closing_bytes:
                self._stop_reading()
                return
        if self._switched:
            self._open_channel().dataReceived(data)
        elif self._opening is not None:
            if self._opening.waiting:
                self._learn_address()
            self._opening.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the session, or cancel what the gate was asked for."""
        self._timer.stop()
        opening, self._opening = self._opening, None
        if opening is not None and opening.waiting and reason.check(TLSError):
            self.factory.dropped(DropReason.TLS)
        session, self._session = self._session, None
        channel, self._channel, self._switched = self._channel, None, False
        if opening is not None:
            opening.connection_lost()
        if session is not None:
            session.client_left()
        if channel is not None:
            self._unregister_producer()
            channel.connectionLost()
        self.factory.lost(self)

    # -- called by the opening (`IRequester`) ----------------------------------------------

    def accepted(self) -> None:
        """See `IRequester`."""
        self._timer.stop()
        self.factory.admitted(self)

    def switch(self, session: ISession, key: str, subprotocol: str | None, early: bytes) -> None:
        """See `IRequester`."""
        self._opening = None
        self._session = session
        self._switched = True
        self.transport.write(switching_response(key, subprotocol))
        if early:
            self._open_channel().dataReceived(early)

    def refuse(self, refusal: Refusal, method: str) -> None:
        """See `IRequester`."""
        self._opening = None
        self._closing = True
        _log.debug(
            "refused with {status} a client at {address}: {reason}", event="refused",
            status=refusal.status, address=str(self.address),
            reason=refusal.token or refusal.counted or "-",
        )
        with together(self.transport):
            self.transport.write(refusal_response(refusal, method))
            self._disconnect()

    def count_drop(self, reason: DropReason) -> None:
        """See `IRequester`."""
        self.factory.dropped(reason)

    def drop(self, reason: DropReason) -> None:
        """See `IRequester`."""
        self.factory.dropped(reason)
        self.abort()

    # -- called by the channel (`IFrameHandler`) -------------------------------------------

    def write(self, data: bytes) -> None:
        """See `IFrameHandler`."""
        self.transport.write(data)

    def data_frame(self) -> None:
        """See `IFrameHandler`."""
        if not self._closing and self._session is not None:
            self._closing = True
            self._session.data_received()

    def close_frame(self) -> None:
        """See `IFrameHandler`."""
        self._revoke_and_close(1000)

    def close_reply(self) -> None:
        """See `IFrameHandler`."""
        self._disconnect()

    def violation(self, code: int) -> None:
        """See `IFrameHandler`."""
        self._revoke_and_close(code)

    def _revoke_and_close(self, code: int) -> None:
        """Close with `code` once the grant is revoked, unless the session is closing already."""
        if self._channel is not None and self._channel.close_sent:
            self._disconnect()
        elif not self._closing and self._session is not None:
            self._closing = True
            self._session.client_closed().addCallback(lambda _: self.close(code, ""))

    def _open_channel(self) -> Channel:
        """The channel; made for the first frame, because most sessions never send one."""
        if self._channel is None:
            self._channel = self.factory.channels.open(self)
            # The transport pauses reading while the peer does not read its pongs.
            self._is_producer = True
            self.transport.registerProducer(self.transport, True)
        return self._channel

    def _unregister_producer(self) -> None:
        """TLS closes only without a producer, and would keep it even after the connection."""
        if self._is_producer:
            self._is_producer = False
            self.transport.unregisterProducer()

    # -- called by the session (`ICarrier`) ------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """See `ICarrier`."""
        with together(self.transport):
            self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        if not self._switched or not self._open_channel().send_close(code, reason):
            return
        self._closing = True
        self.factory.leaving(self, self.address)
        if self._open_channel().reading:
            self._timer.start(self.factory.limits.close_seconds, self._disconnect)
        else:
            self._disconnect()

    def abort(self) -> None:
        """See `ICarrier`."""
        self._timer.stop()
        # Aborting a lost connection raises with TLS.
        if self in self.factory.connections:
            self.transport.abortConnection()

    def _stop_reading(self) -> None:
        """Read nothing more, and no longer wait for the peer's close frame."""
        # The transport resumes reading for a producer.
        self._unregister_producer()
        self.transport.pauseProducing()
        channel = self._channel
        if channel is not None and channel.reading:
            channel.stop_reading()
            if channel.close_sent:
                self._disconnect()

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.stop_reading()
        # A peer that never sends its TLS close_notify, or never reads, would stay connected.
        self._timer.start(
            self.factory.limits.disconnect_seconds, self.drop, DropReason.LINGERING
        )
        self.factory.leaving(self, self.address)
        self._unregister_producer()
        self.transport.loseConnection()
