"""The firewall with iptables and ip6tables, of either kind, driven through iptables-restore."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from envelope.config import Config
from envelope.firewall import grant_key
from envelope.firewall.clocks import WATCH_EVERY, WallClock
from envelope.firewall.generation import TRUST, Certainty, GenerationCounter
from envelope.firewall.iptables.counters import RuleCounters
from envelope.firewall.iptables.ends import END_PREFIX, end_chain, end_rule
from envelope.firewall.iptables.plan import install
from envelope.firewall.iptables.rules import grant_rules
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.iptables.table import FilterTable
from envelope.firewall.iptables.tools import FAMILIES, Paths, Tools
from envelope.firewall.kernelfirewall import CHECK_EVERY, KernelFirewall
from envelope.firewall.leftovers import OtherTable
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import IPV4, Family, RuleChoices
from envelope.firewall.process import IProcessReactor

_log = Logger(namespace="envelope.firewall")


def families_of_this_kernel(proc: Path = Path("/proc/net/if_inet6")) -> tuple[Family, ...]:
    """The address families that the kernel speaks; IPv6 can be compiled or booted away."""
    return FAMILIES if proc.exists() else FAMILIES[:1]


_PLACEHOLDER_END: Final = 0


class IptablesFirewall(KernelFirewall):
    """Both families' filter tables; raises `FirewallError` when a tool is missing."""

    def __init__(
        self,
        reactor: IProcessReactor,
        config: Config,
        metrics: FirewallMetrics,
        search_path: str = "",
        wall: Callable[[], float] = time.time,
        trust: float = TRUST,
        check_every: float = CHECK_EVERY,
        others: Sequence[OtherTable] = (),
    ) -> None:
        self._clock = WallClock(wall, reactor.seconds)
        self._generation = GenerationCounter()
        families = families_of_this_kernel()
        self._counters = [RuleCounters(family.version) for family in families]
        tables = [
            FilterTable(
                family, Tools(reactor, Paths.find(config, family, search_path)), metrics,
                self._clock, config.timeout, counters,
                Certainty(self._generation.number, reactor.seconds, trust),
            )
            for family, counters in zip(families, self._counters, strict=True)
        ]
        super().__init__(reactor, config, metrics, tables, check_every, others)
        self._watching = LoopingCall(self._watch_clock)
        self._watching.clock = reactor

    async def _open(self, choices: RuleChoices) -> None:
        await super()._open(choices)
        self._watching.start(WATCH_EVERY)

    async def _close(self) -> None:
        if self._watching.running:
            self._watching.stop()
        await super()._close()

    def _release(self) -> None:
        super()._release()
        self._generation.close()
        for counters in self._counters:
            counters.close()

    def _watch_clock(self) -> None:
        if steps := self._clock.steps():
            _log.info("wall clock stepped by {step} s; grant ends moved with it",
                      event="clock-stepped", step=sum(steps))
            for _, reconciler in self._tables:
                reconciler.rewrite()


def rules_text(choices: RuleChoices, family: Family) -> str:
    """One family's start as iptables-restore reads it, with a grant shown as a comment; pure."""
    # An empty table: rules of others stay, and are not shown.
    structure = Structure.of(choices, family, "ACCEPT")
    lines = install(Snapshot(exists=True), structure, ())
    tool = "iptables" if family is IPV4 else "ip6tables"
    shown = [f"# {tool}-restore --noflush", "*filter", *lines, "COMMIT"]
    if choices.baseline == "service":
        # Only the kernel tells which these will be.
        shown.append(
            "# ENVELOPE-WAS-ACCEPT remembers INPUT's policy from before; it may be -DROP or -ABSENT"
        )
        if choices.established == "cut":
            shown.append(
                "# ENVELOPE-WAS-LOOSE is added where the start sets nf_conntrack_tcp_loose to 0"
            )
    chain = end_chain(_PLACEHOLDER_END)
    for number, service in enumerate(choices.services):
        key = grant_key(str(family.example), number)
        name = f" for {service.name}" if len(choices.services) > 1 else ""
        for rule in grant_rules(choices, key, _PLACEHOLDER_END):
            rule = rule.replace(str(family.example), "NETWORK").replace(chain, f"{END_PREFIX}TIME")
            shown.append(f"# a grant{name}: -A {structure.leaf(key)} {rule}")
    rule = end_rule(_PLACEHOLDER_END).replace("1970-01-01T00:00:00", "TIME")
    shown.append(f"# its end: -A {END_PREFIX}TIME {rule}")
    return "\n".join(shown)
