"""
One connection from accept to its end: HTTP first, then perhaps a WebSocket.

One Protocol stays under the transport all the time and hands the bytes on: to the handshake's
parser until the request is complete, to nobody while the firewall is asked, to Autobahn after.
Whatever a client does or fails to do, one of two timers or `connectionLost` ends it.
"""

from __future__ import annotations

from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from envelope.admission import FIREWALL_FAILED, AccessRequest, Admission, Decision, Refusal
from envelope.config import Address
from envelope.firewall import FirewallError
from envelope.handshake import BadRequest, parse, split_head
from envelope.listeners import client_address
from envelope.websocket import EnvelopeSocket, socket_factory

_log = Logger(namespace="envelope.front")

# Seconds. Clients in the field give up after 2 to 5.
REQUEST_WAIT: Final = 8.0
HANG_UP_WAIT: Final = 2.0
# Bytes that may follow the request before the answer.
EARLY_LIMIT: Final = 4096

_PHRASES: Final = {
    400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
    426: "Upgrade Required", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable",
}


class Refused(Exception):
    """The gate changed its mind while the firewall was asked."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class ISession(Interface):
    """An admitted session, as its connection sees it."""

    def client_left() -> None:  # type: ignore[misc]
        """The connection is gone."""

    def client_closed() -> Deferred[None]:  # type: ignore[misc, empty-body]
        """The client is closing; fires once its grant is gone."""

    def data_received() -> None:  # type: ignore[misc]
        """The client sent a data message, which ends the session."""


class ICarrier(Interface):
    """A connection, as its session sees it."""

    def close(code: int, reason: str) -> None:
        """Send the close frame; the grant is gone."""


class IGate(Interface):
    """Who decides and admits."""

    def decide(request: AccessRequest, address: Address | None) -> Decision:  # type: ignore[empty-body]
        """Judge a well-formed request, and count it."""

    def admit(  # type: ignore[empty-body]
        address: Address | None, admission: Admission, carrier: ICarrier
    ) -> Deferred[ISession]:
        """
        Take a slot and open the firewall; fires once the rule is in force.

        Fails with `FirewallError` or `Refused`. Cancelling it means that the client has left.
        """

    def count(reason: str) -> None:
        """Count a refusal."""


def render(refusal: Refusal, with_body: bool) -> bytes:
    """The answer's bytes; it closes the connection, and names no software."""
    body = f"{refusal.text}\n".encode()
    lines = [
        f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(f"{name}: {value}" for name, value in refusal.headers),
        "", "",
    ]
    return "\r\n".join(lines).encode("ascii") + (body if with_body else b"")


@implementer(ICarrier)
class Front(Protocol):
    """The connection."""

    def __init__(self, factory: FrontFactory) -> None:
        self.factory = factory
        self._buffer = b""
        self._reading = True
        self._timer: IDelayedCall | None = None
        self._asking: Deferred[ISession] | None = None
        self._session: ISession | None = None
        self._socket: EnvelopeSocket | None = None

    def connectionMade(self) -> None:
        """Start the clock that ends what never becomes a session."""
        self.factory.connections.add(self)
        self._set_timer(REQUEST_WAIT)

    def dataReceived(self, data: bytes) -> None:
        """Hand the bytes to whoever's turn it is."""
        if self._socket is not None:
            if not self._socket.waits_for_grant:
                self._socket.dataReceived(data)
        elif self._asking is not None:
            self._buffer += data
            if len(self._buffer) > EARLY_LIMIT:
                self.transport.abortConnection()
        elif self._reading:
            self._buffer += data
            self._read_request()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whatever was going on is over."""
        self.factory.forget(self)
        self._set_timer(None)
        self._reading = False
        if self._asking is not None:
            self._asking.cancel()
        if self._socket is not None:
            self._socket.connectionLost(reason)
        if self._session is not None:
            self._session.client_left()

    # -- HTTP ------------------------------------------------------------------------------

    def _read_request(self) -> None:
        try:
            parts = split_head(self._buffer)
            if parts is None:
                return
            head, self._buffer = parts
            request, key = parse(head)
        except BadRequest as error:
            self._refuse(error.refusal, True)
            return
        address = client_address(self.transport.getPeer())
        outcome = self.factory.gate.decide(request, address).outcome
        if isinstance(outcome, Refusal):
            self._refuse(outcome, request.method != "HEAD")
            return
        if len(self._buffer) > EARLY_LIMIT:
            self.transport.abortConnection()
            return
        # The firewall's own time limits take over; a client that leaves meanwhile cancels.
        self._set_timer(None)
        self._asking = asking = self.factory.gate.admit(address, outcome, self)
        asking.addCallbacks(self._admitted, self._not_admitted, (outcome, key))
        asking.addErrback(self._broken)

    def _refuse(self, refusal: Refusal, with_body: bool) -> None:
        self._reading, self._buffer = False, b""
        self.transport.write(render(refusal, with_body))
        self._hang_up()

    def _admitted(self, session: ISession, admission: Admission, key: str) -> None:
        self._asking, self._session = None, session
        socket = self.factory.sockets.buildProtocol(None)
        assert isinstance(socket, EnvelopeSocket)
        socket.attach(
            session.client_closed, session.data_received, self._hang_up,
            self.factory.reactor.seconds,
        )
        early, self._buffer = self._buffer, b""
        self._socket = socket
        socket.makeConnection(self.transport)
        # A peer that does not read its pongs is not read from either.
        self.transport.registerProducer(self.transport, True)
        socket.open(key, admission.subprotocol, early)

    def _not_admitted(self, failure: Failure) -> None:
        self._asking = None
        if failure.check(CancelledError):
            return
        if failure.check(Refused):
            self._refuse(failure.value.refusal, True)
        else:
            failure.trap(FirewallError)
            self._refuse(FIREWALL_FAILED, True)

    def _broken(self, failure: Failure) -> None:
        _log.failure("a connection broke", failure=failure)
        self.transport.abortConnection()

    # -- the end ---------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """See `ICarrier`."""
        if self._socket is not None and self.transport is not None:
            self._socket.close(code, reason)
            self._set_timer(HANG_UP_WAIT, self._hang_up)

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self.transport.unregisterProducer()
        self.transport.loseConnection()
        # A TLS peer that never says goodbye would keep its socket for ever.
        self._set_timer(HANG_UP_WAIT)

    def _set_timer(self, seconds: float | None, action: Any = None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if seconds is not None and self in self.factory.connections:
            self._timer = self.factory.reactor.callLater(
                seconds, action or self.transport.abortConnection
            )


class FrontFactory(Factory):
    """Builds a `Front` for each connection and knows those that are open."""

    noisy = False

    def __init__(self, gate: IGate, reactor: IReactorTime) -> None:
        self.gate = gate
        self.reactor = reactor
        self.sockets: WebSocketServerFactory = socket_factory(reactor)
        self.connections: set[Front] = set()
        self._waiting: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Front:
        """See `Factory`."""
        return Front(self)

    def forget(self, connection: Front) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        if not self.connections:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires once no connection is open."""
        if not self.connections:
            return succeed(None)
        done: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(done)
        return done

    def abort_all(self) -> None:
        """End every connection now."""
        for connection in list(self.connections):
            connection.abort()
