"""The table of `--firewall=nftables`, written and read with nft.

It knows how the structure comes and goes and what grants look like in it; when to change what is
the reconciler's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.firewall import FirewallError
from envelope.firewall.clocks import SteadyClock
from envelope.firewall.cooperate import in_turns, step_by_step
from envelope.firewall.errors import ToolFailed, ToolTimeout, UnreadableRules
from envelope.firewall.flows import carried_flows
from envelope.firewall.kernel import ANSWER_WAIT, Key, Outcome, Rules, Seen, TableLabel
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables.generation import Certainty
from envelope.firewall.nftables.grants import (
    Reading,
    certain,
    end_of,
    ending,
    grants_in,
    milliseconds_left,
)
from envelope.firewall.nftables.plan import Printed, install, last_lines, mend, remove
from envelope.firewall.nftables.rules import Structure, change_elements, probe
from envelope.firewall.nftables.snapshot import NftSnapshot
from envelope.firewall.nftables.tool import Nft
from envelope.firewall.policy import Layout

LABEL: Final = TableLabel.INET
# What nft says, in the words of EMSGSIZE, when nothing of a transaction was taken.
_TOO_LONG: Final = "Message too long"
_UNINSTALL_ATTEMPTS: Final = 3

_log = Logger(namespace="envelope.firewall")


class NftTable:
    """See `envelope.firewall.kernelfirewall.InstalledTable`.

    The kernel counts timeouts with its monotonic clock, so ends are kept in seconds of it; the rest
    of the service names them in seconds since the epoch, which `clock` translates. For `generation`
    and `trust` see `Certainty`: while that suffices, there is nothing to look for.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        nft: Nft,
        metrics: FirewallMetrics,
        clock: SteadyClock,
        generation: Callable[[], int | None],
        trust: float,
    ) -> None:
        self._reactor = reactor
        self._nft = nft
        self._metrics = metrics
        self._clock = clock
        self._certainty = Certainty(generation, clock.now, trust)
        self._standing: tuple[Structure, Printed] | None = None
        self._found = NftSnapshot()
        # Why rules may have stayed in force after a start that failed.
        self._left = ""

    @property
    def label(self) -> TableLabel:
        """See `KernelTable`."""
        return LABEL

    @property
    def versions(self) -> tuple[int, ...]:
        """See `KernelTable`."""
        return (4, 6)

    # -- the life of the structure ---------------------------------------------------------

    async def install(self, layout: Layout) -> None:
        """Put the baseline in force; raise `FirewallError`, and then nothing is changed."""
        try:
            await self._nft.writer.probe()
            snapshot = NftSnapshot.of(await self._nft.show())
            flows = (*carried_flows(layout, 4), *carried_flows(layout, 6))
            structure = Structure(layout, tuple(flow.as_nft for flow in flows))
            lines = install(snapshot, structure, probe())
            try:
                await self._apply(lines)
                output, known = await self._certainty.read(self._nft.show)
                printed = Printed.learn(NftSnapshot.of(output), structure)
            except (ToolFailed, UnreadableRules):
                await self._take_back(snapshot)
                raise
        except (ToolFailed, UnreadableRules, FirewallError) as error:
            await self._nft.writer.stop()
            raise FirewallError(f"nftables: {error}") from None
        self._standing, self._found = (structure, printed), snapshot
        self._certainty.know(known)

    async def abandon(self) -> None:
        """Take a start back because another table's failed."""
        self._standing = None
        await self._take_back(self._found)
        await self._nft.writer.stop()

    async def _take_back(self, found: NftSnapshot) -> None:
        """Undo a start that failed halfway; what a predecessor left is left to the next start."""
        if remove(found):
            self._left = "a killed service's were"
            return
        try:
            lines = remove(NftSnapshot.of(await self._nft.show()))
            if lines:
                await self._apply(lines)
        except (ToolFailed, UnreadableRules) as error:
            self._left = str(error)
            _log.error("nftables: rules may be left over: {error}", error=self._left)

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""
        standing, self._standing = self._standing, None
        problem, self._left = self._left, ""
        if standing is not None:
            problem = await self._take_away(*standing)
        await self._nft.writer.stop()
        if problem:
            raise FirewallError(f"nftables: the rules are still in force: {problem}")

    async def _take_away(self, structure: Structure, printed: Printed) -> str:
        """Try it several times; what is wrong in the end, or nothing."""
        problem = ""
        for _attempt in range(_UNINSTALL_ATTEMPTS):
            try:
                snapshot = NftSnapshot.of(await self._nft.show())
                lines = last_lines(snapshot, structure, printed)
                if lines:
                    await self._apply(lines)
            except (ToolFailed, UnreadableRules) as error:
                problem = str(error)
            else:
                return ""
        return problem

    # -- what the reconciler asks ----------------------------------------------------------

    @property
    def by_time_of_day(self) -> bool:
        """See `KernelTable`."""
        return False

    @property
    def comers_apart(self) -> bool:
        """See `KernelTable`."""
        return False

    def rules(self, key: Key, end: int) -> Rules:  # noqa: ARG002
        """See `KernelTable`."""
        return ending(self._clock.steady(end))

    def end_of(self, rules: Rules) -> int | None:
        """See `KernelTable`."""
        end = end_of(rules)
        return None if end is None else self._clock.of_day(end)

    async def look(self, in_force: Mapping[Key, Rules]) -> Seen | None:
        """See `KernelTable`."""
        assert self._standing is not None, "the table is installed"
        if self._certainty.suffices:
            return None
        begun = self._clock.now()
        output, known = await self._certainty.read(self._nft.show)
        structure, printed = self._standing
        reading = Reading(structure.layout, begun, self._clock.now(), in_force)
        await deferLater(self._reactor, 0)
        snapshot = NftSnapshot.of(output)
        lines, kinds = mend(snapshot, structure, printed)
        grants = await step_by_step(self._reactor, grants_in(snapshot, reading))
        # What mending comes to is looked at again.
        self._certainty.know(None if lines else known)
        return Seen(lines, kinds, grants)

    async def write(
        self,
        mending: Sequence[str],
        in_force: Mapping[Key, Rules],
        wants: Mapping[Key, Rules],
        patience: float,
    ) -> None:
        """See `KernelTable`.

        The kernel may limit how long a transaction is (in a user namespace to some 2,500 grants:
        net.core.wmem_max). Then the grants are changed in several, each whole by itself.
        """
        now = self._clock.now()
        # As long as nobody else has changed the rules there is little to doubt.
        sure = not mending and self._certainty.undisturbed

        def commands(part: list[tuple[Key, Rules]]) -> list[str]:
            standing = certain((key for key, _ in part), in_force, now) if sure else {}
            ends = [(key, milliseconds_left(rules, now)) for key, rules in part]
            return change_elements(ends, standing)

        changes = await in_turns(self._reactor, wants.items(), commands)
        lines = [*mending, *changes]
        try:
            if lines:
                await self._apply(lines, patience)
        except ToolFailed as error:
            if len(wants) < 2 or _TOO_LONG not in str(error):
                raise
            keys = [*wants]
            half = len(keys) // 2
            for part, first in ((keys[:half], mending), (keys[half:], ())):
                await self.write(first, in_force, {key: wants[key] for key in part}, patience)

    async def _apply(self, lines: Sequence[str], patience: float = ANSWER_WAIT) -> None:
        outcome = Outcome.OK
        try:
            with self._certainty.writing():
                await self._nft.writer.apply(lines, patience)
        except ToolTimeout:
            outcome = Outcome.TIMEOUT
            raise
        except ToolFailed:
            outcome = Outcome.FAILED
            raise
        finally:
            self._metrics.transaction(LABEL, outcome)
