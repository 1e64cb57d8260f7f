"""One loop that brings what is in force in the kernel to what is wanted.

What is wanted is a mapping from networks to their rules; whatever differs from what is in force
goes into the next transaction, everything at once. A transaction that fails is followed by a
look at the kernel and by the same changes one by one, so that a poisonous one fails alone.
Allowing is given up after a while, revoking never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.addresses import Network
from envelope.firewall import FirewallError
from envelope.firewall.errors import ToolFailed, ToolTimeout, UnreadableRules
from envelope.firewall.kernel import DriftKind, KernelTable, Key, Seen, key_of
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import end_of_grant
from envelope.firewall.reconcile.demand import Demand
from envelope.firewall.reconcile.inforce import Enforcement
from envelope.firewall.reconcile.reports import Condition
from envelope.firewall.reconcile.retry import Retry

_log = Logger(namespace="envelope.firewall")


class Reconciler:
    """Holds what is wanted against one table of the kernel's; nobody else writes grants there."""

    def __init__(
        self,
        reactor: IReactorTime,
        table: KernelTable,
        metrics: FirewallMetrics,
        wall: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._table = table
        self._wall = wall
        self._running = False
        self._dismissed = False
        self._demand = Demand(reactor, table, self._give_up)
        self._backlog = self._demand.backlog
        self._enforcement = Enforcement(reactor, table, self._demand, metrics)
        self._condition = Condition(table.label, metrics.drift)
        self._retry = Retry(reactor, self._try_again)
        self._must_look = False
        self._working: Deferred[None] | None = None

    # -- its life --------------------------------------------------------------------------

    def start(self, proxies: bool) -> None:
        """Begin: the table's structure is in force. `proxies`: there are `--proxy-port` rules."""
        self._running = True
        self._demand.wishes.proxies = proxies

    async def finish(self) -> None:
        """Write nothing more; returns when the last transaction is over."""
        self._running = False
        self._demand.wishes.clear()
        if self._working is not None:
            await self._working
        self._retry.stop()

    def dismiss(self) -> None:
        """Answer those who still wait, and whoever asks later: every grant is gone."""
        self._dismissed = True
        self._demand.dismiss()

    # -- what callers want -----------------------------------------------------------------

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        if not self._running:
            answer: Deferred[None] = Deferred()
            answer.errback(FirewallError("the firewall is closed"))
            return answer
        answer = self._demand.allow(key_of(network), end_of_grant(until))
        self._work()
        return answer

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        if self._dismissed:
            return succeed(None)
        answer = self._demand.revoke(key_of(network))
        self._work()
        return answer

    def clock_set(self, by: int) -> None:
        """Move every grant's end along with the wall clock, which was set `by` so many seconds."""
        if not self._running:
            return
        self._demand.move(by if self._table.by_time_of_day else 0)
        self._work()

    def check(self) -> None:
        """Compare the kernel's rules with ours, at once or when the loop comes to it."""
        if self._running:
            self._must_look = True
            self._work()

    @property
    def problem(self) -> str | None:
        """What the tool last refused, as long as anything is still refused."""
        trouble = self._condition.trouble
        if trouble is None:
            return None
        revoking = len(self._demand.answers.revoking)
        waiting = f" ({revoking} revocations outstanding)" if revoking else ""
        return f"firewall {self._table.label}: {trouble}{waiting}"

    def _give_up(self, key: Key) -> None:
        self._demand.refuse(key, self._condition.trouble or "the tool did not answer in time")
        self._work()

    # -- the loop --------------------------------------------------------------------------

    def _work(self) -> None:
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._loop())
            self._working.addErrback(
                lambda failure: _log.failure("the firewall's loop broke", failure=failure)
            )

    async def _loop(self) -> None:
        try:
            # Whoever asks in the same turn of the reactor shares the transaction.
            await deferLater(self._reactor, 0)
            while self._running and (self._must_look or self._backlog):
                if self._must_look:
                    if not await self._look():
                        break
                else:
                    await self._apply_next()
        finally:
            self._working = None
        self._plan_retry()

    async def _look(self) -> bool:
        """Read the kernel's rules and mend what differs, in one transaction."""
        try:
            self._must_look = False
            seen = await self._table.look(self._enforcement.grants)
            if seen is not None:
                await self._mend(seen)
            elif not self._backlog and not self._backlog.is_waiting:
                self._all_is_well()
        except (ToolFailed, UnreadableRules) as error:
            self._must_look = True
            self._condition.refused(str(error))
            return False
        return True

    async def _mend(self, seen: Seen) -> None:
        await self._enforcement.found(seen.grants)
        if not self._running:
            return
        differing = self._enforcement.differing
        surprising = self._backlog.surprising(differing)
        grants = len(self._demand.wishes.wanted(surprising))
        self._condition.differs(
            Counter(seen.kinds)
            + Counter({DriftKind.GRANT: grants, DriftKind.STRAY: len(surprising) - grants})
        )
        keys = self._backlog.take_differing(differing)
        try:
            await self._enforcement.write(seen.mending, keys, self._retry.patience)
        except ToolFailed:
            self._backlog.suspect(keys)
            raise
        self._condition.mended()
        if not seen.mending and not differing and not self._backlog.is_waiting:
            self._all_is_well()

    async def _apply_next(self) -> None:
        """Apply what is wanted: what is not suspected together, or one suspect alone."""
        keys = self._backlog.take(self._demand.answers.allowing, self._table.comers_apart)
        try:
            await self._enforcement.write((), keys, self._retry.patience)
        except ToolFailed as error:
            self._must_look = True
            self._condition.refused(str(error))
            for key in self._backlog.failed(keys, isinstance(error, ToolTimeout)):
                self._demand.refuse(key, str(error))
                self._backlog.put_off(key)
        else:
            self._backlog.succeeded(keys)

    def _plan_retry(self) -> None:
        """After a failure, try again until the kernel agrees."""
        if not self._running:
            return
        if self._condition.trouble is None:
            self._retry.calm()
        else:
            self._retry.plan()

    def _try_again(self) -> None:
        for key in self._enforcement.over(self._wall()):
            self._demand.answers.revoked(key)
        self._backlog.retry()
        self._must_look = True
        self._work()

    def _all_is_well(self) -> None:
        self._condition.well()
        self._backlog.trust()
