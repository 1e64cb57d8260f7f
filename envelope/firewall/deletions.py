"""What the kernel tells of rules and elements of nf_tables that were deleted.

It tells listeners of each with its counter, as that was when no packet could reach it any more
(nf_tables_commit; `nft monitor` shows it), also where others have deleted it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from envelope.netlink import NETLINK_NETFILTER, Events

# linux/netfilter/nfnetlink.h
_GROUP: Final = 7
# Bytes that may wait to be read, of others' transactions too: some 15,000 elements.
_BUFFER: Final = 2 << 20
# Datagrams that are read in a row; each holds a part of a transaction, up to 8 kB.
_MOST: Final = 4096


class Deletions:
    """Messages of one `kind`, which says what was deleted. It needs CAP_NET_ADMIN."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        # None where the kernel tells nothing.
        self._events: Events | None = None
        self._lost = False

    @property
    def listens(self) -> bool:
        """Whether the kernel tells of what is deleted."""
        return self._events is not None

    def listen(self) -> None:
        """Hear of everything that is deleted from now on, where the kernel allows it."""
        if self._events is None:
            with suppress(OSError):
                self._events = Events(NETLINK_NETFILTER, _GROUP, _BUFFER)

    def read(self) -> Iterator[bytes]:
        """The messages since the last call; see `lost`."""
        for _ in range(_MOST):
            if self._events is None:
                return
            try:
                messages = self._events.read()
            except OSError:
                self._lost = True
                continue
            if not messages:
                return
            for kind, body in messages:
                if kind == self._kind:
                    yield body

    def lost(self) -> bool:
        """Whether some were lost under a flood, since the last call of this."""
        lost, self._lost = self._lost, False
        return lost

    def close(self) -> None:
        """Hear no more."""
        events, self._events = self._events, None
        if events is not None:
            events.close()
