"""Whether the rules of nftables or iptables-nft were changed, told by the kernel's count.

Each transaction in this network, in whatever table, makes a new generation (the generation ID;
`nft monitor` shows it). Asking for its number takes some 10 us, however many rules there are. As
long as the number is the one of our own last transaction, the rules need not be read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from envelope.netlink import NETLINK_NETFILTER, Netlink, attributes

T = TypeVar("T")

# Seconds for which the kernel's count replaces a reading of the rules. A reading runs a process,
# which is most of what an idle service would cost.
TRUST: Final = 300.0

# linux/netfilter/nfnetlink.h and nf_tables.h: the question, and what stands before the attributes.
_GET: Final = 10 << 8 | 16
_HEAD: Final = bytes(4)
_ID: Final = 1


class GenerationCounter:
    """Asks the kernel for the generation, over one socket that stays open (see `Netlink`)."""

    def __init__(self) -> None:
        self._kernel = Netlink(NETLINK_NETFILTER)

    def number(self) -> int | None:
        """The number of the generation in force; None when the kernel does not tell."""
        try:
            return read_answer(self._kernel.ask(_GET, _HEAD))
        except OSError:
            return None

    def close(self) -> None:
        """Close the socket; later questions are not answered."""
        self._kernel.close()


def read_answer(body: bytes) -> int | None:
    """The number in the kernel's answer; None when it has none. Pure."""
    number = attributes(body, len(_HEAD)).get(_ID, b"")
    return int.from_bytes(number, "big") if len(number) == 4 else None


class Certainty:
    """Our own count of transactions, held against the kernel's.

    `generation` returns the kernel's count, or None if the kernel does not tell it: then nothing is
    certain. `now` returns reactor seconds. After `trust` seconds the rules are read all the same.
    """

    def __init__(
        self, generation: Callable[[], int | None], now: Callable[[], float], trust: float
    ) -> None:
        self._generation = generation
        self._now = now
        self._trust = trust
        self._read_at = now()
        # The generation whose rules are known; None when that is not certain.
        self._known: int | None = None

    @property
    def undisturbed(self) -> bool:
        """Whether the rules are known, and only we have changed any since."""
        return self._known is not None and self._known == self._generation()

    @property
    def suffices(self) -> bool:
        """Whether the rules need not be read now."""
        return self.undisturbed and self._now() < self._read_at + self._trust

    async def read(self, show: Callable[[], Awaitable[T]]) -> tuple[T, int | None]:
        """Return what `show` returns, and its generation, or None if that changed meanwhile."""
        self._known = None
        before = self._generation()
        output = await show()
        self._read_at = self._now()
        return output, before if before == self._generation() else None

    def know(self, generation: int | None) -> None:
        """Note that the rules of this generation are known."""
        self._known = generation

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count one transaction of ours; if it fails, nothing is certain."""
        known, self._known = self._known, None
        yield
        self._known = None if known is None else known + 1
