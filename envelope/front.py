"""The HTTP front: the connections of one service, and what they share.

A connection's own story is in `envelope.connection`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from envelope.config import Address
from envelope.connection import Connection, Limits
from envelope.gate import ICarrier, IGate, ISession, Refused
from envelope.handshake import BAD_REQUEST
from envelope.listeners import client_address
from envelope.websocket import ChannelFactory

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


class FrontFactory(Factory):
    """Makes the connections of one service, and knows those that are there."""

    protocol = Connection  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        gate: IGate,
        reactor: IReactorTime,
        limits: Limits = _LIMITS,
        address_of: Callable[[IAddress], Address | None] = client_address,
    ) -> None:
        self.gate = gate
        self.reactor = reactor
        self.limits = limits
        self.address_of = address_of
        self.channels = ChannelFactory(reactor.seconds, limits.frames_per_second, reactor)
        self.connections: set[Connection] = set()
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

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is gone from those that are there."""
        self.connections.discard(connection)
        if not self.connections:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)
