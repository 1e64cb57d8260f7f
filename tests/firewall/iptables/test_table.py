"""One family's table over a filter table in memory: when its rules are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.clocks import WallClock
from envelope.firewall.cooperate import SLICE
from envelope.firewall.generation import Certainty
from envelope.firewall.iptables.counters import RuleCounters
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.table import FilterTable
from envelope.firewall.iptables.tools import Paths, Tools
from envelope.firewall.kernel import Seen
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import IPV4, RuleChoices
from envelope.metrics import new_registry
from tests.support.fakeiptables import FakeFilterTable

CHOICES = RuleChoices.of(Config(device="eth0"), (PortRange("tcp", 8880, 8880),))
NOWHERE = Path("/none/such")


class Table:
    """A table whose structure is in force; nobody else changes a rule."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.kernel = FakeFilterTable()
        self.counters = RuleCounters(4)
        tools: Any = Tools(self.clock, Paths(NOWHERE, NOWHERE, NOWHERE, None))
        self.table = FilterTable(
            IPV4, tools, FirewallMetrics(new_registry()), WallClock(self.clock.seconds,
            self.clock.seconds), 60.0, self.counters, Certainty(lambda: 7, self.clock.seconds, 30),
        )
        self.table._source = self
        self.kernel.apply(self.table._first_lines(Snapshot(), CHOICES, False))

    async def text(self, ends: Iterable[int]) -> str:
        return self.kernel.text().replace("by a model", "by a model (nf_tables)", 1)

    def begin_look(self) -> Deferred[Seen[Any] | None]:
        return Deferred.fromCoroutine(self.table.look({}))

    def end_look(self, looking: Deferred[Seen[Any] | None]) -> Seen[Any] | None:
        while not looking.called:
            self.clock.advance(0)
        return looking.result


@pytest.fixture
def table():
    made = Table()
    yield made
    made.counters.close()


def test_a_device_that_is_renamed_during_a_look_is_guarded_by_the_next_one(table: Table) -> None:
    """So many rules take several turns to look through."""
    table.kernel.rules["FORWARD"] += [
        f"-s 10.0.{n >> 8}.{n & 255}/32 -j DROP" for n in range(2 * SLICE)
    ]
    looking = table.begin_look()
    assert not looking.called
    table.table.guard(("wan0",))
    seen = table.end_look(looking)
    assert seen is not None
    assert seen.mending == []
    for mends in (True, False):
        seen = table.end_look(table.begin_look())
        assert seen is not None
        assert any("wan0" in line for line in seen.mending) == mends
        table.kernel.apply(seen.mending)
    assert table.end_look(table.begin_look()) is None
