"""One address family's filter table, written with iptables-restore and read with iptables-save.

It knows how the structure comes and goes and what grants look like in it; when to change what is
the reconciler's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from twisted.logger import Logger

from envelope.firewall import FirewallError
from envelope.firewall.cooperate import in_turns, step_by_step
from envelope.firewall.errors import ToolFailed, ToolTimeout, UnreadableRules
from envelope.firewall.iptables.grants import change, change_all, end_of, grants_in, should_spread
from envelope.firewall.iptables.incremental import Rereader
from envelope.firewall.iptables.plan import Structure, before, install, is_all_ours, mend, remove
from envelope.firewall.iptables.rules import GRANTS, grant_rules
from envelope.firewall.iptables.snapshot import Snapshot, text_of
from envelope.firewall.iptables.tools import Tools
from envelope.firewall.kernel import (
    ANSWER_WAIT,
    NO_CLIENTS,
    Key,
    Outcome,
    Rules,
    Seen,
    TableLabel,
    key_of,
)
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import Family, Layout, end_of_grant

_log = Logger(namespace="envelope.firewall")

_UNINSTALL_ATTEMPTS = 3


class FilterTable:
    """See `envelope.firewall.kernel.KernelTable`; `install` comes first, `uninstall` last."""

    def __init__(self, family: Family, tools: Tools, metrics: FirewallMetrics) -> None:
        self.family = family
        self.tools = tools
        self._metrics = metrics
        self._structure: Structure | None = None
        self._found = Snapshot()
        # Why rules may have stayed in force after a start that failed.
        self._left = ""
        self._reader = Rereader()

    @property
    def label(self) -> TableLabel:
        """See `KernelTable`."""
        return self.family.label

    @property
    def versions(self) -> tuple[int, ...]:
        """See `KernelTable`."""
        return (self.family.version,)

    # -- the life of the structure ---------------------------------------------------------

    async def install(self, layout: Layout) -> None:
        """Put the baseline in force; raise `FirewallError`, and then nothing is changed."""
        try:
            await self.tools.restorer.probe()
            snapshot = await self.tools.find()
            flows = self.tools.carried_flows(layout, self.family)
            structure = Structure(layout, self.family, before(snapshot), flows)
            # Long over, so that even between its coming and going it lets nobody in.
            probe = grant_rules(layout, key_of(self.family.example), end_of_grant(0.0))
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
        lines, kinds = mend(Snapshot.of(await self.tools.save()), structure)
        if lines:
            raise UnreadableRules(f"the rules do not stand as written ({', '.join(kinds)})")

    async def _take_back(self, found: Snapshot) -> None:
        """Undo a start that failed halfway; what a predecessor left is left to the next start."""
        if found.own_chains:
            self._left = "a killed service's were"
            return
        try:
            now = Snapshot.of(await self.tools.save())
            if await self._table_goes(now, found.exists):
                return
            lines = remove(now)
            if lines:
                await self._apply(lines)
        except (ToolFailed, UnreadableRules) as error:
            self._left = str(error)
            _log.error("{family}: rules may be left over: {error}",
                       family=self.family.label, error=self._left)

    async def _table_goes(self, now: Snapshot, stays: bool) -> bool:
        """Remove the whole table that our first rule made, with our rules; whether it is done.

        In one step, so that whoever is killed at it leaves either everything or nothing behind.
        """
        return not stays and is_all_ours(now) and await self.tools.remove_table(self.family)

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""
        structure, self._structure = self._structure, None
        problem, self._left = self._left, ""
        if structure is not None:
            problem = await self._take_away(structure)
        await self.tools.restorer.stop()
        if problem:
            raise FirewallError(f"{self.family.label}: the rules are still in force: {problem}")

    async def _take_away(self, structure: Structure) -> str:
        """Try it several times; what is wrong in the end, or nothing."""
        problem = ""
        for _attempt in range(_UNINSTALL_ATTEMPTS):
            try:
                snapshot = Snapshot.of(await self.tools.save())
                stays = structure.before != "ABSENT" or structure.layout.on_stop == "keep"
                if await self._table_goes(snapshot, stays):
                    return ""
                lines = _last_lines(snapshot, structure)
                if lines:
                    await self._apply(lines)
            except (ToolFailed, UnreadableRules) as error:
                problem = str(error)
            else:
                return ""
        return problem

    # -- what the reconciler asks ----------------------------------------------------------

    @property
    def _standing(self) -> Structure:
        assert self._structure is not None, "the table is installed"
        return self._structure

    @property
    def by_time_of_day(self) -> bool:
        """See `KernelTable`."""
        return True

    @property
    def comers_apart(self) -> bool:
        """See `KernelTable`."""
        # nft_compat waits for what was deleted before it adds a match such as `-m time`: 12 to
        # 15 ms (`python -m benchmarks.behind`), in which everybody waits who is in the transaction.
        return True

    def rules(self, key: Key, end: int) -> Rules:
        """See `KernelTable`."""
        return grant_rules(self._standing.layout, key, end)

    def end_of(self, rules: Rules) -> int | None:
        """See `KernelTable`."""
        return end_of(rules)

    async def look(self, in_force: Mapping[Key, Rules]) -> Seen | None:
        """See `KernelTable`."""
        text = text_of(await self.tools.save())
        reading = self._reader.read(text, self._standing, in_force)
        return await step_by_step(self.tools.reactor, reading)

    async def write(
        self,
        mending: Sequence[str],
        in_force: Mapping[Key, Rules],
        wants: Mapping[Key, Rules],
        patience: float,
    ) -> None:
        """See `KernelTable`."""
        now = self._standing
        networks = len(in_force) + sum(
            bool(want) - (key in in_force)
            for key, want in wants.items() if key not in NO_CLIENTS
        )
        # What has to be mended is mended as it stands, and moved another time.
        then = now if mending else replace(now, spread=should_spread(now, networks))
        if then == now:
            changes = await in_turns(
                self.tools.reactor, wants.items(),
                lambda part: change_all(now, now, in_force, dict(part)),
            )
        else:
            changes = change_all(now, then, in_force, wants)
        lines = [*mending, *changes]
        if lines:
            await self._apply(lines, patience)
        if self._structure is now:
            self._structure = then

    async def _apply(self, lines: Sequence[str], patience: float = ANSWER_WAIT) -> None:
        outcome = Outcome.OK
        try:
            await self.tools.restorer.apply(lines, patience)
        except ToolTimeout:
            outcome = Outcome.TIMEOUT
            raise
        except ToolFailed:
            outcome = Outcome.FAILED
            raise
        finally:
            self._metrics.transaction(self.family.label, outcome)


def _last_lines(snapshot: Snapshot, structure: Structure) -> list[str]:
    if structure.layout.on_stop == "restore":
        return remove(snapshot)
    # The default drop stays in force, without grants, wherever these are.
    structure = replace(structure, spread=False)
    lines, _ = mend(snapshot, structure)
    grants, astray = grants_in(snapshot, structure)
    for rules in grants.values():
        lines += change(GRANTS, rules, ())
    return [*lines, *astray]
