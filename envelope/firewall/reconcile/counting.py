"""Takes a table's counters into the ledger."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import partial
from typing import Generic

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.firewall import Traffic
from envelope.firewall.cooperate import in_turns
from envelope.firewall.errors import ToolFailed, UnreadableRules
from envelope.firewall.kernel import KernelTable, Key, W
from envelope.firewall.reconcile.ledger import Ledger

_log = Logger(namespace="envelope.firewall")


class Counting(Generic[W]):
    """What the grants of one table have let in."""

    def __init__(self, reactor: IReactorTime, table: KernelTable[W]) -> None:
        self._reactor = reactor
        self._table = table
        self._ledger = Ledger()
        self._reading: list[Deferred[None]] = []
        self._failed = False

    def wrote(
        self, grants: Mapping[Key, W | None], awaited: Container[Key], before: Mapping[Key, W]
    ) -> None:
        """A transaction gave these grants, or none; callers wait for the `awaited`.

        `before` are the grants that were in force.
        """
        self._hear()
        same = {key for key, grant in grants.items() if key in before and before[key] == grant}
        self._ledger.written(grants, awaited, same)

    def seen(self, grants: Mapping[Key, W]) -> None:
        """The kernel was read, and holds these grants."""
        self._hear()
        self._ledger.seen(grants.keys())

    def end(self, key: Key) -> Traffic | None:
        """What a grant has let in, now that it is over; see `Ledger.end`."""
        if not self._ledger.is_gone(key):
            self._hear()
        return self._ledger.end(key)

    def traffic(self, key: Key) -> Traffic | None:
        """See `IFirewall.traffic`."""
        return self._ledger.traffic(key)

    def read(self) -> Deferred[None]:
        """See `IFirewall.read_traffic`; callers that ask meanwhile share a reading."""
        answer: Deferred[None] = Deferred()
        self._reading.append(answer)
        if len(self._reading) == 1:
            Deferred.fromCoroutine(self._read()).addErrback(
                lambda failure: _log.failure("reading the counters broke", failure=failure)
            ).addCallback(lambda _: self._answer())
        return answer

    async def _read(self) -> None:
        number = self._ledger.begin()
        try:
            counts = await self._counts()
            self._hear()
            await in_turns(self._reactor, counts.items(), partial(self._ledger.note, number))
        finally:
            # Also when it breaks: an old number would look like a grant without traffic.
            self._ledger.finish(number)

    async def _counts(self) -> Mapping[Key, Traffic]:
        """What the table's rules have counted; nothing if they cannot be read."""
        try:
            counts = await self._table.counts()
        except (ToolFailed, UnreadableRules) as error:
            if not self._failed:
                _log.warn("{table}: the counters cannot be read: {why}",
                          table=self._table.label, why=str(error))
            self._failed = True
            return {}
        self._failed = False
        return counts

    def _hear(self) -> None:
        self._ledger.deleted(self._table.deleted())
        if self._table.lost():
            self._ledger.doubt()

    def _answer(self) -> None:
        waiting, self._reading = self._reading, []
        for answer in waiting:
            answer.callback(None)
