"""What is in force in one table, as written and as seen, and the answers that follow from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from envelope.addresses import AddressFamily
from envelope.firewall.cooperate import SLICE, in_turns
from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, KernelTable, Key, Rules, version_of
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.reconcile.demand import Demand

# Callers answered in one turn of the reactor; each goes on to log a line and write to a socket,
# some 0.3 ms.
ANSWERS_A_TURN: Final = 16


class Enforcement:
    """Writes what is wanted, knows what is in force (`grants`), and answers whoever waited for it.
    """

    def __init__(
        self, reactor: IReactorTime, table: KernelTable, demand: Demand, metrics: FirewallMetrics
    ) -> None:
        self._reactor = reactor
        self._table = table
        self._demand = demand
        self._metrics = metrics
        self.grants = Grants()

    async def write(self, mending: Sequence[str], keys: Collection[Key], patience: float) -> None:
        """Apply `mending` and let these networks have the rules that are wanted; or `ToolFailed`.

        In one transaction, of `patience` seconds at most.
        """
        wants = {key: self._demand.wishes.get(key) for key in keys}
        if len(wants) > SLICE:
            await deferLater(self._reactor, 0)
        if mending or wants:
            await self._table.write(mending, self.grants, wants, patience)
        await in_turns(self._reactor, wants.items(), self._note)
        await self._settle([key for key in keys if self._demand.answers.is_awaited(key)])

    async def found(self, grants: Mapping[Key, Rules]) -> None:
        """Take over what a look has found to be in force."""
        many = max(len(grants), len(self.grants)) > SLICE
        self.grants.replace(grants)
        if many:
            await deferLater(self._reactor, 0)
        # A tool that failed to answer may have done its work all the same.
        await self._settle(self._demand.answers.awaited)

    def _note(self, part: list[tuple[Key, Rules]]) -> tuple[()]:
        for key, rules in part:
            self.grants.put(key, rules)
        return ()

    @property
    def differing(self) -> set[Key]:
        """The networks whose rules are not as wanted."""
        return self._demand.wishes.differing(self.grants)

    def over(self, now: float) -> list[Key]:
        """The networks to be shut out that the kernel has shut out by itself (seconds, epoch).

        They let nobody in, though the rules' text may still stand.
        """
        ends = {
            key: self._table.end_of(self.grants.get(key, ()))
            for key in self._demand.answers.revoking
        }
        return [key for key, end in ends.items() if end is not None and end + 1 < now]

    async def _settle(self, keys: Collection[Key]) -> None:
        """Answer those who wait for these keys, as far as they are as wanted; some at a time."""
        for number, key in enumerate(keys):
            if number and number % ANSWERS_A_TURN == 0:
                await deferLater(self._reactor, 0)
            if self._is_settled(key):
                self._demand.met(key)
        for version in self._table.versions:
            self._metrics.grants(AddressFamily.of_version(version), self.grants.networks[version])

    def _is_settled(self, key: Key) -> bool:
        return self._demand.is_met(key, self.grants.get(key, ()))


class Grants(dict[Key, Rules]):
    """Rules by network; `networks` counts them by address family, everyone's aside.

    Changed by `put` and `replace` only, which keep the count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.networks = dict.fromkeys(EVERYONE, 0)

    def put(self, key: Key, rules: Rules) -> None:
        """Note a network's rules; without any it is not let in."""
        there = key in self
        if rules:
            self[key] = rules
        elif there:
            del self[key]
        if there != bool(rules) and key not in NO_CLIENTS:
            self.networks[version_of(key)] += -1 if there else 1

    def replace(self, grants: Mapping[Key, Rules]) -> None:
        """Note that these are all there are."""
        if grants.keys() != self.keys():
            six = sum(":" in key for key in grants) - (EVERYONE[6] in grants)
            four = len(grants) - six - sum(key in grants for key in NO_CLIENTS)
            self.networks = {4: four, 6: six}
        self.clear()
        self.update(grants)
