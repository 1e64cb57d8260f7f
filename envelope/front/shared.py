"""What a connection uses of the factory that made it, and shares with the others of the service."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime

from envelope.addresses import Address
from envelope.front.eviction import DropReason
from envelope.front.limits import Limits
from envelope.front.websocket import ChannelFactory
from envelope.sessions.gate import IGate

# The class of the connections.
Peer = TypeVar("Peer")


class IFront(Protocol[Peer]):
    """What a connection uses of the factory that made it."""

    gate: IGate
    reactor: IReactorTime
    limits: Limits
    channels: ChannelFactory
    # Counts a dropped connection.
    dropped: Callable[[DropReason], None]

    @property
    def connections(self) -> Collection[Peer]:
        """The connections that are not lost."""

    def connected(self, connection: Peer, address: Address | None) -> None:
        """A connection was accepted."""

    def address_learnt(self, connection: Peer, address: Address) -> None:
        """The address of a connection is known now; it was not when it was accepted."""

    def admitted(self, connection: Peer) -> None:
        """A connection counts as a session from now on."""

    def leaving(self, connection: Peer, address: Address | None) -> None:
        """The last bytes for a connection were sent; the peer has to close it."""

    def lost(self, connection: Peer) -> None:
        """A connection is lost."""
