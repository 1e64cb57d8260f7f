"""Who stands before the door, and who has to go when there are too many (pure).

A connection is in the crowd while it holds no session: *waiting* from accept until its whole
request has come (TLS and HTTP), *leaving* once it has its answer, or its session is over. Sessions
are not in it: `--max-clients` bounds them, and nothing that happens here can cost one its place.

Who comes is never refused. When a limit is passed, somebody who is there already goes: the one who
has been waiting, or leaving, for longest; of the network that has too many, or else of the largest
network, or of all if the largest is no larger than `FAIR_SHARE`.

Because a good client is done within a few round trips, while the connections of a flood stay as
long as they may. Refusing at a full house would keep the flood in and the good client out. Dropping
who has come least far would do the same, since the newest has come least far. Dropping at random
loses clients from the first moment on; dropping the oldest loses none, unless as many connections
come within the good client's handshake as the limit allows. Who leaves was first to go once: a
flood then cut clients off from their close frame. Taking the largest network lets a flood from one
place drop its own; the share keeps two clients behind one address from being the largest network
in a flood from thousands.

Networks are /32 and /64, what one customer has (RFC 6177). A step takes the same time however many
there are; only ordered dicts have their first key at hand whatever was deleted before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from envelope.addresses import Address

Guest = TypeVar("Guest", bound=Hashable)
# The network's own bytes: an address of Python's is hashed anew each time it is looked up.
Place: TypeAlias = bytes | None
# Which limit was passed.
NETWORK: Final = "network"
HANDSHAKES: Final = "handshakes"
TOTAL: Final = "total"
# Connections of a network that make it no target: a few clients behind one address.
FAIR_SHARE: Final = 8

_IPV6_BYTES: Final = 8


def place_of(address: Address | None) -> Place:
    """What `address` is counted in; None, which is never too many, when it is not known."""
    if address is None:
        return None
    return address.packed if address.version == 4 else address.packed[:_IPV6_BYTES]


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """The most connections in all, of one network, and waiting; each at least 1."""

    connections: int
    per_network: int
    handshakes: int


class _Queue(Generic[Guest]):
    """Connections in the order of coming, of all networks and of each."""

    def __init__(self) -> None:
        self._all: OrderedDict[Guest, None] = OrderedDict()
        self._by_place: dict[Place, OrderedDict[Guest, None]] = {}
        self._by_size: dict[int, OrderedDict[Place, None]] = {}
        self._largest = 0

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._all

    def size(self, place: Place) -> int:
        """How many there are of one network."""
        return len(self._by_place.get(place, ()))

    def add(self, guest: Guest, place: Place) -> None:
        """Let in the newest."""
        group = self._by_place.setdefault(place, OrderedDict())
        group[guest] = self._all[guest] = None
        self._resize(place, len(group) - 1, len(group))

    def remove(self, guest: Guest, place: Place) -> None:
        """Forget one who is here."""
        group = self._by_place[place]
        del group[guest], self._all[guest]
        self._resize(place, len(group) + 1, len(group))
        if not group:
            del self._by_place[place]

    def oldest_of(self, place: Place) -> Guest:
        """The oldest of one network, which must have some."""
        return next(iter(self._by_place[place]))

    def oldest(self) -> Guest:
        """The oldest of the largest network, or of all; there must be some."""
        if self._largest > FAIR_SHARE:
            return self.oldest_of(next(iter(self._by_size[self._largest])))
        return next(iter(self._all))

    def _resize(self, place: Place, old: int, new: int) -> None:
        if old:
            peers = self._by_size[old]
            del peers[place]
            if not peers:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, OrderedDict())[place] = None
        # Sizes change by one, so that who leaves the top empty stands right below it.
        if new > self._largest or self._largest not in self._by_size:
            self._largest = new


class Crowd(Generic[Guest]):
    """The connections without a session.

    Methods that let somebody in return who has to go instead, and the limit that was passed; those
    are out already, and have to be hung up on. It is never the newcomer.
    """

    def __init__(self, limits: CrowdLimits) -> None:
        self._limits = limits
        self._places: dict[Guest, Place] = {}
        self._everyone: _Queue[Guest] = _Queue()
        self._waiting: _Queue[Guest] = _Queue()

    def __len__(self) -> int:
        return len(self._everyone)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._places

    @property
    def waiting(self) -> int:
        """How many have not made their whole request."""
        return len(self._waiting)

    @property
    def leaving(self) -> int:
        """How many have their answer, and are not gone."""
        return len(self._everyone) - len(self._waiting)

    def arrive(self, guest: Guest, address: Address | None) -> list[tuple[Guest, str]]:
        """Let in who has connected; the address may not be known yet."""
        place = self._enter(guest, address)
        self._waiting.add(guest, place)
        return self._too_many(place)

    def depart(self, guest: Guest, address: Address | None) -> list[tuple[Guest, str]]:
        """Put somebody on the way out, who waited, or comes from a session."""
        return self._too_many(self._enter(guest, address))

    def remove(self, guest: Guest) -> None:
        """Forget who has a session now, or is gone; nothing happens to who is not here."""
        if guest not in self._places:
            return
        place = self._places.pop(guest)
        self._everyone.remove(guest, place)
        if guest in self._waiting:
            self._waiting.remove(guest, place)

    def drop_one(self) -> Guest | None:
        """Make room, as when a limit is passed; None when nobody is here."""
        if not self._places:
            return None
        guest = self._everyone.oldest()
        self.remove(guest)
        return guest

    def _enter(self, guest: Guest, address: Address | None) -> Place:
        self.remove(guest)
        place = self._places[guest] = place_of(address)
        self._everyone.add(guest, place)
        return place

    def _too_many(self, place: Place) -> list[tuple[Guest, str]]:
        gone: list[tuple[Guest, str]] = []

        def drop(guest: Guest, reason: str) -> None:
            self.remove(guest)
            gone.append((guest, reason))

        if place is not None and self._everyone.size(place) > self._limits.per_network:
            drop(self._everyone.oldest_of(place), NETWORK)
        if len(self._waiting) > self._limits.handshakes:
            drop(self._waiting.oldest(), HANDSHAKES)
        if len(self._everyone) > self._limits.connections:
            drop(self._everyone.oldest(), TOTAL)
        return gone
