"""One loop that makes the kernel's rules what callers want.

The next transaction contains every change that is due. After a transaction that failed, the kernel
is read, and the same changes are tried one by one, so that one the kernel does not take fails
alone. A grant is given up after a while, a revocation never. When the kernel cannot be read,
changes go on from what is known to be in force.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Generic

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.firewall import FirewallError, RulesInForce, Traffic
from envelope.firewall.cooperate import SLICE, in_turns, wait_turns
from envelope.firewall.errors import ToolFailed, ToolTimeout, UnreadableRules
from envelope.firewall.kernel import DriftKind, KernelTable, Key, Seen, W
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.reconcile.backlog import BUSY_TURNS, GATHER, Backlog
from envelope.firewall.reconcile.contest import Contest
from envelope.firewall.reconcile.counting import Counting
from envelope.firewall.reconcile.inforce import InForce
from envelope.firewall.reconcile.reports import Reports
from envelope.firewall.reconcile.retry import Retry
from envelope.firewall.reconcile.waiters import Waiters
from envelope.firewall.reconcile.wanted import Wanted

_log = Logger(namespace="envelope.firewall")


class Reconciler(Generic[W]):
    """Holds what is wanted of one table against what is in force; all times are reactor seconds."""

    def __init__(
        self, reactor: IReactorTime, table: KernelTable[W], metrics: FirewallMetrics
    ) -> None:
        self._reactor, self._table = reactor, table
        self._wanted = Wanted(table.written)
        self._in_force: InForce[W] = InForce()
        self._backlog = Backlog()
        self.counting = Counting(reactor, table)
        self._waiters = Waiters(reactor, self._too_late, self.counting.end)
        self._reports = Reports(table.label, metrics.drift)
        self._contest = Contest()
        self._retry = Retry(reactor, self._try_again)
        for version in table.versions:
            metrics.show_grants(version, partial(self._in_force.count, version))
        self._running = self._dismissed = self._must_look = self._is_working = False
        # Whether the last reading failed, and whether that or the mending of what it found did.
        self._blind = self._unmended = False
        self._working: Deferred[None] = succeed(None)

    # -- start and stop --------------------------------------------------------------------

    def start(self, proxies: bool) -> None:
        """Begin: the table's structure is in force. `proxies`: there are `--proxy-port` rules."""
        self._running = True
        self._wanted.proxies = proxies

    async def finish(self) -> None:
        """Write nothing more; returns when the last transaction is over."""
        self._running = False
        self._wanted.clear()
        if self._is_working:
            await self._working
        self._retry.stop()

    def dismiss(self) -> None:
        """Answer all callers, also those that ask from now on: every grant is gone."""
        self._dismissed = True
        self._waiters.dismiss()

    # -- what callers want -----------------------------------------------------------------

    def allow(self, key: Key, end: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        if not self._running:
            return fail(FirewallError("the firewall is closed"))
        self._backlog.add(self._wanted.allow(key, end))
        answer = self._waiters.await_allowed(key)
        self._waiters.revoked(key)
        self._work()
        return answer

    def revoke(self, key: Key) -> Deferred[Traffic | None]:
        """See `IFirewall.revoke`."""
        if self._dismissed:
            return succeed(None)
        answer = self._waiters.await_revoked(key)
        self._backlog.add(self._wanted.revoke(key))
        self._waiters.refused(key, "the grant was revoked before it was in force")
        self._work()
        return answer

    def rewrite(self) -> None:
        """Write every grant's end anew: the clock that the table writes them in was stepped."""
        if self._running:
            self._backlog.add(self._wanted.rewrite())
            self._work()

    def guard(self, also: tuple[str, ...]) -> None:
        """Guard these devices besides the one."""
        self._table.guard(also)
        self.check()

    def check(self) -> None:
        """Compare the kernel's rules with ours, as soon as no transaction is under way."""
        if self._running:
            self._must_look = True
            self._work()

    @property
    def problem(self) -> str | None:
        """What the tool refused last, in one line, while anything is still refused."""
        return self._reports.problem(len(self._waiters.revoking))

    @property
    def warnings(self) -> list[str]:
        """What an operator should look after although nothing is refused, a line each."""
        return self._reports.warnings

    def rules(self) -> RulesInForce:
        """See `IFirewall.rules`."""
        return self._table.rules(*self._in_force.beside(self._wanted.grants))

    def _too_late(self, key: Key) -> None:
        self._refuse(key, self._reports.trouble or "the tool did not answer in time")
        self._work()

    def _refuse(self, key: Key, why: str) -> None:
        """Refuse a grant that cannot be made; see `Wanted.fall_back` for an older one."""
        if self._waiters.is_allowing(key):
            self._backlog.add(self._wanted.fall_back(key))
            self._waiters.refused(key, why)

    # -- the loop --------------------------------------------------------------------------

    def _work(self) -> None:
        # At once, or after gathering; what is asked for meanwhile shares the next transaction.
        if not self._is_working:
            self._is_working = True
            self._working = Deferred.fromCoroutine(self._loop())
            self._working.addErrback(lambda why: _log.failure("the firewall's loop broke", why))

    async def _loop(self) -> None:
        try:
            while self._running and (self._must_look or self._backlog):
                if self._backlog.is_busy:
                    await wait_turns(self._reactor, BUSY_TURNS, GATHER)
                    if not self._running:
                        return
                await (self._look() if self._must_look else self._apply_next())
                if not (self._unmended or self._must_look or self._backlog.is_troubled):
                    self._reports.well()
        finally:
            self._is_working = False
        if self._running:
            self._retry.plan_if(self._reports.trouble is not None)

    async def _look(self) -> None:
        """Read the kernel's rules and mend what differs, in one transaction."""
        self._must_look = False
        self._blind = self._unmended = True
        try:
            seen = await self._table.look(self._in_force)
            self._blind = False
            move = self._contest.found(bool(seen and seen.moving), self._reactor.seconds())
            self._reports.contested(self._contest.is_on)
            if seen is not None:
                self._reports.opened(seen.openings)
                await self._mend(seen, move)
            self._unmended = False
        except (ToolFailed, UnreadableRules) as error:
            self._reports.refused(str(error))

    async def _mend(self, seen: Seen[W], move: bool) -> None:
        """Mend what a look has found to differ; `move`: our jump is moved back, too."""
        await self._take_over(seen)
        if not self._running:
            return
        differing = self._wanted.differing(self._in_force)
        surprising = self._backlog.surprising(differing)
        kinds = [*seen.kinds, DriftKind.JUMP] if move else seen.kinds
        self._reports.differs(kinds, len(self._wanted.granted(surprising)), len(surprising))
        keys = self._backlog.take_differing(differing)
        try:
            await self._write([*seen.mending, *seen.moving] if move else seen.mending, keys)
        except ToolFailed:
            self._backlog.suspect(keys)
            raise
        self._reports.mended()
        if move:
            self._contest.moved(self._reactor.seconds())

    async def _take_over(self, seen: Seen[W]) -> None:
        """Note what a look has found; a tool that failed to answer may have done its work."""
        before = len(self._in_force)
        self._in_force.replace(seen.grants)
        self.counting.seen(seen.grants)
        if max(before, len(seen.grants)) > SLICE:
            await deferLater(self._reactor, 0)
        await self._waiters.each(self._waiters.awaited, self._settle)

    async def _apply_next(self) -> None:
        """Apply the changes that are due: those that are not suspect, or one suspect alone."""
        keys = self._backlog.take(self._waiters.allowing)
        try:
            await self._write((), keys)
        except ToolFailed as error:
            self._must_look = not self._blind
            self._reports.refused(str(error))
            for key in self._backlog.failed(keys, isinstance(error, ToolTimeout)):
                self._refuse(key, str(error))
                self._backlog.put_off(key)
        else:
            self._backlog.succeeded(keys)

    async def _write(self, mending: Sequence[str], keys: Collection[Key]) -> None:
        """Apply `mending` and what is wanted of `keys` in one transaction; or `ToolFailed`."""
        grants = self._wanted.grants
        wants = {key: grants.get(key) for key in keys}
        if len(wants) > SLICE:
            await deferLater(self._reactor, 0)
        if mending or wants:
            await self._table.write(mending, self._in_force, wants, self._retry.patience)
        self.counting.wrote(wants, self._waiters, self._in_force)
        await in_turns(self._reactor, wants.items(), self._in_force.note)
        await self._waiters.each(self._waiters.among(keys), self._settle)

    def _settle(self, key: Key) -> None:
        """Answer the callers of a network, if its grant in force is the one that is wanted now."""
        if self._in_force.get(key) == self._wanted.get(key):
            if self._wanted.confirm(key):
                self._waiters.allowed(key)
            else:
                self._waiters.revoked(key)

    def _try_again(self) -> None:
        for key in self._waiters.revoking:
            if key in self._in_force and self._table.is_over(self._in_force[key]):
                self._waiters.revoked(key)
        self._backlog.retry()
        self._must_look = True
        self._work()
