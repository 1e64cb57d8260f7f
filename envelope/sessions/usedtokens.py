"""Which tokens are used up (`--token-use`). Pure; the times are arguments.

A token is known by the digest of its `jti`. It is used up, or belongs to a network, once a session
has been answered with 101. It is reserved while a grant is being made: no other client may use it.

What was used is remembered until the token expires, counted in reactor seconds from its use: a step
of the wall clock neither shortens nor prolongs that. After such a step, though, a token that is
forgotten may be valid again. So the latest expiry of all forgotten tokens is kept, and a token that
does not expire later than that is refused, whatever the wall clock says. For clocks that do not
step, such a token has expired anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from ipaddress import ip_network
from math import ceil, inf
from typing import Final, Literal, NamedTuple, TypeAlias

from envelope.addresses import Address, Network

TokenUse: TypeAlias = Literal["any", "network", "once"]

# Seconds. A token that lives longer is remembered for so long after its use.
LONGEST: Final = 86_400.0
# Uses that are remembered, each of one token by one address family; some 150 bytes each. At 1,000
# sessions a second with tokens of two minutes there are 120,000.
MOST: Final = 500_000


class Use(NamedTuple):
    """The use of one token by one address family.

    `owner` is the network whose the token is, as a number, and always 0 where a token serves once.
    """

    key: bytes
    owner: int
    expires: float


class _Reserved(NamedTuple):
    owner: int
    number: int


class UsedTokens:
    """The tokens that are used up or reserved, and those forgotten.

    `network_of` returns the network that a grant for an address opens. At most `most` uses are
    remembered. When that many are, a token that needs another one is refused: forgetting one
    instead would let its token be used again. With `use` "any" nothing is remembered or refused.
    """

    def __init__(
        self,
        use: TokenUse = "any",
        network_of: Callable[[Address], Network] = ip_network,
        most: int = MOST,
    ) -> None:
        self.needed = use != "any"
        self._once = use == "once"
        self._network_of = network_of
        self._most = most
        self._owners: dict[bytes, int] = {}
        self._reserved: dict[bytes, _Reserved] = {}
        # The uses to be forgotten at each whole second of the reactor's clock, these seconds as a
        # heap, and the latest expiry among each second's uses.
        self._due: dict[int, list[bytes]] = {}
        self._seconds: list[int] = []
        self._expiries: dict[int, float] = {}
        self._forgotten = -inf

    def __len__(self) -> int:
        """How many uses are remembered."""
        return len(self._owners)

    @property
    def full(self) -> bool:
        """Whether no further use can be remembered."""
        return len(self._owners) + len(self._reserved) >= self._most

    def use_of(self, token_id: bytes, expires: float, address: Address | None) -> Use:
        """The use of a token by a client; `expires` is in seconds since the epoch."""
        if address is None:
            return Use(token_id + b"-", 0, expires)
        owner = 0 if self._once else int(self._network_of(address).network_address)
        return Use(token_id + (b"4" if address.version == 4 else b"6"), owner, expires)

    def refuses(self, use: Use) -> bool:
        """Whether the token is used up, another network's, reserved or possibly forgotten."""
        owner = self._owners.get(use.key)
        reserved = self._reserved.get(use.key)
        if owner is None and reserved is not None:
            owner = reserved.owner
        if owner is not None:
            return self._once or owner != use.owner
        return use.expires <= self._forgotten or self.full

    def reserve(self, use: Use | None) -> None:
        """Reserve the use for an admitted client while its grant is being made.

        It is given back or used up later; None is for a client without a token.
        """
        if use is None:
            return
        reserved = self._reserved.get(use.key, _Reserved(use.owner, 0))
        self._reserved[use.key] = _Reserved(use.owner, reserved.number + 1)

    def give_back(self, use: Use | None) -> None:
        """Give a reservation back: its client got no session."""
        if use is None:
            return
        reserved = self._reserved.pop(use.key)
        if reserved.number > 1:
            self._reserved[use.key] = _Reserved(use.owner, reserved.number - 1)

    def use_up(self, use: Use | None, wall: float, now: float) -> None:
        """Make a reservation a use: its client gets its 101.

        `wall` is in seconds since the epoch, `now` in reactor seconds.
        """
        self.give_back(use)
        if use is None or use.key in self._owners:
            return
        self._owners[use.key] = use.owner
        left = use.expires - wall
        second = ceil(now + min(max(left, 0.0), LONGEST))
        if second not in self._due:
            self._due[second] = []
            self._expiries[second] = -inf
            heappush(self._seconds, second)
        self._due[second].append(use.key)
        # One that lives longer than a day may be used again after a day. Were its expiry kept,
        # every other token would be refused until then.
        if left <= LONGEST:
            self._expiries[second] = max(self._expiries[second], use.expires)

    def forget(self, now: float) -> None:
        """Forget the tokens that have expired by `now` (reactor seconds)."""
        while self._seconds and self._seconds[0] <= now:
            second = heappop(self._seconds)
            for key in self._due.pop(second):
                del self._owners[key]
            self._forgotten = max(self._forgotten, self._expiries.pop(second))
