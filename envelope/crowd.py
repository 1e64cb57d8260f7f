"""Who stands before the door, and who has to go when there are too many (pure).

A connection is in the crowd while it holds no session: *waiting* from accept until its whole
request has come (TLS and HTTP), *leaving* once it has its answer, or its session is over. Sessions
are not in it: `--max-clients` bounds them, and nothing that happens here can cost one its place.

Who comes is never refused. When a limit is passed, somebody who is there already goes:

- of one network that has too many, and when there are too many in all: first those who are
  leaving, since they have their answer; the oldest of them, so that the last have time to read it;
- then, of those who wait, the one that has waited longest in the largest network, or in any, if
  the largest is no larger than `FAIR_SHARE`.

Because a good client is done within a few round trips, while the connections of a flood stay as
long as they may. Refusing at a full house would keep the flood in and the good client out. Dropping
who has come least far would do the same, since the newest has come least far. Dropping at random
loses clients from the first moment on; dropping the oldest loses none, unless as many connections
come within the good client's handshake as the limit allows. Taking it from the largest network
lets a flood from one place drop its own; the share keeps two clients behind one address from being
the largest network in a flood from thousands.

Networks are /32 and /64, what one customer has (RFC 6177). A step takes the same time however many
there are; only ordered dicts have their first key at hand whatever was deleted before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Network
from typing import Final, Generic, TypeAlias, TypeVar

from envelope.config import Address

Guest = TypeVar("Guest", bound=Hashable)
Place: TypeAlias = Address | IPv6Network | None
# Which limit was passed.
NETWORK: Final = "network"
HANDSHAKES: Final = "handshakes"
TOTAL: Final = "total"
# Waiting connections of a network that make it no target: a few clients behind one address.
FAIR_SHARE: Final = 8

_IPV6_BITS: Final = 64


def place_of(address: Address | None) -> Place:
    """What `address` is counted in; None, which is never too many, when it is not known."""
    if address is None or isinstance(address, IPv4Address):
        return address
    return IPv6Network((address, _IPV6_BITS), strict=False)


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """The most connections in all, of one network, and waiting; each at least 1."""

    connections: int
    per_network: int
    handshakes: int


@dataclass(slots=True)
class _Group(Generic[Guest]):
    """Those who are there, each kind in the order of coming."""

    waiting: OrderedDict[Guest, None] = field(default_factory=OrderedDict)
    leaving: OrderedDict[Guest, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.leaving)

    def leaver_before(self, newcomer: Guest) -> Guest | None:
        """The oldest of the leaving, unless `newcomer` is the only one."""
        first = next(iter(self.leaving), None)
        return None if first == newcomer else first


class _Sizes:
    """Networks by how many of their connections wait."""

    def __init__(self) -> None:
        self._places: dict[int, OrderedDict[Place, None]] = {}
        self.largest = 0

    def change(self, place: Place, old: int, new: int) -> None:
        """`place` has one more, or one less, than it had."""
        if old:
            peers = self._places[old]
            del peers[place]
            if not peers:
                del self._places[old]
        if new:
            self._places.setdefault(new, OrderedDict())[place] = None
        # Sizes change by one, so that who leaves the top empty stands right below it.
        if new > self.largest or self.largest not in self._places:
            self.largest = new

    def first_of_largest(self) -> Place:
        """The network that is the largest; of several, the one that became so first."""
        return next(iter(self._places[self.largest]))


class Crowd(Generic[Guest]):
    """The connections without a session.

    Methods that let somebody in return who has to go instead, and the limit that was passed; those
    are out already, and have to be hung up on. It is never the newcomer.
    """

    def __init__(self, limits: CrowdLimits) -> None:
        self._limits = limits
        self._places: dict[Guest, Place] = {}
        self._groups: dict[Place, _Group[Guest]] = {}
        self._all: _Group[Guest] = _Group()
        self._sizes = _Sizes()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._places

    @property
    def waiting(self) -> int:
        """How many have not made their whole request."""
        return len(self._all.waiting)

    @property
    def leaving(self) -> int:
        """How many have their answer, and are not gone."""
        return len(self._all.leaving)

    def arrive(self, guest: Guest, address: Address | None) -> list[tuple[Guest, str]]:
        """Let in who has connected; the address may not be known yet."""
        group = self._group(guest, address)
        group.waiting[guest] = self._all.waiting[guest] = None
        self._sizes.change(self._places[guest], len(group.waiting) - 1, len(group.waiting))
        return self._too_many(guest, group)

    def depart(self, guest: Guest, address: Address | None) -> list[tuple[Guest, str]]:
        """Put somebody on the way out, who waited, or comes from a session."""
        self.remove(guest)
        group = self._group(guest, address)
        group.leaving[guest] = self._all.leaving[guest] = None
        return self._too_many(guest, group)

    def remove(self, guest: Guest) -> None:
        """Forget who has a session now, or is gone; nothing happens to who is not here."""
        if guest not in self._places:
            return
        place = self._places.pop(guest)
        group = self._groups[place]
        if guest in group.leaving:
            del group.leaving[guest], self._all.leaving[guest]
        else:
            del group.waiting[guest], self._all.waiting[guest]
            self._sizes.change(place, len(group.waiting) + 1, len(group.waiting))
        if not len(group):
            del self._groups[place]

    def drop_one(self) -> Guest | None:
        """Make room, as when a limit is passed; None when nobody is here."""
        guest = next(iter(self._all.leaving), None)
        if guest is None and self.waiting:
            guest = self._longest_waiting()
        if guest is not None:
            self.remove(guest)
        return guest

    def _group(self, guest: Guest, address: Address | None) -> _Group[Guest]:
        place = self._places[guest] = place_of(address)
        return self._groups.setdefault(place, _Group())

    def _longest_waiting(self) -> Guest:
        group = self._all
        if self._sizes.largest > FAIR_SHARE:
            group = self._groups[self._sizes.first_of_largest()]
        return next(iter(group.waiting))

    def _too_many(self, newcomer: Guest, group: _Group[Guest]) -> list[tuple[Guest, str]]:
        gone: list[tuple[Guest, str]] = []

        def drop(guest: Guest, reason: str) -> None:
            self.remove(guest)
            gone.append((guest, reason))

        if self._places[newcomer] is not None and len(group) > self._limits.per_network:
            leaver = group.leaver_before(newcomer)
            drop(next(iter(group.waiting)) if leaver is None else leaver, NETWORK)
        if self.waiting > self._limits.handshakes:
            drop(self._longest_waiting(), HANDSHAKES)
        if len(self) > self._limits.connections:
            leaver = self._all.leaver_before(newcomer)
            drop(self._longest_waiting() if leaver is None else leaver, TOTAL)
        return gone
