"""The control socket's protocol: answers `envelope sessions`, `revoke` and `status`.

Who may use it is the mode of the socket's file. A connection carries one request and its answer
(`envelope.admin.wire`). A peer that stalls is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope.admin.wire import (
    MOST_REQUEST,
    Query,
    Revocation,
    RevokeAll,
    RevokeIds,
    RevokeNetwork,
    SessionsQuery,
    StatusQuery,
    WireError,
    answer_line,
    error_line,
    read_query,
)
from envelope.runtime.timers import Timer
from envelope.sessions.table import SessionTable

_log = Logger(namespace="envelope.control")

# Seconds from connecting until the whole request has arrived, and from the answer until the peer
# has taken it.
REQUEST_WAIT: Final = 10.0
ANSWER_WAIT: Final = 10.0
# When there are more connections, the oldest is dropped.
MOST_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation did: how many sessions it ended, and which ids no session has."""

    number: int
    unknown: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Operations:
    """What the socket asks of the service.

    `status` returns the object of `/status`. `revoke` returns once the grants are gone.
    """

    status: Callable[[], Awaitable[Mapping[str, Any]]]
    revoke: Callable[[Revocation], Awaitable[Revoked]]


async def revoke(sessions: SessionTable, what: Revocation) -> Revoked:
    """End sessions; return once their grants are gone."""
    unknown: list[str] = []
    match what:
        case RevokeIds(ids):
            unknown = sessions.revoke_sessions(ids)
            number = len(ids) - len(unknown)
        case RevokeNetwork(network):
            number = sessions.revoke_network(network)
        case RevokeAll():
            number = sessions.revoke_all()
    await sessions.when_revoked()
    return Revoked(number, unknown)


@implementer(IHalfCloseableProtocol)
class ControlProtocol(Protocol):
    """One connection; see the module."""

    def __init__(self, factory: ControlFactory) -> None:
        self._factory = factory
        self._received = b""
        self._asked = False
        self._gone = False
        self._patience = Timer(factory.clock)

    def connectionMade(self) -> None:
        """See `Protocol`."""
        self._factory.arrived(self)
        self._patience.start(REQUEST_WAIT, self.abort)

    def dataReceived(self, data: bytes) -> None:
        """Take the request; anything behind it is ignored."""
        if self._asked:
            return
        self._received += data
        line, end, _ = self._received.partition(b"\n")
        if end and len(line) < MOST_REQUEST:
            self._ask(line)
        elif len(self._received) >= MOST_REQUEST:
            self._answer(error_line(f"the request has more than {MOST_REQUEST} bytes"))

    def _ask(self, line: bytes) -> None:
        self._asked = True
        self._received = b""
        self._patience.stop()
        try:
            answer = self._factory.ask(read_query(line))
        except WireError as error:
            self._answer(error_line(str(error)))
            return
        answer.addErrback(_failed).addCallback(self._answer)

    def _answer(self, line: bytes) -> None:
        self._asked = True
        if self._gone:
            return
        transport: Any = self.transport
        transport.write(line)
        transport.loseConnection()
        self._patience.start(ANSWER_WAIT, self.abort)

    def abort(self) -> None:
        """Drop the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def readConnectionLost(self) -> None:
        """A peer that sends no more, as `socat` at the end of its input, still gets its answer."""
        if not self._asked:
            self.abort()

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """See `Protocol`."""
        self._gone = True
        self._patience.stop()
        self._factory.left(self)


def _failed(failure: Failure) -> bytes:
    _log.failure("a request on the control socket failed", failure=failure)
    return error_line("the service failed to answer; its log says why")


class ControlFactory(Factory):
    """All connections to the control socket."""

    noisy = False

    def __init__(self, operations: Operations, clock: IReactorTime) -> None:
        self.clock = clock
        self._operations = operations
        self._open: OrderedDict[ControlProtocol, None] = OrderedDict()

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # noqa: ARG002
        """See `Factory`."""
        return ControlProtocol(self)

    def arrived(self, protocol: ControlProtocol) -> None:
        """Keep a connection; drop the oldest when there are too many."""
        self._open[protocol] = None
        if len(self._open) > MOST_CONNECTIONS:
            next(iter(self._open)).abort()

    def left(self, protocol: ControlProtocol) -> None:
        """Forget a connection."""
        self._open.pop(protocol, None)

    def abort_all(self) -> None:
        """Drop every connection."""
        for protocol in list(self._open):
            protocol.abort()

    def ask(self, query: Query) -> Deferred[bytes]:
        """The line that answers `query`."""
        return Deferred.fromCoroutine(self._ask(query))

    async def _ask(self, query: Query) -> bytes:
        match query:
            case StatusQuery():
                return answer_line({"status": await self._operations.status()})
            case SessionsQuery():
                return answer_line({"sessions": (await self._operations.status())["sessions"]})
        revoked = await self._operations.revoke(query)
        _log.info("sessions ended by an operator: {number}", event="revoked",
                  number=revoked.number)
        return answer_line({"revoked": revoked.number, "unknown": list(revoked.unknown)})
