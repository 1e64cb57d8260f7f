"""The table of `--firewall=nftables`, written and read with nft.

It knows the lines of the structure and of grants; when they change is the reconciler's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.firewall import FirewallError, RulesInForce, Traffic
from envelope.firewall.cooperate import SLICE, in_turns, step_by_step
from envelope.firewall.errors import ToolFailed, UnreadableRules
from envelope.firewall.generation import Certainty
from envelope.firewall.kernel import Key, Seen, TableLabel
from envelope.firewall.lifecycle import InstalledTable
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables.counters import ElementCounters, counts_in, keys_of
from envelope.firewall.nftables.grants import (
    EARLIER,
    Reading,
    Second,
    certain,
    grants_in,
    milliseconds_left,
)
from envelope.firewall.nftables.head import openings
from envelope.firewall.nftables.plan import install, last_lines, mend, moved, remove, was_loose
from envelope.firewall.nftables.printed import Printed
from envelope.firewall.nftables.rules import Structure, change_elements, forget, probe
from envelope.firewall.nftables.shown import in_force as shown_in_force
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot
from envelope.firewall.nftables.tool import Nft
from envelope.firewall.policy import BACKSTOP, RuleChoices

# What an nft says that knows no counters in sets.
_NO_COUNTERS: Final = "unexpected counter"
# nft's words for EMSGSIZE, when nothing of a transaction was taken.
_TOO_LONG: Final = "Message too long"

_log = Logger(namespace="envelope.firewall")


class NftTable(InstalledTable[NftSnapshot]):
    """A `KernelTable` whose grants are elements of sets, each with a timeout.

    For `generation` and `trust` see `Certainty`: while that suffices, a look reads nothing.
    """

    versions: tuple[int, ...] = (4, 6)

    def __init__(
        self,
        reactor: IReactorTime,
        nft: Nft,
        metrics: FirewallMetrics,
        generation: Callable[[], int | None],
        trust: float,
        counters: ElementCounters,
    ) -> None:
        super().__init__(TableLabel.INET, "nftables", nft.writer, metrics)
        self._reactor = reactor
        self._nft = nft
        self._certainty = Certainty(generation, reactor.seconds, trust)
        self._counters = counters
        self._can_count = True
        # What deleted elements had counted that nobody has asked for yet.
        self._deleted: list[tuple[Key, Traffic]] = []
        # Grants whose element may have run out, with its counter, before it was replaced.
        self._run_out: set[Key] = set()
        self._structure: Structure | None = None
        self._printed: Printed | None = None
        # What the last look found, without elements; None once the structure was written again.
        self._seen: NftSnapshot | None = None

    @property
    def _standing(self) -> tuple[Structure, Printed]:
        assert self._structure is not None, "the table is installed"
        assert self._printed is not None, "the table is installed"
        return self._structure, self._printed.guarding(self._structure)

    # -- the structure ---------------------------------------------------------------------

    async def install(self, choices: RuleChoices, loose: bool) -> None:
        """See `InstalledTable`; with an nft that knows no counters in sets, nothing is counted."""
        try:
            await super().install(choices, loose)
        except FirewallError as error:
            if _NO_COUNTERS not in str(error):
                raise
            _log.warn("nft is too old to count what grants let in (before 0.9.5)")
            self._can_count = False
            await super().install(choices, loose)

    async def _read(self) -> NftSnapshot:
        return NftSnapshot.of(await self._nft.show())

    def _first_lines(self, found: NftSnapshot, choices: RuleChoices, loose: bool) -> list[str]:
        self._structure = Structure(choices, loose, self._can_count)
        self._counters.listen()
        return install(found, self._structure, probe())

    def _marks_loose(self, found: NftSnapshot) -> bool:
        return was_loose(found)

    def _forget_lines(self) -> list[str]:
        structure, _ = self._standing
        self._structure = replace(structure, loose=False)
        return forget(structure)

    async def _confirm(self) -> None:
        assert self._structure is not None, "the lines of the structure were made"
        output, known = await self._certainty.read(self._nft.show)
        self._printed = Printed.learn(NftSnapshot.of(output), self._structure)
        self._certainty.know(known)

    def _as_written(self) -> NftSnapshot:
        structure, printed = self._standing
        if structure.choices.baseline == "operator" or structure.choices.on_stop == "keep":
            raise UnreadableRules("the handles of its rules are not known")
        return NftSnapshot(True, (), {}, {name: Chain() for name in printed.chains})

    def _undo(self, now: NftSnapshot) -> list[str]:
        return remove(now)

    def _last_lines(self, now: NftSnapshot) -> list[str]:
        return last_lines(now, *self._standing)

    async def _write_lines(self, lines: Sequence[str], patience: float) -> None:
        with self._certainty.writing():
            await self._nft.writer.apply(lines, patience)

    def guard(self, also: tuple[str, ...]) -> None:
        """See `KernelTable`."""
        structure, _ = self._standing
        choices = replace(structure.choices, also_guarded=also)
        self._structure = replace(structure, choices=choices)
        self._certainty.know(None)

    # -- grants ----------------------------------------------------------------------------

    def written(self, key: Key, end: float) -> Second:  # noqa: ARG002
        """See `KernelTable`."""
        return float(math.ceil(end) + BACKSTOP)

    def is_over(self, grant: Second) -> bool:
        """See `KernelTable`."""
        return grant + 1 < self._reactor.seconds()

    def rules(
        self, wanted: Mapping[Key, Second], in_force: Mapping[Key, Second]
    ) -> RulesInForce:
        """See `KernelTable`."""
        return shown_in_force(*self._standing, wanted, in_force, self._seen)

    async def counts(self) -> Mapping[Key, Traffic]:
        """See `KernelTable`; where this process may not ask the kernel, nft does."""
        structure, _ = self._standing
        found: dict[Key, Traffic] = {}
        known = 0
        try:
            for name in structure.sets:
                for part in self._counters.counts(name):
                    found.update(keys_of(part, structure.choices))
                    if len(found) - known >= SLICE // 2:
                        known = len(found)
                        await deferLater(self._reactor, 0)
        except OSError:
            steps = counts_in(NftSnapshot.of(await self._nft.show()), structure.choices)
            return await step_by_step(self._reactor, steps)
        return found

    def deleted(self) -> Sequence[tuple[Key, Traffic]]:
        """See `KernelTable`."""
        self._hear()
        deleted, self._deleted = self._deleted, []
        return deleted

    def lost(self) -> bool:
        """See `KernelTable`."""
        return self._counters.lost()

    def _hear(self) -> None:
        """Take what the kernel has told of deleted elements, before its buffer is full."""
        for key, traffic in keys_of(self._counters.deleted(), self._standing[0].choices):
            self._deleted.append((key, replace(traffic, exact=key not in self._run_out)))

    async def look(self, in_force: Mapping[Key, Second]) -> Seen[Second] | None:
        """See `KernelTable`."""
        self._hear()
        structure, printed = self._standing
        if self._certainty.suffices:
            return None
        begun = self._reactor.seconds()
        output, known = await self._certainty.read(self._nft.show)
        reading = Reading(structure.choices, begun, self._reactor.seconds(), in_force)
        await deferLater(self._reactor, 0)
        snapshot = NftSnapshot.of(output)
        lines, kinds = mend(snapshot, structure, printed)
        moving = moved(snapshot, printed)
        grants = await step_by_step(self._reactor, grants_in(snapshot, reading))
        self._seen = replace(snapshot, sets={
            name: replace(shown, elements="") for name, shown in snapshot.sets.items()
        })
        # The next look sees what mending came to.
        changed = lines or moving or structure is not self._structure
        self._certainty.know(None if changed else known)
        return Seen(lines, kinds, grants, moving, openings(snapshot, printed.chains))

    async def write(
        self,
        mending: Sequence[str],
        in_force: Mapping[Key, Second],
        wants: Mapping[Key, Second | None],
        patience: float,
    ) -> None:
        """See `KernelTable`.

        The kernel may limit how long a transaction is (in a user namespace to some 2,500 grants:
        net.core.wmem_max). Then the grants are changed in several, each whole by itself.
        """
        now = self._reactor.seconds()
        self._hear()
        self._run_out = {key for key in wants if in_force.get(key, math.inf) < now + EARLIER}
        # While nobody else has changed the rules, most elements are certain.
        sure = not mending and self._certainty.undisturbed

        def commands(part: list[tuple[Key, Second | None]]) -> list[str]:
            standing = certain((key for key, _ in part), in_force, now) if sure else {}
            ends = [(key, milliseconds_left(end, now)) for key, end in part]
            return change_elements(ends, standing)

        changes = await in_turns(self._reactor, wants.items(), commands)
        try:
            await self._apply([*mending, *changes], patience)
        except ToolFailed as error:
            if len(wants) < 2 or _TOO_LONG not in str(error):
                raise
            keys = [*wants]
            half = len(keys) // 2
            for part, first in ((keys[:half], mending), (keys[half:], ())):
                await self.write(first, in_force, {key: wants[key] for key in part}, patience)
        if mending:
            self._seen = None
