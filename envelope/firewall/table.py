"""One address family's filter table, kept as it should be.

What is wanted is a mapping from networks to their ends; whatever differs from what is in force
goes into the next transaction, everything at once. A transaction that fails is followed by a
look at the kernel and by the same changes one by one, so that a poisonous one fails alone.
Allowing is given up after a while, revoking never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.config import Network
from envelope.firewall import FirewallError
from envelope.firewall.plan import (
    Key,
    Rules,
    Structure,
    agrees,
    before,
    change,
    end_of,
    grants_in,
    install,
    mend,
    remove,
    wanted_rules,
)
from envelope.firewall.process import IProcessReactor, ToolFailed, ToolTimeout
from envelope.firewall.restorer import ANSWER_WAIT
from envelope.firewall.ruleset import Family, Layout, end_of_grant
from envelope.firewall.snapshot import Snapshot, UnreadableRules
from envelope.firewall.tools import Tools
from envelope.metrics import Metrics

# Seconds after which a grant that could not be made is refused: the contract's 10 s, less a
# margin for the answer itself.
ALLOW_WAIT: Final = 9.0
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 15.0
# A change that has already failed alone may hold others up no longer than this (seconds).
RETRY_WAIT: Final = 2.0

_log = Logger(namespace="envelope.firewall")


class FilterTable:
    """Holds `wanted` against the kernel of one family; everything goes through one loop."""

    def __init__(
        self,
        reactor: IProcessReactor,
        family: Family,
        tools: Tools,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self.family = family
        self.tools = tools
        self._reactor = reactor
        self._metrics = metrics
        self._wall = wall
        self._structure: Structure | None = None
        self._found = Snapshot()
        self._wanted: dict[Key, int] = {}
        # The ends that callers were told are in force.
        self._granted: dict[Network, int] = {}
        self._in_force: dict[Key, Rules] = {}
        self._changed: set[Key] = set()
        self._allowing: dict[Network, list[tuple[Deferred[None], IDelayedCall]]] = {}
        self._revoking: dict[Network, list[Deferred[None]]] = {}
        # Keys of a transaction that failed are tried alone until they succeed; those that failed
        # alone wait for the next retry.
        self._suspects: set[Key] = set()
        self._postponed: set[Key] = set()
        self._must_look = False
        self._working: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._pause = FIRST_PAUSE
        self._trouble: str | None = None
        self._last_seen: bytes | None = None

    # -- the life of the structure ---------------------------------------------------------

    async def install(self, layout: Layout) -> None:
        """Put the baseline in force; raise `FirewallError`, and then nothing is changed."""
        try:
            await self.tools.restorer.probe()
            snapshot = await self.tools.find()
            flows = self.tools.carried_flows(layout, self.family)
            structure = Structure(layout, self.family, before(snapshot), flows)
            # Long over, so that even between its coming and going it lets nobody in.
            probe = wanted_rules(layout, self.family.example, end_of_grant(0.0))
            lines = install(snapshot, structure, probe)
            try:
                await self._apply(lines)
                await self._verify(structure)
            except (ToolFailed, UnreadableRules):
                await self._take_back(snapshot)
                raise
        except (ToolFailed, UnreadableRules) as error:
            await self.tools.restorer.stop()
            raise FirewallError(f"{self.family.label}: {error}") from None
        self._structure, self._found = structure, snapshot

    async def abandon(self) -> None:
        """Take a start back because the other family's failed."""
        self._structure = None
        await self._take_back(self._found)
        await self.tools.restorer.stop()

    async def _verify(self, structure: Structure) -> None:
        lines, kinds = mend(await self._snapshot(), structure)
        if lines:
            raise UnreadableRules(f"the rules do not stand as written ({', '.join(kinds)})")

    async def _take_back(self, found: Snapshot) -> None:
        """Undo a start that failed halfway; what a predecessor left is left to the next start."""
        if found.own_chains:
            return
        try:
            lines = remove(await self._snapshot())
            if lines:
                await self._apply(lines)
            await self.tools.remove_bare_table(self.family, found)
        except (ToolFailed, UnreadableRules) as error:
            _log.error("{family}: rules may be left over: {error}",
                       family=self.family.label, error=str(error))

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""
        structure, self._structure = self._structure, None
        if structure is None:
            await self.tools.restorer.stop()
            return
        self._wanted.clear()
        if self._working is not None:
            await self._working
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        problem = "the rules could not be taken away"
        for _attempt in range(3):
            try:
                snapshot = await self._snapshot()
                lines = self._last_lines(snapshot, structure)
                if lines:
                    await self._apply(lines)
                if structure.layout.on_stop == "restore" and structure.before == "ABSENT":
                    await self.tools.remove_bare_table(self.family, Snapshot())
                break
            except (ToolFailed, UnreadableRules) as error:
                problem = str(error)
        else:
            await self.tools.restorer.stop()
            raise FirewallError(f"{self.family.label}: the rules are still in force: {problem}")
        await self.tools.restorer.stop()
        for network in list(self._allowing):
            self._refuse(network, "the firewall was closed")
        for network in list(self._revoking):
            self._answer_revoked(network)

    @staticmethod
    def _last_lines(snapshot: Snapshot, structure: Structure) -> list[str]:
        if structure.layout.on_stop == "restore":
            return remove(snapshot)
        lines, _ = mend(snapshot, structure)
        for rules in grants_in(snapshot).values():
            lines += change(rules, ())
        return lines

    # -- grants ----------------------------------------------------------------------------

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        answer: Deferred[None] = Deferred()
        if self._structure is None:
            answer.errback(FirewallError("the firewall is closed"))
            return answer
        self._want(network, end_of_grant(until))
        timer = self._reactor.callLater(ALLOW_WAIT, self._give_up, network)
        self._allowing.setdefault(network, []).append((answer, timer))
        self._answer_revoked(network)
        self._work()
        return answer

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        answer: Deferred[None] = Deferred()
        self._revoking.setdefault(network, []).append(answer)
        self._granted.pop(network, None)
        self._want(network, None)
        self._refuse(network, "the grant was revoked before it was in force")
        self._work()
        return answer

    def check(self) -> None:
        """Compare the kernel's rules with ours, at once or when the loop comes to it."""
        if self._structure is not None:
            self._must_look = True
            self._work()

    @property
    def problem(self) -> str | None:
        """What the tool last refused, as long as anything is still refused."""
        if self._trouble is None:
            return None
        waiting = f" ({len(self._revoking)} revocations outstanding)" if self._revoking else ""
        return f"firewall {self.family.label}: {self._trouble}{waiting}"

    @property
    def in_force(self) -> int:
        """How many networks the kernel lets in, as far as is known."""
        return len(self._in_force) - (None in self._in_force)

    def _want(self, key: Key, end: int | None) -> None:
        if end is None:
            self._wanted.pop(key, None)
        else:
            self._wanted[key] = end
        self._changed.add(key)
        if key is not None and self._structure and self._structure.layout.proxy_port:
            ends = (end for other, end in self._wanted.items() if other is not None)
            self._want(None, max(ends, default=None))

    def _give_up(self, network: Network) -> None:
        self._refuse_in_force(network, self._trouble or "the tool did not answer in time")
        self._work()

    def _refuse_in_force(self, network: Network, why: str) -> None:
        """Refuse a grant that cannot be made; one that was granted before keeps its older end."""
        if network in self._allowing:
            self._want(network, self._granted.get(network))
            self._refuse(network, why)

    def _refuse(self, network: Network, why: str) -> None:
        for answer, timer in self._allowing.pop(network, ()):
            if timer.active():
                timer.cancel()
            answer.errback(FirewallError(why))

    def _answer_revoked(self, network: Network) -> None:
        for answer in self._revoking.pop(network, ()):
            answer.callback(None)

    def _settle(self, keys: Iterable[Key]) -> None:
        """Answer those who wait for these keys, as far as they are as wanted."""
        for key in keys:
            if key is None or not self._is_settled(key):
                continue
            if key in self._wanted:
                self._granted[key] = self._wanted[key]
                for answer, timer in self._allowing.pop(key, ()):
                    timer.cancel()
                    answer.callback(None)
            else:
                self._answer_revoked(key)
        self._metrics.grants(self.family.label, self.in_force)

    def _wanted_rules(self, key: Key) -> Rules:
        assert self._structure is not None
        return wanted_rules(self._structure.layout, key, self._wanted.get(key))

    def _is_settled(self, key: Key) -> bool:
        return self._structure is None or agrees(self._in_force, key, self._wanted_rules(key))

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
            while self._structure is not None and (self._must_look or self._changed):
                if self._must_look:
                    if not await self._look(self._structure):
                        break
                else:
                    await self._apply_next()
        finally:
            self._working = None
        self._plan_retry()

    async def _look(self, structure: Structure) -> bool:
        """Read the kernel's rules and mend what differs, in one transaction."""
        try:
            seen = await self.tools.save()
            self._must_look = False
            if seen == self._last_seen and not self._changed:
                return True
            snapshot = Snapshot.parse(seen.decode("utf-8", "replace"))
            lines, kinds = mend(snapshot, structure)
            self._in_force = grants_in(snapshot, self._in_force)
            # A tool that failed to answer may have done its work all the same.
            self._settle((*self._allowing, *self._revoking))
            differing = {
                key for key in (*self._in_force, *self._wanted)
                if not self._is_settled(key)
            }
            for key in differing - self._changed - self._suspects:
                kinds.append("grant" if key in self._wanted else "stray")
            self._note_drift(kinds)
            keys = differing - self._suspects
            self._changed = (self._changed | differing) - keys - self._postponed
            try:
                await self._apply_keys(lines, keys)
            except ToolFailed:
                self._suspects |= keys
                raise
            if not lines and not differing:
                self._last_seen = seen
                if not self._postponed:
                    self._all_is_well()
        except (ToolFailed, UnreadableRules) as error:
            self._must_look = True
            self._note_trouble(str(error))
            return False
        return True

    async def _apply_next(self) -> None:
        """Apply what is wanted: everything unsuspected at once, or one suspect alone."""
        keys = self._changed - self._suspects or {next(iter(self._changed))}
        self._changed -= keys
        try:
            await self._apply_keys([], keys)
        except ToolFailed as error:
            self._must_look = True
            self._note_trouble(str(error))
            self._suspects |= keys
            if len(keys) > 1:
                self._changed |= keys
                return
            (key,) = keys
            self._postponed.add(key)
            if key is not None:
                self._refuse_in_force(key, str(error))
                self._changed.discard(key)
        else:
            self._suspects -= keys
            self._postponed -= keys

    async def _apply_keys(self, lines: list[str], keys: set[Key]) -> None:
        wants = {key: self._wanted_rules(key) for key in keys}
        lines = [*lines]
        for key, want in wants.items():
            lines += change(self._in_force.get(key, ()), want)
        if lines:
            self._last_seen = None
            patient = ANSWER_WAIT if self._pause == FIRST_PAUSE else RETRY_WAIT
            await self._apply(lines, patient)
        for key, want in wants.items():
            if want:
                self._in_force[key] = want
            else:
                self._in_force.pop(key, None)
        self._settle(keys)

    def _plan_retry(self) -> None:
        """After a failure, try again after growing pauses until the kernel agrees."""
        if self._structure is None:
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
        for network in list(self._revoking):
            end = end_of(self._in_force.get(network, ()))
            if end is not None and end + 1 < now:
                # The kernel has ended it by itself: it lets nobody in, though its text stands.
                self._answer_revoked(network)
        self._changed |= self._postponed
        self._postponed.clear()
        self._must_look = True
        self._work()

    def _note_trouble(self, error: str) -> None:
        if error != self._trouble:
            _log.error("{family}: {error}", family=self.family.label, error=error)
        self._trouble = error
        self._last_seen = None

    def _all_is_well(self) -> None:
        if self._trouble is not None:
            _log.info("{family}: the rules hold again", family=self.family.label)
        self._trouble = None
        self._suspects.clear()

    def _note_drift(self, kinds: list[str]) -> None:
        for kind in kinds:
            self._metrics.drift(kind)
        if kinds:
            _log.warn(
                "{family}: somebody changed the rules ({kinds}); mending",
                family=self.family.label, kinds=", ".join(sorted(set(kinds))),
            )

    # -- the tool --------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        return Snapshot.parse((await self.tools.save()).decode("utf-8", "replace"))

    async def _apply(self, lines: list[str], patience: float = ANSWER_WAIT) -> None:
        outcome = "ok"
        try:
            await self.tools.restorer.apply(lines, patience)
        except ToolTimeout:
            outcome = "timeout"
            raise
        except ToolFailed:
            outcome = "failed"
            raise
        finally:
            self._metrics.transaction(self.family.label, outcome)
