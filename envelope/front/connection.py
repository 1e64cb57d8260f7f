"""One client's connection: a Protocol under the transport from accept to the end.

Its bytes go to an `Opening` until one request has come and the gate has let it in, then to
`websocket`. One timer at a time bounds every step in which the peer could keep us waiting: the
request and its answer, the way out after a refusal, the close handshake. While a session is open
none runs: the session has its own deadline, and the kernel finds dead peers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope.addresses import Address
from envelope.front.handshake import answer, switched
from envelope.front.opening import Opening
from envelope.front.websocket import Channel, IListener
from envelope.runtime.timers import Timer
from envelope.sessions.admission import Refusal
from envelope.sessions.gate import ICarrier, ISession

if TYPE_CHECKING:
    from envelope.front.factory import FrontFactory

_log = Logger(namespace="envelope.connection")


@implementer(ICarrier, IListener, IHandshakeListener)
class Connection(Protocol):
    """One client, from accept to the end."""

    factory: FrontFactory
    transport: Any
    _timer: Timer
    # Defaults that instances share; a held session sets few of them.
    address: Address | None = None
    _opening: Opening | None = None
    _session: ISession | None = None
    _switched: bool = False
    _channel: Channel | None = None
    _paced: bool = False
    _ending: bool = False

    @property
    def silent(self) -> bool:
        """Whether no whole request has come yet."""
        return self._opening is not None and self._opening.silent

    # -- the transport's side --------------------------------------------------------------

    def connectionMade(self) -> None:
        """Await a request."""
        self.address = self.factory.address_of(self.transport.getPeer())
        self.factory.arrive(self, self.address)
        self._opening = Opening(self)
        self._timer = Timer(self.factory.reactor)
        self._timer.start(self.factory.limits.request_seconds, self.give_up, "timeout")

    def handshakeCompleted(self) -> None:
        """TLS is up; what a proxy said of the client's address has come before it."""
        self._find_address()

    def _find_address(self) -> None:
        if self.address is None:
            self.address = self.factory.address_of(self.transport.getPeer())
            if self.address is not None:
                self.factory.locate(self, self.address)

    def dataReceived(self, data: bytes) -> None:
        """Pass the bytes to whoever reads now; behind a refusal nobody does."""
        if self._switched:
            self._frames().dataReceived(data)
        elif self._opening is not None:
            if self._opening.silent:
                self._find_address()
            self._opening.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the session, or take back what was asked for."""
        self._timer.stop()
        opening, self._opening = self._opening, None
        if opening is not None and opening.silent and reason.check(TLSError):
            self.factory.dropped("tls")
        session, self._session = self._session, None
        channel, self._channel, self._switched = self._channel, None, False
        if opening is not None:
            opening.lost()
        if session is not None:
            session.client_left()
        if channel is not None:
            self._stop_pacing()
            channel.connectionLost()
        self.factory.forget(self)

    # -- what came of the request ----------------------------------------------------------

    def let_in(self, session: ISession, key: str, subprotocol: str | None, early: bytes) -> None:
        """Answer 101; the client's frames, `early` the first of them, belong to `session`."""
        self._opening = None
        self._session = session
        self._timer.stop()
        self._switched = True
        self.transport.write(switched(key, subprotocol))
        if early:
            self._frames().dataReceived(early)

    def refuse(self, refusal: Refusal, method: str) -> None:
        """Answer a request of this method with a refusal, and hang up."""
        self._opening = None
        _log.debug("refused with {status}", status=refusal.status)
        self.transport.write(answer(refusal, method))
        self._hang_up()

    def _frames(self) -> Channel:
        """Who reads frames; made for the first one, since most sessions are silent to the end."""
        if self._channel is None:
            self._channel = self.factory.channels.make(self)
            # Reading stops while the peer does not read its pongs.
            self._paced = True
            self.transport.registerProducer(self.transport, True)
        return self._channel

    def _stop_pacing(self) -> None:
        """TLS hangs up only once no producer is left, and would keep it beyond its own end."""
        if self._paced:
            self._paced = False
            self.transport.unregisterProducer()

    # -- the channel's side ----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See `IListener`."""
        self.transport.write(data)

    def data_begun(self) -> None:
        """See `IListener`."""
        if not self._ending and self._session is not None:
            self._ending = True
            self._session.data_received()

    def close_asked(self) -> None:
        """See `IListener`."""
        self._answer_with(1000)

    def close_answered(self) -> None:
        """See `IListener`."""
        self._hang_up()

    def broken(self, code: int) -> None:
        """See `IListener`."""
        self._answer_with(code)

    def _answer_with(self, code: int) -> None:
        """Close with `code` once the grant is gone, unless another end came first."""
        if self._channel is not None and self._channel.finished:
            self._hang_up()
        elif not self._ending and self._session is not None:
            self._ending = True
            self._session.client_closed().addCallback(lambda _: self.close(code, ""))

    # -- the session's side ----------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """See `ICarrier`."""
        if not self._switched or not self._frames().finish(code, reason):
            return
        self._ending = True
        self.factory.depart(self, self.address)
        if self._frames().deaf:
            self._hang_up()
        else:
            self._timer.start(self.factory.limits.close_seconds, self._hang_up)

    def abort(self) -> None:
        """See `ICarrier`."""
        self._timer.stop()
        # TLS raises when a connection is aborted that is gone.
        if self in self.factory.connections:
            self.transport.abortConnection()

    # -- the way out -----------------------------------------------------------------------

    def _hang_up(self) -> None:
        # A peer that never sends its TLS close_notify, or never reads, would stay for ever.
        self._timer.start(self.factory.limits.hang_up_seconds, self.give_up, "lingering")
        self.factory.depart(self, self.address)
        self._stop_pacing()
        self.transport.loseConnection()

    def give_up(self, reason: str) -> None:
        """Drop a peer that costs too much, and count why (one of `metrics.DropReason`)."""
        self.factory.dropped(reason)
        self.abort()
