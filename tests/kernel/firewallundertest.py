"""The firewall under test, over tools that do as they are told, and what the kernel shows of it."""

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
# The kinds of iptables, and with them every kind of tool.
KINDS = ("nft", "legacy")
ALL_KINDS = (*KINDS, "nftables")
# Seconds that somebody waits for the lock which iptables-legacy's users share.
LOCK_WAIT = 20
FAMILY_TOOLS = {4: "iptables", 6: "ip6tables"}


class Kernel:
    """This network's filter tables, seen and changed with the real tools of one kind.

    `lock` is the file that they lock.
    """

    def __init__(self, kind: str, lock: Path) -> None:
        need_own_network()
        self.kind = kind
        self._environment = {**search_env(), "XTABLES_LOCKFILE": str(lock)}

    def tool(self, family: int, part: str = "") -> str:
        return f"/usr/sbin/{FAMILY_TOOLS[family]}-{self.kind}{part}"

    def run(self, family: int, *words: str) -> None:
        """Do as one command of iptables does."""
        self.change(family, " ".join(words))

    def change(self, family: int, *commands: str) -> None:
        """Do it all in one step, so that nobody mends it halfway; wait for the lock if it is held.

        Raises `CalledProcessError`, and then nothing is done.
        """
        subprocess.run([self.tool(family, "-restore"), "--noflush", "-w", str(LOCK_WAIT)],
                       input="\n".join(("*filter", *commands, "COMMIT", "")), check=True,
                       capture_output=True, text=True, env=self._environment)

    def snapshot(self, family: int) -> Snapshot:
        done = subprocess.run([self.tool(family, "-save"), "-t", "filter"], check=True,
                              capture_output=True, text=True)
        return Snapshot.parse(done.stdout)

    def saved(self) -> str:
        """Both families' rules, without what changes by itself."""
        text = "".join(
            subprocess.run([self.tool(family, "-save"), "-t", "filter"], check=True,
                           capture_output=True, text=True).stdout
            for family in FAMILY_TOOLS
        )
        return "\n".join(x.split(" [")[0] for x in text.splitlines() if not x.startswith("#"))

    def open_networks(self, families: Iterable[int] = (4,)) -> set[object]:
        """The networks whose grants are among the rules."""
        grants = [
            read_grant(rule) for family in families
            for rule in self.snapshot(family).rules.get("ENVELOPE-GRANTS", ())
        ]
        return {ip_network(grant[0]) for grant in grants if grant}


class NftKernel:
    """This network's tables of nftables, seen and changed with the real nft."""

    def __init__(self) -> None:
        need_own_network()

    def run(self, *commands: str) -> str:
        """Do it all in one transaction; what nft prints, rules with their handles."""
        done = subprocess.run([NFT, "-a", "; ".join(commands)], check=True, capture_output=True,
                              text=True)
        return done.stdout

    def saved(self) -> str:
        """All rules, without the time that runs down."""
        return re.sub(r" expires \w+| # handle \d+", "", self.run("list ruleset"))

    def elements(self) -> dict[str, str]:
        """What is in our sets, each with what nft says of it."""
        listed = ",".join(re.findall(r"elements = \{([^}]*)\}", self.run("list ruleset")))
        found = (each.strip().partition(" ") for each in listed.split(",") if each.strip())
        return {name: more for name, _, more in found}

    def open_networks(self, families: Iterable[int] = (4,)) -> set[object]:
        """The networks whose grants are in our sets."""
        names = (name for name in self.elements() if not name.startswith("ipv"))
        return {network for network in map(ip_network, names) if network.version in families}


class FirewallUnderTest:
    """A real firewall over a tool that does as it is told."""

    def __init__(
        self, folder: Path, kind: str, check_every: float = 0.2, **options: Any
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
            more = {"wall": lambda: time.time() + self.clock_set_by}
            tools = {name: folder / name for name in FAMILY_TOOLS.values()}
        self.config = Config(device="lo", **{**tools, **options})
        self.registry = new_registry()
        self.before = self.kernel.saved()
        self.reactor = KillableReactor()
        # Seconds that the service believes the wall clock was set forward by.
        self.clock_set_by = 0.0
        # How often the kernel was asked for the generation of its rules (nftables).
        self.asked = 0
        self.counts = True
        self.firewall = made(
            self.reactor, self.config, FirewallMetrics(self.registry), check_every=check_every,
            **more,
        )

    def drift(self, kind: str) -> float:
        """How many mended differences of `kind` were counted."""
        return self.registry.get_sample_value(
            "envelope_firewall_drift_total", {"kind": kind}) or 0.0

    def transactions(self, family: str = "", outcomes: Iterable[str] = tuple(Outcome)) -> float:
        """How many transactions there were."""
        family = family or self.label
        return sum(
            self.registry.get_sample_value(
                "envelope_firewall_transactions_total", {"family": family, "outcome": outcome}
            ) or 0.0 for outcome in outcomes
        )

    async def at_rest(self) -> None:
        """Wait until nothing runs but the one writer of each table, and it has nothing to do."""
        await settled(lambda: len(self.reactor.children) <= self.writers)

    def _generation(self) -> int | None:
        self.asked += 1
        # The firewall's own, which it closes, whatever its stop comes to.
        return self.firewall._counter.number() if self.counts else None

    async def looked(self, times: int) -> None:
        """Wait for so many looks at nftables, the one under way not among them."""
        already = self.asked
        await settled(lambda: self.asked > already + times)

    async def listed(self) -> None:
        """Make a look at nftables list all there is, since somebody has changed something."""
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
    """A deadline this far away, as the firewall is told it."""
    return reactor.seconds() + seconds


async def settled(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Wait until `condition` holds."""
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        await deferLater(reactor, 0.02)


async def refused(answer: Deferred) -> str:
    """Why it was; an `AssertionError` if it was not."""
    try:
        await answer
    except FirewallError as error:
        return str(error)
    raise AssertionError("it was granted")
