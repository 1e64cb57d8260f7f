"""One loop that brings what is in force in the kernel to what is wanted.

What is wanted is a mapping from networks to their rules; whatever differs from what is in force
goes into the next transaction, everything at once. A transaction that fails is followed by a
look at the kernel and by the same changes one by one, so that a poisonous one fails alone.
Allowing is given up after a while, revoking never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.config import Network
from envelope.firewall import FirewallError
from envelope.firewall.answers import Answers
from envelope.firewall.backlog import Backlog
from envelope.firewall.grants import Grants
from envelope.firewall.kernel import EVERYONE, KernelTable, Key, Rules, Seen, key_of, version_of
from envelope.firewall.latest import Latest
from envelope.firewall.opentool import ANSWER_WAIT
from envelope.firewall.process import ToolFailed
from envelope.firewall.ruleset import LATEST_END, end_of_grant
from envelope.firewall.snapshot import UnreadableRules
from envelope.metrics import Metrics

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 15.0
# A change that has already failed alone may hold others up no longer than this (seconds).
RETRY_WAIT: Final = 2.0

# Callers answered in one turn of the reactor; each goes on to log a line and write to a socket,
# some 0.3 ms.
ANSWERS_A_TURN: Final = 16

_log = Logger(namespace="envelope.firewall")


class Reconciler:
    """Holds what is wanted against one table of the kernel's; nobody else writes grants there."""

    def __init__(
        self,
        reactor: IReactorTime,
        table: KernelTable,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._table = table
        self._metrics = metrics
        self._wall = wall
        self._running = False
        self._dismissed = False
        # Whether everybody is let in somewhere while anybody has a grant, and until when.
        self._proxies = False
        self._ends: dict[int, Latest[int]] = {version: Latest() for version in EVERYONE}
        self._wanted: dict[Key, Rules] = {}
        # What callers were told is in force.
        self._granted: dict[Key, Rules] = {}
        self._in_force = Grants()
        self._backlog = Backlog()
        self._answers = Answers(reactor, self._give_up)
        self._must_look = False
        self._working: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._pause = FIRST_PAUSE
        self._trouble: str | None = None
        self._vouched: bytes | None = None
        # Differences that were told of and are not mended yet, by kind.
        self._told: Counter[str] = Counter()

    # -- its life --------------------------------------------------------------------------

    def start(self, proxies: bool) -> None:
        """Begin: the table's structure is in force. `proxies`: there are `--proxy-port` rules."""
        self._running = True
        self._proxies = proxies

    async def finish(self) -> None:
        """Write nothing more; returns when the last transaction is over."""
        self._running = False
        self._wanted.clear()
        if self._working is not None:
            await self._working
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def dismiss(self) -> None:
        """Answer those who still wait, and whoever asks later: every grant is gone."""
        self._dismissed = True
        for key in self._answers.allowing:
            self._answers.refused(key, "the firewall was closed")
        for key in self._answers.revoking:
            self._answers.revoked(key)

    # -- what callers want -----------------------------------------------------------------

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        if not self._running:
            answer: Deferred[None] = Deferred()
            answer.errback(FirewallError("the firewall is closed"))
            return answer
        key = key_of(network)
        self._want(key, self._table.rules(key, end_of_grant(until)))
        answer = self._answers.await_allowed(key)
        self._answers.revoked(key)
        self._work()
        return answer

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        if self._dismissed:
            return succeed(None)
        key = key_of(network)
        answer = self._answers.await_revoked(key)
        self._granted.pop(key, None)
        self._want(key, ())
        self._answers.refused(key, "the grant was revoked before it was in force")
        self._work()
        return answer

    def clock_set(self, by: int) -> None:
        """Move every grant's end along with the wall clock, which was set `by` so many seconds."""
        if not self._running:
            return
        if not self._table.by_time_of_day:
            by = 0
        def moved(key: Key, rules: Rules) -> Rules:
            end = self._table.end_of(rules)
            return () if end is None else self._table.rules(key, min(end + by, LATEST_END))

        for key, rules in list(self._wanted.items()):
            if key not in EVERYONE.values():
                self._want(key, moved(key, rules))
        self._granted = {key: moved(key, rules) for key, rules in self._granted.items()}
        self._work()

    def check(self) -> None:
        """Compare the kernel's rules with ours, at once or when the loop comes to it."""
        if self._running:
            self._must_look = True
            self._work()

    @property
    def problem(self) -> str | None:
        """What the tool last refused, as long as anything is still refused."""
        if self._trouble is None:
            return None
        revoking = len(self._answers.revoking)
        waiting = f" ({revoking} revocations outstanding)" if revoking else ""
        return f"firewall {self._table.label}: {self._trouble}{waiting}"

    def _want(self, key: Key, rules: Rules) -> None:
        self._set_wanted(key, rules)
        if self._proxies:
            version = version_of(key)
            ends = self._ends[version]
            end = self._table.end_of(rules)
            if end is None:
                ends.drop(key)
            else:
                ends.put(key, end)
            everyone = EVERYONE[version]
            latest = ends.end
            self._set_wanted(
                everyone, () if latest is None else self._table.rules(everyone, latest)
            )

    def _set_wanted(self, key: Key, rules: Rules) -> None:
        if rules:
            self._wanted[key] = rules
        else:
            self._wanted.pop(key, None)
        self._backlog.add(key)

    def _give_up(self, key: Key) -> None:
        self._refuse(key, self._trouble or "the tool did not answer in time")
        self._work()

    def _refuse(self, key: Key, why: str) -> None:
        """Refuse a grant that cannot be made; one that was granted before keeps its older end."""
        if self._answers.is_allowing(key):
            self._want(key, self._granted.get(key, ()))
            self._answers.refused(key, why)

    async def _settle(self, keys: Collection[Key]) -> None:
        """Answer those who wait for these keys, as far as they are as wanted; some at a time."""
        for number, key in enumerate(keys):
            if number and number % ANSWERS_A_TURN == 0:
                await deferLater(self._reactor, 0)
            if not self._is_settled(key):
                continue
            if key in self._wanted:
                self._granted[key] = self._wanted[key]
                self._answers.allowed(key)
            else:
                self._answers.revoked(key)
        for version in self._table.versions:
            self._metrics.grants(f"ipv{version}", self._in_force.networks[version])

    def _is_settled(self, key: Key) -> bool:
        return self._in_force.get(key) == self._wanted.get(key)

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
            vouched = None if self._backlog else self._vouched
            self._must_look = False
            seen = await self._table.look(self._in_force, vouched)
            if seen is not None:
                await self._mend(seen)
            elif not self._backlog and not self._backlog.is_waiting:
                self._all_is_well()
        except (ToolFailed, UnreadableRules) as error:
            self._must_look = True
            self._note_trouble(str(error))
            return False
        return True

    async def _mend(self, seen: Seen) -> None:
        self._in_force.replace(seen.grants)
        # A tool that failed to answer may have done its work all the same.
        await self._settle(self._answers.awaited)
        differing = {
            key for key in self._in_force.keys() | self._wanted.keys()
            if not self._is_settled(key)
        }
        kinds = [*seen.kinds, *(
            "grant" if key in self._wanted else "stray"
            for key in differing if not self._backlog.expects(key)
        )]
        self._note_drift(Counter(kinds))
        keys = self._backlog.take_differing(differing)
        try:
            await self._apply(seen.mending, keys)
        except ToolFailed:
            self._backlog.suspect(keys)
            raise
        self._told.clear()
        if not seen.mending and not differing:
            self._vouched = seen.text
            if not self._backlog.is_waiting:
                self._all_is_well()

    async def _apply_next(self) -> None:
        """Apply what is wanted: what is not suspected together, or one suspect alone."""
        keys = self._backlog.take(self._answers.allowing)
        try:
            await self._apply((), keys)
        except ToolFailed as error:
            self._must_look = True
            self._note_trouble(str(error))
            self._backlog.failed(keys)
            if len(keys) == 1:
                (key,) = keys
                self._refuse(key, str(error))
                self._backlog.put_off(key)
        else:
            self._backlog.succeeded(keys)

    async def _apply(self, mending: Sequence[str], keys: set[Key]) -> None:
        wants = {key: self._wanted.get(key, ()) for key in keys}
        if mending or keys:
            self._vouched = None
            patience = ANSWER_WAIT if self._pause == FIRST_PAUSE else RETRY_WAIT
            await self._table.write(mending, self._in_force, wants, patience)
        for key, rules in wants.items():
            self._in_force.put(key, rules)
        await self._settle(keys)

    def _plan_retry(self) -> None:
        """After a failure, try again after growing pauses until the kernel agrees."""
        if not self._running:
            return
        if self._trouble is None:
            self._pause = FIRST_PAUSE
            return
        if self._retry is None:
            self._retry = self._reactor.callLater(self._pause, self._try_again)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _try_again(self) -> None:
        self._retry = None
        now = self._wall()
        for key in self._answers.revoking:
            end = self._table.end_of(self._in_force.get(key, ()))
            if end is not None and end + 1 < now:
                # The kernel has ended it by itself: it lets nobody in, though its text stands.
                self._answers.revoked(key)
        self._backlog.retry()
        self._must_look = True
        self._work()

    # -- what operators are told -----------------------------------------------------------

    def _note_trouble(self, error: str) -> None:
        if error != self._trouble:
            _log.error("{table}: {error}", table=self._table.label, error=error)
        self._trouble = error
        self._vouched = None

    def _all_is_well(self) -> None:
        if self._trouble is not None:
            _log.info("{table}: the rules hold again", table=self._table.label)
        self._trouble = None
        self._backlog.trust()

    def _note_drift(self, kinds: Counter[str]) -> None:
        """Count and tell what differs, once for each difference however long it takes to mend."""
        news = kinds - self._told
        self._told |= kinds
        for kind in news.elements():
            self._metrics.drift(kind)
        if news:
            _log.warn(
                "{table}: somebody changed the rules ({kinds}); mending",
                table=self._table.label, kinds=", ".join(sorted(news)),
            )
