"""Services of one backend after another in one network, each killed or stopped before the next."""

from __future__ import annotations

import subprocess
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from pytest_twisted import blockon
from twisted.internet.defer import Deferred

from envelope.config import Config
from envelope.firewall.backends import make_firewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.metrics import new_registry
from tests.kernel.faultynft import NFT
from tests.kernel.firewallundertest import ALL_KINDS, FAMILY_TOOLS, Kernel, NftKernel
from tests.kernel.killablereactor import KillableReactor
from tests.support.environment import need_own_network

CLIENT, CLIENT6, STRANGER = "203.0.113.2", "2001:db8::3", "2001:db8::2"
# The backend of the first service, and of the next.
CHANGES: Final = [*permutations(ALL_KINDS, 2)]
# An operator's own rules for `--baseline=operator` with nftables.
OPERATORS: Final = ("add table inet envelope",
                    "add chain inet envelope input { type filter hook input priority filter; }")


class World:
    """The rules of all backends, and services that use one or another."""

    def __init__(self, folder: Path) -> None:
        need_own_network()
        self.folder = folder
        self.nft, self.legacy = NftKernel(), Kernel("legacy", folder / "lock")
        self.made: list[tuple[KillableReactor, Any]] = []

    def saved(self) -> str:
        """All rules as text; nft's have those of iptables-nft among them."""
        return self.nft.saved() + self.legacy.saved()

    def make(self, kind: str, **options: Any) -> Any:
        """A firewall of one kind, with all backends' tools."""
        if kind == "nftables":
            options.setdefault("firewall", "nftables")
        else:
            paths = {name: Path(f"/usr/sbin/{name}-{kind}") for name in FAMILY_TOOLS.values()}
            options = {"firewall": "iptables", **paths, **options}
        own = KillableReactor()
        made = make_firewall(own, Config(device="lo", **options), FirewallMetrics(new_registry()),
                             "/usr/sbin")
        made._check_every = 0.1
        self.made.append((own, made))
        return made

    async def kill(self) -> None:
        """Kill the last one that was made, as `kill -9` does."""
        own, made = self.made.pop()
        await own.kill()
        made._release()

    def remembers_loose(self) -> bool:
        """Whether some rules tell that connections were picked up midway before."""
        saved = self.saved()
        return "ENVELOPE-WAS-LOOSE" in saved or "chain was_loose {" in saved

    def wipe(self) -> None:
        """Remove all rules, whatever a failed test left."""
        while self.made:
            blockon(Deferred.fromCoroutine(self.kill()))
        subprocess.run([NFT, "flush ruleset"], check=True)
        for family in FAMILY_TOOLS:
            for words in (("-P", "INPUT", "ACCEPT"), ("-P", "FORWARD", "ACCEPT"), ("-F",), ("-X",)):
                subprocess.run([self.legacy.tool(family), *words], check=True)
