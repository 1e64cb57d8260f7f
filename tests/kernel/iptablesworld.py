"""Both families' filter tables for the state machine, with rules of others and a faulty tool."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from envelope.config import Config
from envelope.firewall.iptables import IptablesFirewall
from tests.kernel.faultyiptables import LOCK, FaultyTools
from tests.kernel.firewallundertest import FAMILY_TOOLS, Kernel
from tests.kernel.iptablesedits import ABOVE, EDITS, FLUSHED, filled, fillings
from tests.kernel.iptablesmodel import LOOSE, Others, differences
from tests.kernel.modelservices import Grants, Guarded
from tests.kernel.udpprobe import PORT

# Rules of an operator's own baseline (`--baseline=operator`), which reject the test's packets.
OPERATORS = {
    family: [f"-i lo -p {icmp} -j ACCEPT", f"-i lo -p udp -m udp "
             f"--dport {PORT}:{PORT + 9} -j REJECT --reject-with {reject}-port-unreachable"]
    for family, icmp, reject in ((4, "icmp", "icmp"), (6, "ipv6-icmp", "icmp6"))
}


class IptablesWorld:
    """Both families' filter tables, with rules of others, and a faulty tool of one kind.

    `nftablesmodel.NftWorld` has the same attributes and methods for nftables.
    """

    edits = tuple(EDITS)
    families = tuple(FAMILY_TOOLS)
    # As the metrics name them.
    tables = ("ipv4", "ipv6")
    # Orders that make the tool report success for a change that it dropped.
    silent_failures: frozenset[str] = frozenset()
    baselines: tuple[str, ...] = ("service", "service", "operator")
    # Seconds of the service's clock in one real second, so that its time-outs take less time.
    speed = 4.0
    # Seconds of the service's clock between two checks of the kernel's rules.
    check_every = 0.4

    def __init__(self, folder: Path, kind: str) -> None:
        self.kernel = Kernel(kind, folder / LOCK)
        self.tools = FaultyTools(folder, kind)
        self.others = {family: Others() for family in FAMILY_TOOLS}
        self._folder = folder
        self._number = 0

    def firewall(
        self, reactor: Any, baseline: str, guarded: Guarded, metrics: Any, wall: Any
    ) -> Any:
        """A firewall over the faulty tool."""
        tools = {name: self._folder / name for name in FAMILY_TOOLS.values()}
        config = Config(device="lo", baseline=baseline, subject=guarded.subjects, **tools)
        return IptablesFirewall(reactor, config, metrics, wall=wall,
                                check_every=self.check_every, trust=self.check_every)

    def begin(self, policy: str, rules: bool) -> None:
        """Prepare the kernel for the first start: INPUT's policy, and perhaps rules of others."""
        for family, others in self.others.items():
            others.policy = policy
            self.kernel.run(family, "-P", "INPUT", policy)
            for chain in ("INPUT", "FORWARD") if rules else ():
                self.add(family, chain, "-A")

    def keep_refusing(self, baseline: str) -> None:
        """Make sure that an operator's own baseline is there, which rejects the test's packets."""
        for family, others in self.others.items():
            for words in OPERATORS[family] if baseline == "operator" else ():
                if words not in others.rules["INPUT"]:
                    self.kernel.run(family, "-A", "INPUT", *words.split())
                    others.rules["INPUT"].append(words)

    def differences(
        self,
        baseline: str | None,
        guarded: Guarded,
        deadlines: dict[int, Grants],
        _now: float,
    ) -> list[str]:
        """Both families' differences; without a baseline nothing may be ours."""
        return [
            line for family in FAMILY_TOOLS
            for line in differences(self.kernel.snapshot(family), family, self.others[family],
                                    baseline, guarded, deadlines[family])
        ]

    def add(self, family: int, chain: str, where: str) -> None:
        """Add a rule of others to a chain, if the chain exists."""
        self._number += 1
        source = {4: f"198.51.100.{self._number % 250 + 1}/32",
                  6: f"2001:db8:1::{self._number:x}/128"}[family]
        if chain in self.kernel.snapshot(family).rules:
            words = f"-s {source} -j DROP"
            self.kernel.run(family, where, chain, *words.split())
            there = self.others[family].rules[chain]
            there.insert(0 if where == "-I" else len(there), words)

    def remove(self, family: int, chain: str, which: int) -> None:
        """Remove a rule of others from a chain, if there is one.

        The operator's own baseline keeps its order: were its REJECT the first, it would be a ban.
        """
        there = self.others[family].rules[chain]
        removable = [rule for rule in there if rule not in OPERATORS[family]]
        if removable and chain in self.kernel.snapshot(family).rules:
            words = removable[which % len(removable)]
            there.remove(words)
            self.kernel.run(family, "-D", chain, *words.split())

    def cleared(self) -> None:
        """Our chains were removed, with the rules that others had put into them."""
        for others in self.others.values():
            for chain in ("ENVELOPE", "ENVELOPE-GRANTS", "ENVELOPE-GRANTS-S1"):
                others.rules.pop(chain, None)

    def forgotten(self) -> None:
        """Expect the policy that a successor will find: the service died after others' deletions.

        It takes INPUT's first policy from the marker chain if there is one, else from INPUT.
        """
        for family, others in self.others.items():
            seen = self.kernel.snapshot(family)
            marks = [name for name in seen.rules
                     if name.startswith("ENVELOPE-WAS-") and name != LOOSE]
            mark = marks[0].removeprefix("ENVELOPE-WAS-") if marks else seen.policy
            others.policy = "ACCEPT" if mark == "ABSENT" else mark

    def remembers_loose(self) -> bool:
        """Whether a family's rules tell that connections were picked up midway before."""
        return any(LOOSE in self.kernel.snapshot(family).rules for family in FAMILY_TOOLS)

    def wipe(self) -> None:
        """Remove all rules."""
        for family in FAMILY_TOOLS:
            self.kernel.change(family, "-F", "-X", "-P INPUT ACCEPT")

    def add_everywhere(self, family: int) -> None:
        """Make sure that others have a rule in every chain."""
        for chain in ("INPUT", "FORWARD", "ENVELOPE", "ENVELOPE-GRANTS"):
            if not self.others[family].rules[chain]:
                self.add(family, chain, "-A")

    def edit(self, family: int, what: str, baseline: str) -> None:
        """Change our rules as `EDITS` says; do nothing if its target does not exist."""
        others = self.others[family]
        made = fillings(self.kernel.snapshot(family).rules, family, baseline)
        if what == "delete the table":
            if self.kernel.kind != "nft":
                return
            name = {4: "ip", 6: "ip6"}[family]
            subprocess.run(["/usr/sbin/nft", f"delete table {name} filter"], capture_output=True)
        if commands := filled(what, made):
            # The edit's target may not exist.
            with suppress(subprocess.CalledProcessError):
                self.kernel.change(family, *commands)
        if what in FLUSHED:
            others.rules.pop(FLUSHED[what], None)
        if what == ABOVE:
            others.rules["INPUT"].insert(0, commands[0].removeprefix("-I INPUT 1 "))
        if what in ("flush everything", "delete the table"):
            policy = others.policy
            others.flush()
            if baseline == "service":
                # The service remembers INPUT's policy from before the first start.
                others.policy = policy
        if what == "reset the policy" and baseline == "operator":
            others.policy = "ACCEPT"
