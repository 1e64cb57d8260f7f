"""Which slots are taken, and by whom. Pure.

Sessions of one visitor share a slot as long as they come from different address families: a
measurement needs both. A visitor with two sessions over IPv4 and one over IPv6 takes two slots.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeAlias

from envelope.addresses import AddressFamily

# Who a token with a `jti` stands for: a digest of its `sub` and its `jti`.
Visitor: TypeAlias = bytes


def visitor_of(token_id: bytes, subject: str | None) -> Visitor:
    """The visitor of a token; `token_id` is the digest of its `jti`, 16 bytes.

    One digest more takes 80 bytes less a session than a pair of the two.
    """
    return blake2b(token_id + (subject or "").encode(), digest_size=16).digest()


# Sessions of one visitor over IPv4 and over IPv6. Nearly every visitor has one of these numbers; as
# the same objects, they save 70 bytes a session.
_USUAL: Final = {each: each for each in ((1, 0), (0, 1), (1, 1))}


class TakenSlots:
    """The sessions that are in, by visitor and address family; each call takes constant time.

    A session without a visitor or without an address takes a slot of its own. A session enters
    when it is admitted, and leaves when its grant is revoked or could not be made.
    """

    def __init__(self) -> None:
        self._sessions: dict[Visitor, tuple[int, int]] = {}
        self._taken = 0
        self._monitoring = 0

    @property
    def taken(self) -> int:
        """The number of slots that are taken."""
        return self._taken

    @property
    def monitoring(self) -> int:
        """The number of slots among them that monitoring has taken."""
        return self._monitoring

    def beyond(self, kept: int) -> int:
        """The number of slots that are taken beyond those `kept` for monitoring."""
        return self._taken - min(self._monitoring, kept)

    def needs_slot(self, visitor: Visitor | None, family: AddressFamily | None) -> bool:
        """Whether another session of this visitor and family would take a slot more."""
        if visitor is None or family is None:
            return True
        before = self._sessions.get(visitor, (0, 0))
        return max(_with(before, family, 1)) > max(before)

    def enter(
        self, visitor: Visitor | None, family: AddressFamily | None, monitoring: bool = False
    ) -> None:
        """Add a session."""
        self._change(visitor, family, monitoring, 1)

    def leave(
        self, visitor: Visitor | None, family: AddressFamily | None, monitoring: bool = False
    ) -> None:
        """Remove a session that entered with the same arguments.

        Raises `ValueError` if no such session is in.
        """
        self._change(visitor, family, monitoring, -1)

    def _change(
        self, visitor: Visitor | None, family: AddressFamily | None, monitoring: bool, by: int
    ) -> None:
        slots = by
        if visitor is not None and family is not None:
            before = self._sessions.get(visitor, (0, 0))
            after = _with(before, family, by)
            if min(after) < 0:
                raise ValueError("no such session is in")
            slots = max(after) - max(before)
            if any(after):
                self._sessions[visitor] = _USUAL.get(after, after)
            else:
                del self._sessions[visitor]
        if self._taken + slots < 0:
            raise ValueError("no such session is in")
        self._taken += slots
        self._monitoring += slots if monitoring else 0


def _with(sessions: tuple[int, int], family: AddressFamily, more: int) -> tuple[int, int]:
    ipv4, ipv6 = sessions
    return (ipv4 + more, ipv6) if family is AddressFamily.IPV4 else (ipv4, ipv6 + more)
