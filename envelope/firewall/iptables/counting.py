"""Counts what grants let in, for one address family's filter table.

Where the kernel tells of deleted rules, nothing is read before a rule is deleted. Elsewhere the
rules are read then, while few leave, since a reading takes a process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from envelope.firewall import Traffic
from envelope.firewall.cooperate import in_turns
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables.counters import RuleCounters, counts_in, together
from envelope.firewall.iptables.snapshot import text_of
from envelope.firewall.iptables.tools import Tools
from envelope.firewall.kernel import Key
from envelope.firewall.policy import Family

# Grants that end in one transaction, the part of the time that readings before them may take, and
# how many seconds of readings may come at once.
FEW: Final = 4
SHARE: Final = 0.05
AT_ONCE: Final = 0.5


class Counting:
    """What the rules of one table have counted; see `KernelTable.counts` and `deleted`."""

    def __init__(self, tools: Tools, family: Family, counters: RuleCounters) -> None:
        self._tools = tools
        self._family = family
        self._counters = counters
        self._prefix = 0
        # Whether the kernel tells of deleted rules.
        self._tells = False
        # What rules had counted that are about to be deleted, and that were.
        self._leaving: list[tuple[Key, Traffic]] = []
        self._deleted: list[tuple[Key, Traffic]] = []
        # Seconds of readings that are not made up for yet, as of then (reactor seconds).
        self._spent = 0.0
        self._as_of = 0.0

    def listen(self, prefix: int) -> None:
        """The structure is about to be written; grants open so many bits of an address."""
        self._prefix = prefix
        self._counters.listen()

    async def find_kind(self) -> None:
        """Find out whether the kernel will tell: not of rules of iptables-legacy."""
        try:
            self._tells = self._counters.listens and await self._tools.kind() == "nft"
        except ToolFailed:
            self._tells = False
        if not self._tells:
            self._counters.close()

    async def counts(self) -> Mapping[Key, Traffic]:
        """See `KernelTable`."""
        reactor = self._tools.reactor
        if self._tells:
            with suppress(OSError):
                counted = self._counters.counts(self._prefix)
                return together(await in_turns(reactor, counted, lambda part: part))
        lines = text_of(await self._tools.save(counters=True)).split("\n")
        version = self._family.version
        return together(await in_turns(reactor, lines, lambda part: counts_in(part, version)))

    def deleted(self) -> Sequence[tuple[Key, Traffic]]:
        """See `KernelTable`."""
        self._hear()
        deleted, self._deleted = self._deleted, []
        return [*together(deleted).items()] if len(deleted) > 1 else deleted

    def lost(self) -> bool:
        """See `KernelTable`."""
        return self._counters.lost()

    def _hear(self) -> None:
        """Take what the kernel has told of deleted rules, before its buffer is full."""
        self._deleted += self._counters.deleted(self._prefix)

    async def before(self, leaving: Collection[Key]) -> None:
        """The rules of these grants are about to be deleted."""
        self._hear()
        self._leaving = []
        now = self._tools.reactor.seconds()
        self._spent = max(0.0, self._spent - SHARE * (now - self._as_of))
        self._as_of = now
        if self._tells or not 0 < len(leaving) <= FEW or self._spent >= AT_ONCE:
            return
        try:
            found = await self.counts()
        except ToolFailed:
            return
        finally:
            self._spent += self._tools.reactor.seconds() - now
        self._leaving = [(key, found[key]) for key in leaving if key in found]

    def after(self) -> None:
        """They are deleted."""
        self._deleted += self._leaving
        self._leaving = []
