"""The firewall under test over faulty tools, and the kernel's rules read with the real tools."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.iptables.rules import read_grant
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.kernel import Outcome
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import NftablesFirewall
from envelope.lab import search_env
from envelope.metrics import new_registry
from tests.kernel.faultyiptables import LOCK, FaultyTools, Orders
from tests.kernel.faultynft import NFT, FaultyNft
from tests.kernel.killablereactor import KillableReactor
from tests.support.environment import need_own_network

SERVICE = (PortRange("tcp", 8880, 8880),)
# The kinds of iptables, and all kinds of tools.
KINDS = ("nft", "legacy")
ALL_KINDS = (*KINDS, "nftables")
# Seconds that our own commands wait for iptables-legacy's lock.
LOCK_WAIT = 20
# What an element of nftables has counted.
COUNTED = r" counter packets \d+ bytes \d+"
FAMILY_TOOLS = {4: "iptables", 6: "ip6tables"}


class Kernel:
    """This network's filter tables, read and changed with the real tools of one kind.

    `lock` is the lock file that they use, as `environment` tells them.
    """

    def __init__(self, kind: str, lock: Path) -> None:
        need_own_network()
        self.kind = kind
        self.environment = {**search_env(), "XTABLES_LOCKFILE": str(lock)}

    def tool(self, family: int, part: str = "") -> str:
        return f"/usr/sbin/{FAMILY_TOOLS[family]}-{self.kind}{part}"

    def run(self, family: int, *words: str) -> None:
        """Run one iptables command, for example `run(4, "-P", "INPUT", "DROP")`."""
        self.change(family, " ".join(words))

    def change(self, family: int, *commands: str) -> None:
        """Run all commands in one transaction, so that no repair comes between; wait for the lock.

        Raises `CalledProcessError`, and then nothing was changed.
        """
        subprocess.run([self.tool(family, "-restore"), "--noflush", "-w", str(LOCK_WAIT)],
                       input="\n".join(("*filter", *commands, "COMMIT", "")), check=True,
                       capture_output=True, text=True, env=self.environment)

    def snapshot(self, family: int) -> Snapshot:
        done = subprocess.run([self.tool(family, "-save"), "-t", "filter"], check=True,
                              capture_output=True, text=True)
        return Snapshot.parse(done.stdout)

    def saved(self) -> str:
        """Both families' rules as text, without comments and counters."""
        text = "".join(
            subprocess.run([self.tool(family, "-save"), "-t", "filter"], check=True,
                           capture_output=True, text=True).stdout
            for family in FAMILY_TOOLS
        )
        return "\n".join(x.split(" [")[0] for x in text.splitlines() if not x.startswith("#"))

    def open_networks(self, families: Iterable[int] = (4,)) -> set[object]:
        """The networks that have a grant in the rules."""
        grants = [
            read_grant(rule) for family in families
            for rule in self.snapshot(family).rules.get("ENVELOPE-GRANTS", ())
        ]
        return {ip_network(grant[0]) for grant in grants if grant}


LOOSE = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")


def is_loose() -> bool:
    """Whether the kernel picks up TCP connections midway."""
    return LOOSE.read_text() != "0\n"


class NftKernel:
    """This network's nftables tables, read and changed with the real nft."""

    def __init__(self) -> None:
        need_own_network()

    def run(self, *commands: str) -> str:
        """Run all commands in one transaction; return nft's output, with the rules' handles."""
        done = subprocess.run([NFT, "-a", "; ".join(commands)], check=True, capture_output=True,
                              text=True)
        return done.stdout

    def saved(self) -> str:
        """All rules as text, without handles, remaining times and what elements have counted."""
        return re.sub(rf" expires \w+| # handle \d+|{COUNTED}", "", self.run("list ruleset"))

    def elements(self) -> dict[str, str]:
        """The elements of our sets, each with nft's text after it (timeout and remaining time)."""
        return {name: more for (_, name), more in self.elements_by_set().items()}

    def elements_by_set(self) -> dict[tuple[str, str], str]:
        """The same, each with the name of its set."""
        printed = re.sub(COUNTED, "", self.run("list ruleset"))
        listed = re.findall(r"set (\S+) {[^{}]*elements = \{([^}]*)\}", printed)
        found = ((name, each.strip().partition(" ")) for name, elements in listed
                 for each in elements.split(",") if each.strip())
        return {(name, element): more for name, (element, _, more) in found}

    def open_networks(self, families: Iterable[int] = (4,)) -> set[object]:
        """The networks that have a grant in our sets."""
        names = (name for name in self.elements() if not name.startswith("ipv"))
        return {network for network in map(ip_network, names) if network.version in families}


class FirewallUnderTest:
    """A real firewall over a faulty tool of one kind.

    `close` closes the firewall, and checks that the kernel's rules are as they were before.
    """

    def __init__(
        self, folder: Path, kind: str, check_every: float = 0.2, before: str | None = None,
        **options: Any,
    ) -> None:
        self.kernel: Any
        self.tools: Orders
        more: dict[str, Any]
        made: Any
        if kind == "nftables":
            self.kernel, self.tools = NftKernel(), FaultyNft(folder)
            made, self.label, self.writers = NftablesFirewall, "inet", 1
            more = {"generation": self._generation}
            tools = {"nft": folder / "nft"}
        else:
            self.kernel, self.tools = Kernel(kind, folder / LOCK), FaultyTools(folder, kind)
            made, self.label, self.writers = IptablesFirewall, "ipv4", len(FAMILY_TOOLS)
            # Tests order a tool to fail at its next reading, so there has to be one.
            more = {"wall": lambda: time.time() + self.clock_set_by, "trust": 0.0}
            tools = {name: folder / name for name in FAMILY_TOOLS.values()}
        self.config = Config(device="lo", **{**tools, **options})
        self.registry = new_registry()
        self.before = self.kernel.saved() if before is None else before
        self.reactor = KillableReactor()
        # Seconds that the firewall's wall clock is ahead of the real one.
        self.clock_set_by = 0.0
        # How often the firewall asked for the generation number of the rules (nftables).
        self.asked = 0
        self.counts = True
        self.firewall = made(
            self.reactor, self.config, FirewallMetrics(self.registry), check_every=check_every,
            **more,
        )

    def drift(self, kind: str) -> float:
        """The number of repaired differences of `kind`, from the metrics."""
        return self.registry.get_sample_value(
            "envelope_firewall_drift_total", {"kind": kind}) or 0.0

    def transactions(self, family: str = "", outcomes: Iterable[str] = tuple(Outcome)) -> float:
        """The number of transactions with these outcomes, from the metrics."""
        family = family or self.label
        return sum(
            self.registry.get_sample_value(
                "envelope_firewall_transactions_total", {"family": family, "outcome": outcome}
            ) or 0.0 for outcome in outcomes
        )

    async def at_rest(self) -> None:
        """Wait until no process runs but the open tool of each table."""
        await settled(lambda: len(self.reactor.children) <= self.writers)

    def _generation(self) -> int | None:
        self.asked += 1
        # The firewall's own counter, which the firewall closes.
        return self.firewall._counter.number() if self.counts else None

    async def looked(self, times: int) -> None:
        """Wait for so many checks of nftables' rules, not counting one that is under way."""
        already = self.asked
        await settled(lambda: self.asked > already + times)

    async def listed(self) -> None:
        """Change a foreign table, and wait until the firewall has listed its own after that."""
        await self.at_rest()
        before = self.tools.shown()
        self.kernel.run("add table ip others", "delete table ip others")
        await settled(lambda: self.tools.shown() > before)
        await self.at_rest()

    def close(self) -> None:
        self.tools.order()
        blockon(self.firewall.close())
        assert self.kernel.saved() == self.before


def later(seconds: float) -> float:
    """A deadline `seconds` ahead, in reactor seconds, as `IFirewall.allow` takes it."""
    return reactor.seconds() + seconds


async def settled(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Wait until `condition` holds; fail after `patience` seconds."""
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, "the condition was not met in time"
        await deferLater(reactor, 0.02)


async def refused(answer: Deferred) -> str:
    """The text of the `FirewallError` that `answer` fails with; anything else is an error."""
    try:
        await answer
    except FirewallError as error:
        return str(error)
    raise AssertionError("the grant succeeded")
