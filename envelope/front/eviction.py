"""Which connection to drop when there are too many without a session (pure).

An `Evictor` counts the connections that have no session. Such a connection is *waiting* from accept
until its whole request has arrived (TLS and HTTP), and *leaving* from its answer, or the end of its
session, until it is closed. Sessions are not counted: `--max-clients` limits them, and nothing here
ends one.

A new connection is never refused. When a limit is exceeded, an older one is dropped: the one that
has been waiting or leaving for longest, among the connections of the network that exceeds its own
limit; or else of the largest network; or of all networks, if the largest has no more than
`FAIR_SHARE`.

A well-behaved client is done within a few round trips, while the connections of a flood stay as
long as they may. Refusing new connections at a limit would keep the flood and lose the client.
Dropping the connection that has made the least progress would too, because the newest has made the
least. Dropping a random one loses clients from the start. Dropping the oldest loses none, unless as
many connections as the limit allows arrive during the client's handshake. Leaving connections are
not dropped first: floods then cut clients off before they got their close frame. Preferring the
largest network makes a flood from one place drop its own connections; `FAIR_SHARE` keeps two
clients behind one address from being the largest network in a flood from thousands.

Networks are /32 and /64, what one customer has (RFC 6177). Every operation takes constant time. The
dicts are ordered dicts because finding the first key of a plain dict slows down after deletions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

from envelope.addresses import Address

Connection = TypeVar("Connection", bound=Hashable)
# The network's bytes: Python hashes an address object anew at each look-up. None: not known.
NetworkKey: TypeAlias = bytes | None
# A network with no more connections than this is not preferred: a few clients behind one address.
FAIR_SHARE: Final = 8

_IPV6_BYTES: Final = 8


class ConnectionState(StrEnum):
    """What a connection is doing: label `state` of `envelope_connections`."""

    HANDSHAKE = "handshake"
    SESSION = "session"
    LEAVING = "leaving"


class DropReason(StrEnum):
    """Why a connection was dropped: label `reason` of `envelope_connections_dropped_total`."""

    # The limits of `EvictionLimits`.
    NETWORK = "network"
    HANDSHAKES = "handshakes"
    TOTAL = "total"
    # No file descriptor was left for a new connection.
    DESCRIPTORS = "descriptors"
    # No whole request arrived in time.
    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    TLS = "tls"
    # No valid PROXY header came first.
    PROXY = "proxy"
    # Too many bytes arrived before the answer to the request.
    EARLY_DATA = "early-data"
    # The peer did not close its side in time.
    LINGERING = "lingering"


def network_key(address: Address | None) -> NetworkKey:
    """The network that `address` is counted in; None, which has no limit, if it is not known."""
    if address is None:
        return None
    return address.packed if address.version == 4 else address.packed[:_IPV6_BYTES]


@dataclass(frozen=True, slots=True)
class EvictionLimits:
    """The most connections in total, of one network, and waiting; each at least 1."""

    connections: int
    per_network: int
    handshakes: int


class _Queue(Generic[Connection]):
    """Connections in the order in which they were added, in total and by network."""

    def __init__(self) -> None:
        self._all: OrderedDict[Connection, None] = OrderedDict()
        self._by_network: dict[NetworkKey, OrderedDict[Connection, None]] = {}
        self._by_size: dict[int, OrderedDict[NetworkKey, None]] = {}
        self._largest = 0

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._all

    def size(self, network: NetworkKey) -> int:
        """The number of connections of one network."""
        return len(self._by_network.get(network, ()))

    def add(self, connection: Connection, network: NetworkKey) -> None:
        """Add a connection as the newest."""
        group = self._by_network.setdefault(network, OrderedDict())
        group[connection] = self._all[connection] = None
        self._resize(network, len(group) - 1, len(group))

    def remove(self, connection: Connection, network: NetworkKey) -> None:
        """Remove a connection, which must be here."""
        group = self._by_network[network]
        del group[connection], self._all[connection]
        self._resize(network, len(group) + 1, len(group))
        if not group:
            del self._by_network[network]

    def oldest_of(self, network: NetworkKey) -> Connection:
        """The oldest connection of one network, which must have some."""
        return next(iter(self._by_network[network]))

    def oldest(self) -> Connection:
        """The oldest connection of the largest network, or of all; there must be some."""
        if self._largest > FAIR_SHARE:
            return self.oldest_of(next(iter(self._by_size[self._largest])))
        return next(iter(self._all))

    def _resize(self, network: NetworkKey, old: int, new: int) -> None:
        if old:
            peers = self._by_size[old]
            del peers[network]
            if not peers:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, OrderedDict())[network] = None
        # Sizes change by one: if the largest size has no network left, the next size has one.
        if new > self._largest or self._largest not in self._by_size:
            self._largest = new


class Evictor(Generic[Connection]):
    """Counts the connections without a session, and chooses which to drop.

    The methods that add a connection return those to drop, each with the limit that was exceeded.
    They are no longer counted, and the caller has to close them. The new one is never among them.
    """

    def __init__(self, limits: EvictionLimits) -> None:
        self._limits = limits
        self._networks: dict[Connection, NetworkKey] = {}
        self._everyone: _Queue[Connection] = _Queue()
        self._waiting: _Queue[Connection] = _Queue()

    def __len__(self) -> int:
        return len(self._everyone)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._networks

    @property
    def waiting(self) -> int:
        """The number of connections whose whole request has not arrived."""
        return len(self._waiting)

    @property
    def leaving(self) -> int:
        """The number of connections that were answered, or had a session, and are not closed."""
        return len(self._everyone) - len(self._waiting)

    def add_waiting(
        self, connection: Connection, address: Address | None
    ) -> list[tuple[Connection, DropReason]]:
        """Count a connection that was accepted; its address may not be known yet."""
        network = self._add(connection, address)
        self._waiting.add(connection, network)
        return self._over_limits(network)

    def add_leaving(
        self, connection: Connection, address: Address | None
    ) -> list[tuple[Connection, DropReason]]:
        """Count a connection as leaving; it was waiting, or had a session."""
        return self._over_limits(self._add(connection, address))

    def remove(self, connection: Connection) -> None:
        """Stop counting a connection that is closed or has a session now; others are ignored."""
        if connection not in self._networks:
            return
        network = self._networks.pop(connection)
        self._everyone.remove(connection, network)
        if connection in self._waiting:
            self._waiting.remove(connection, network)

    def evict_one(self) -> Connection | None:
        """Choose a connection to drop, as when a limit is exceeded; None if there is none."""
        if not self._networks:
            return None
        connection = self._everyone.oldest()
        self.remove(connection)
        return connection

    def _add(self, connection: Connection, address: Address | None) -> NetworkKey:
        self.remove(connection)
        network = self._networks[connection] = network_key(address)
        self._everyone.add(connection, network)
        return network

    def _over_limits(self, network: NetworkKey) -> list[tuple[Connection, DropReason]]:
        evicted: list[tuple[Connection, DropReason]] = []

        def evict(connection: Connection, reason: DropReason) -> None:
            self.remove(connection)
            evicted.append((connection, reason))

        if network is not None and self._everyone.size(network) > self._limits.per_network:
            evict(self._everyone.oldest_of(network), DropReason.NETWORK)
        if len(self._waiting) > self._limits.handshakes:
            evict(self._waiting.oldest(), DropReason.HANDSHAKES)
        if len(self._everyone) > self._limits.connections:
            evict(self._everyone.oldest(), DropReason.TOTAL)
        return evicted
