"""The connections of one service, and what they share."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from envelope.addresses import Address
from envelope.front.connection import Connection
from envelope.front.eviction import ConnectionState, DropReason, Evictor
from envelope.front.limits import Limits
from envelope.front.websocket import ChannelFactory
from envelope.runtime.condition import Condition
from envelope.sessions.gate import IGate

_LIMITS = Limits()


def _uncounted(_: DropReason) -> None:
    """Count nothing."""


class FrontFactory(Factory):
    """Makes the connections of one service, counts them, and drops some when there are too many.

    `dropped` is called with the reason for each dropped connection.
    """

    noisy = False

    def __init__(
        self,
        gate: IGate,
        reactor: IReactorTime,
        limits: Limits = _LIMITS,
        dropped: Callable[[DropReason], None] = _uncounted,
    ) -> None:
        self.gate = gate
        self.reactor = reactor
        self.limits = limits
        self.dropped = dropped
        self.channels = ChannelFactory(reactor.seconds, limits.frames_per_second, reactor)
        self.connections: set[Connection] = set()
        self._evicted: set[Connection] = set()
        self._evictor: Evictor[Connection] = Evictor(limits.eviction)
        self._emptied = Condition()

    def buildProtocol(self, _addr: IAddress | None) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    def when_empty(self) -> Deferred[None]:
        """Drop the connections without a whole request; fires once no connection is left."""
        for connection in list(self.connections):
            if connection.waiting:
                connection.abort()
        return self._emptied.wait() if self.connections else succeed(None)

    def abort_all(self) -> None:
        """Drop every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def count(self, state: ConnectionState) -> int:
        """The number of connections in this state now."""
        waiting = self._evictor.waiting
        leaving = self._evictor.leaving + len(self._evicted)
        if state is ConnectionState.HANDSHAKE:
            return waiting
        if state is ConnectionState.LEAVING:
            return leaving
        return len(self.connections) - waiting - leaving

    def free_descriptor(self) -> bool:
        """Drop a connection without a session, if there is one, for a new one's descriptor."""
        connection = self._evictor.evict_one()
        if connection is None:
            return False
        self._evict([(connection, DropReason.DESCRIPTORS)])
        return True

    # -- called by connections (`IFront`) --------------------------------------------------

    def connected(self, connection: Connection, address: Address | None) -> None:
        """See `IFront`."""
        self.connections.add(connection)
        self._evict(self._evictor.add_waiting(connection, address))

    def address_learnt(self, connection: Connection, address: Address) -> None:
        """See `IFront`."""
        if connection in self._evictor:
            self._evict(self._evictor.add_waiting(connection, address))

    def admitted(self, connection: Connection) -> None:
        """See `IFront`."""
        self._evictor.remove(connection)

    def leaving(self, connection: Connection, address: Address | None) -> None:
        """See `IFront`."""
        if connection in self.connections:
            self._evict(self._evictor.add_leaving(connection, address))

    def lost(self, connection: Connection) -> None:
        """See `IFront`."""
        self.connections.discard(connection)
        self._evicted.discard(connection)
        self._evictor.remove(connection)
        if not self.connections:
            self._emptied.notify_all()

    def _evict(self, evicted: list[tuple[Connection, DropReason]]) -> None:
        for connection, reason in evicted:
            self.dropped(reason)
            self._evicted.add(connection)
            connection.abort()
