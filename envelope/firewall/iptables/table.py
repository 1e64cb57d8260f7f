"""One address family's filter table, written with iptables-restore and read with iptables-save.

It knows the lines of the structure and of grants; when they change is the reconciler's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envelope.firewall import RulesInForce, Traffic, grant_key
from envelope.firewall.clocks import WallClock
from envelope.firewall.cooperate import in_turns, step_by_step
from envelope.firewall.errors import ToolFailed, UnreadableRules
from envelope.firewall.generation import Certainty
from envelope.firewall.iptables.counters import RuleCounters
from envelope.firewall.iptables.counting import Counting
from envelope.firewall.iptables.doubt import Doubt
from envelope.firewall.iptables.ends import (
    Ends,
    drop_ends,
    end_of_grant,
    make_ends,
    referred,
)
from envelope.firewall.iptables.grants import change, change_all, end_of, grants_in, rearrange
from envelope.firewall.iptables.incremental import Rereader
from envelope.firewall.iptables.plan import ends_in, install, is_all_ours, mend, moved, remove
from envelope.firewall.iptables.reader import Reader
from envelope.firewall.iptables.rules import Rules, grant_rules
from envelope.firewall.iptables.shown import in_force as shown_in_force
from envelope.firewall.iptables.snapshot import Snapshot, written_by_nft
from envelope.firewall.iptables.structure import Structure, before, forget, was_loose
from envelope.firewall.iptables.tools import Tools
from envelope.firewall.kernel import Key, Seen
from envelope.firewall.lifecycle import InstalledTable
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import Family, RuleChoices


class FilterTable(InstalledTable[Snapshot]):
    """A `KernelTable` whose grants are rules; `clock` tells their ends, which are dates.

    `usual` is how long (seconds) most grants last. `certainty` spares readings with iptables-nft;
    the kernel does not count the transactions of iptables-legacy.
    """

    def __init__(
        self, family: Family, tools: Tools, metrics: FirewallMetrics, clock: WallClock,
        usual: float, counters: RuleCounters, certainty: Certainty,
    ) -> None:
        super().__init__(family.label, family.label, tools.restorer, metrics)
        self.family = family
        self.versions: tuple[int, ...] = (family.version,)
        self._tools = tools
        self._clock = clock
        self._structure: Structure | None = None
        self._counting = Counting(tools, family, counters)
        self._source = Reader(family, tools)
        self._reader = Rereader()
        self._ends = Ends(usual)
        self._certainty = certainty
        # Whether the last transaction failed: the next one moves no networks to other chains.
        self._failed = False
        self._doubt = Doubt()
        # Whether the structure was written since it was read last.
        self._mended = True

    @property
    def _standing(self) -> Structure:
        assert self._structure is not None, "the table is installed"
        return self._structure

    # -- the structure ---------------------------------------------------------------------

    async def _read(self) -> Snapshot:
        return await self._source.read()

    async def _read_first(self) -> Snapshot:
        return await self._source.read_first()

    def _first_lines(self, found: Snapshot, choices: RuleChoices, loose: bool) -> list[str]:
        self._structure = Structure.of(choices, self.family, before(found), loose)
        self._counting.listen(choices.prefix(self.family.version))
        # This grant ended long ago: it lets nobody in between its addition and its removal.
        end = end_of_grant(0.0)
        probe = grant_rules(choices, grant_key(str(self.family.example), 0), end)
        return install(found, self._structure, probe, (end,))

    def _marks_loose(self, found: Snapshot) -> bool:
        return was_loose(found)

    def _forget_lines(self) -> list[str]:
        self._structure = replace(self._standing, loose=False)
        return forget()

    async def _confirm(self) -> None:
        # The first look reads them again, and remembers the text.
        now, _ = await self._certainty.read(self._read)
        lines, kinds = mend(now, self._standing)
        lines += moved(now, self._standing)
        if lines:
            raise UnreadableRules(f"the rules do not stand as written ({', '.join(kinds)})")
        await self._counting.find_kind()

    def _as_written(self) -> Snapshot:
        return self._standing.as_written(self._ends.possible)

    def _undo(self, now: Snapshot) -> list[str]:
        return remove(now)

    async def _remove_whole(self, now: Snapshot, found: Snapshot | None) -> bool:
        """Remove the table that our first rule made, with our rules.

        In one step, so that a service killed at it leaves either everything or nothing behind.
        """
        if found is None:
            standing = self._standing
            stays = standing.before != "ABSENT" or standing.choices.on_stop == "keep"
        else:
            stays = found.exists
        return not stays and is_all_ours(now) and await self._tools.remove_table(self.family)

    def _last_lines(self, now: Snapshot) -> list[str]:
        if self._standing.choices.on_stop == "restore":
            return remove(now)
        # The default drop stays in force, without grants, whichever chain they are in.
        structure = self._standing.emptied
        lines, _ = mend(now, structure)
        lines += moved(now, structure)
        grants, astray = grants_in(now, structure)
        for key, rules in grants.items():
            lines += change(structure.leaf(key), rules, ())
        return [*lines, *astray, *drop_ends(ends_in(now.rules))]

    def guard(self, also: tuple[str, ...]) -> None:
        """See `KernelTable`."""
        standing = self._standing
        choices = replace(standing.choices, also_guarded=also)
        self._structure = replace(standing, choices=choices)
        self._certainty.know(None)

    # -- grants ----------------------------------------------------------------------------

    def written(self, key: Key, end: float) -> Rules:
        """See `KernelTable`."""
        return grant_rules(self._standing.choices, key, end_of_grant(self._clock.at(end)))

    def is_over(self, grant: Rules) -> bool:
        """See `KernelTable`."""
        end = end_of(grant)
        return end is not None and end + 1 < self._clock.now()

    def rules(
        self, wanted: Mapping[Key, Rules], in_force: Mapping[Key, Rules]
    ) -> RulesInForce:
        """See `KernelTable`."""
        return shown_in_force(
            self._standing, wanted, in_force, self._reader.others, self._mended
        )

    async def counts(self) -> Mapping[Key, Traffic]:
        """See `KernelTable`."""
        return await self._counting.counts()

    def deleted(self) -> Sequence[tuple[Key, Traffic]]:
        """See `KernelTable`."""
        return self._counting.deleted()

    def lost(self) -> bool:
        """See `KernelTable`."""
        return self._counting.lost()

    async def look(self, in_force: Mapping[Key, Rules]) -> Seen[Rules] | None:
        """See `KernelTable`."""
        if self._certainty.suffices:
            return None
        text, known = await self._certainty.read(lambda: self._source.text(self._ends.possible))
        self._structure = standing = self._doubt.arranged(self._standing, text)
        reading = self._reader.read(text, standing, in_force)
        seen = await step_by_step(self._tools.reactor, reading)
        self._mended = False
        lines, kinds = self._ends.inspect(
            self._reader.ends, lambda: referred(text), self._clock.now()
        )
        seen = replace(seen, mending=[*seen.mending, *lines], kinds=[*seen.kinds, *kinds])
        # The next look sees what mending came to.
        changed = seen.mending or seen.moving or standing is not self._structure
        self._certainty.know(None if changed or not written_by_nft(text) else known)
        self._structure = self._doubt.settled(self._standing, seen.grants, in_force)
        return seen

    async def write(
        self,
        mending: Sequence[str],
        in_force: Mapping[Key, Rules],
        wants: Mapping[Key, Rules | None],
        patience: float,
    ) -> None:
        """See `KernelTable`."""
        now = self._standing
        # Mending puts the chains back as they were; grants move to other chains another time.
        then = now.changed(
            [key for key, want in wants.items() if want is not None],
            [key for key, want in wants.items() if want is None],
            arrange=not (mending or self._failed or self._doubt),
        )
        leaving = [key for key, want in wants.items() if in_force.get(key, want) != want]
        if then == now:
            changes = await in_turns(
                self._tools.reactor, wants.items(),
                lambda part: change_all(now, then, in_force, dict(part)),
            )
        else:
            changes = rearrange(now, then, in_force, wants)
            leaving += now.newest - then.newest - wants.keys()
        making = self._missing(in_force, wants, bool(mending))
        self._failed = True
        self._certainty.know(None)
        await self._counting.before(leaving)
        try:
            await self._apply([*mending, *make_ends(making), *changes], patience)
        except ToolFailed:
            self._doubt.add(then, wants)
            raise
        self._doubt.note(wants)
        self._failed = False
        self._counting.after()
        self._ends.written(making, bool(mending))
        # Where networks moved, the chains were written with them.
        self._mended = self._mended or bool(mending) or then != now
        # The devices may have changed meanwhile.
        same = self._structure is now
        self._structure = then if same else self._standing.with_trees(then.trees)

    def _missing(
        self, in_force: Mapping[Key, Rules], wants: Mapping[Key, Rules | None], mending: bool
    ) -> set[int]:
        """The chains that these grants end by and that are not there yet."""
        now = self._clock.now()
        ends: set[int] = set()
        for key, want in wants.items():
            end = end_of(want) if want else None
            if end is not None:
                ends.add(end)
                if key not in in_force:
                    self._ends.asked_for(end, now)
        return self._ends.missing(ends, now, mending)
