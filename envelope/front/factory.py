"""The HTTP front: the connections of one service, and what they share.

A connection's own story is in `envelope.front.connection`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from envelope.addresses import Address, client_address
from envelope.front.connection import Connection
from envelope.front.eviction import Crowd
from envelope.front.handshake import BAD_REQUEST
from envelope.front.limits import Limits
from envelope.front.websocket import ChannelFactory
from envelope.sessions.gate import ICarrier, IGate, ISession, Refused

__all__ = [
    "BAD_REQUEST",
    "Connection",
    "FrontFactory",
    "ICarrier",
    "IGate",
    "ISession",
    "Limits",
    "Refused",
]

_LIMITS = Limits()


def _uncounted(_: str) -> None:
    """Count nothing."""


class FrontFactory(Factory):
    """Makes the connections of one service, and knows those that are there.

    `dropped` is told why a connection had to go (one of `metrics.DropReason`).
    """

    protocol = Connection  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        gate: IGate,
        reactor: IReactorTime,
        limits: Limits = _LIMITS,
        address_of: Callable[[IAddress], Address | None] = client_address,
        dropped: Callable[[str], None] = _uncounted,
    ) -> None:
        self.gate = gate
        self.reactor = reactor
        self.limits = limits
        self.address_of = address_of
        self.dropped = dropped
        self.channels = ChannelFactory(reactor.seconds, limits.frames_per_second, reactor)
        self.connections: set[Connection] = set()
        self._going: set[Connection] = set()
        self._crowd: Crowd[Connection] = Crowd(limits.crowd)
        self._waiting: list[Deferred[None]] = []

    def when_empty(self) -> Deferred[None]:
        """Drop connections that have not asked for anything; fires once none is left at all."""
        for connection in list(self.connections):
            if connection.silent:
                connection.abort()
        if not self.connections:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def abort_all(self) -> None:
        """Drop every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def number(self, state: str) -> int:
        """How many connections are in a state (of `metrics.ConnectionState`)."""
        waiting, leaving = self._crowd.waiting, self._crowd.leaving + len(self._going)
        known = {"handshake": waiting, "leaving": leaving}
        return known.get(state, len(self.connections) - waiting - leaving)

    def make_room(self) -> bool:
        """Drop somebody without a session, if there is one: no descriptor is left for who comes."""
        connection = self._crowd.drop_one()
        if connection is None:
            return False
        self._drop([(connection, "descriptors")])
        return True

    # -- what connections tell of themselves -----------------------------------------------

    def arrive(self, connection: Connection, address: Address | None) -> None:
        """Somebody is there; others may have to go."""
        self.connections.add(connection)
        self._drop(self._crowd.arrive(connection, address))

    def locate(self, connection: Connection, address: Address) -> None:
        """It is known now where somebody who waits comes from."""
        if connection in self._crowd:
            self._crowd.remove(connection)
            self._drop(self._crowd.arrive(connection, address))

    def settle(self, connection: Connection) -> None:
        """Somebody is let in, and counts as a session from now on."""
        self._crowd.remove(connection)

    def depart(self, connection: Connection, address: Address | None) -> None:
        """Somebody has the last that there is to say, and has to go by itself."""
        if connection in self.connections:
            self._drop(self._crowd.depart(connection, address))

    def _drop(self, gone: list[tuple[Connection, str]]) -> None:
        for connection, reason in gone:
            self.dropped(reason)
            self._going.add(connection)
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is gone from those that are there."""
        self.connections.discard(connection)
        self._going.discard(connection)
        self._crowd.remove(connection)
        if not self.connections:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)
