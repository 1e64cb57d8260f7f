"""The rules that iptables' filter tables must hold, computed without the service's code.

They are written out here as in docs/rules.md; `envelope.firewall.iptables` is used to read what is
there, never to compute what is expected.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envelope.config import Config
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.iptables.snapshot import Snapshot
from tests.kernel.faultyiptables import LOCK, FaultyTools
from tests.kernel.firewallundertest import FAMILY_TOOLS, Kernel
from tests.kernel.iptablesedits import ABOVE, EDITS, FLUSHED, filled, fillings
from tests.kernel.udpprobe import PORT

# Seconds from a session's deadline to the grant's end in the kernel at least; grants of so many
# seconds share an end. And the tolerance.
BACKSTOP = 2
SHARED = 4
NEAR = 4
# Rules of an operator's own baseline (`--baseline=operator`), which reject the test's packets.
OPERATORS = {
    family: [f"-i lo -p {icmp} -j ACCEPT", f"-i lo -p udp -m udp --dport {PORT} -j REJECT "
             f"--reject-with {reject}-port-unreachable"]
    for family, icmp, reject in ((4, "icmp", "icmp"), (6, "ipv6-icmp", "icmp6"))
}


def own_chain(family: int) -> list[str]:
    """The rules of the ENVELOPE chain, with the default options on device lo."""
    icmp, reject = ("icmp", "icmp") if family == 4 else ("ipv6-icmp", "icmp6")
    return [
        "! -i lo -j ACCEPT",
        f"-p {icmp} -j ACCEPT",
        *(["-s fe80::/10 -p udp -m udp --sport 547 --dport 546 -j ACCEPT"] if family == 6 else []),
        "-p tcp -m tcp --dport 8880 -j ACCEPT",
        "-p udp -m udp --dport 53 -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j ACCEPT",
        "-j ENVELOPE-GRANTS",
        "-p tcp -j REJECT --reject-with tcp-reset",
        f"-j REJECT --reject-with {reject}-port-unreachable",
    ]


def end_of(deadline: float) -> int:
    """The last second of a grant; both in seconds of the wall clock."""
    return math.ceil((math.ceil(deadline) + BACKSTOP) / SHARED) * SHARED


def grant(network: str, deadline: float) -> str:
    """The rule of a grant for `network`; `deadline` in seconds of the wall clock."""
    return f"-s {network} -j ENVELOPE-END-{datetime.fromtimestamp(end_of(deadline), UTC):{NAMED}}"


NAMED = "%Y%m%dT%H%M%S"


def end_rule(chain: str) -> str:
    """The rule of the chain that grants of this end jump to, as its name has it."""
    end = datetime.strptime(chain.removeprefix("ENVELOPE-END-"), NAMED)
    return f"-m time --datestop {end:%Y-%m-%dT%H:%M:%S} -j ACCEPT"


# Where nf_conntrack_tcp_loose is remembered.
LOOSE = "ENVELOPE-WAS-LOOSE"


@dataclass
class Others:
    """The rules of other software in one family's filter table, in their order, and its policy."""

    policy: str = "ACCEPT"
    rules: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def flush(self) -> None:
        """Forget all rules, and the policy."""
        self.policy = "ACCEPT"
        self.rules.clear()


def differences(
    seen: Snapshot, family: int, others: Others, baseline: str | None, grants: dict[str, float]
) -> list[str]:
    """The differences between `seen` and what must be there; `baseline` None: nothing is ours."""
    found: list[str] = []

    def expect(what: str, there: Any, wanted: Any) -> None:
        if there != wanted:
            found.append(f"IPv{family} {what}: {there} instead of {wanted}")

    expect("policy", seen.policy, "DROP" if baseline == "service" else others.policy)
    jump = {"service": ["-j ENVELOPE"], "operator": ["-j ENVELOPE-GRANTS"], None: []}[baseline]
    entries = list(seen.rules.get("INPUT", ()))
    place = entries.index(jump[0]) if jump and jump[0] in entries else 0
    expect("INPUT", entries[:place] + entries[place + len(jump):], others.rules["INPUT"])
    expect("the jump", entries[place:place + len(jump)], jump)
    expect("before the jump", [r for r in entries[:place] if not r.endswith("-j DROP")], [])
    expect("FORWARD", list(seen.rules.get("FORWARD", ())), others.rules["FORWARD"])
    ours = {name: rules for name, rules in seen.rules.items() if name.startswith("ENVELOPE")}
    rules = [rule for name, chain in ours.items() if name.startswith("ENVELOPE-GRANTS")
             for rule in chain if not re.search(r"-j ENVELOPE-GRANTS-B\d+$", rule)]
    # When grants are spread over several chains, one rule jumps to each.
    leads = [match[1] for chain in ours.values() for rule in chain
             if (match := re.search(r"-j (ENVELOPE-GRANTS-\S+)$", rule))]
    expect("chains jumped to", sorted(leads), sorted(
        name for name in ours if name.startswith("ENVELOPE-GRANTS-")))
    ends = {name: list(chain) for name, chain in ours.items() if name.startswith("ENVELOPE-END-")}
    expect("the ends", ends, {name: [end_rule(name)] for name in ends})
    theirs = others.rules["ENVELOPE-GRANTS"]
    expect("grants", *_as_near(sorted(r for r in rules if r not in theirs), grants))
    expect("others' among the grants", [r for r in rules if r in theirs], theirs)
    theirs = others.rules["ENVELOPE"]
    chain = list(ours.get("ENVELOPE", ()))
    wanted = own_chain(family) if baseline == "service" else []
    expect("ENVELOPE", [rule for rule in chain if rule not in theirs], wanted)
    expect("others' in ENVELOPE", [rule for rule in chain if rule in theirs], theirs)
    markers = [name for name in ours if name.startswith("ENVELOPE-WAS-")]
    expect("marker of looseness", LOOSE in markers, baseline == "service")
    if baseline == "service":
        expect("markers", [list(ours[name]) for name in markers], [["-j RETURN"]] * 2)
    elif baseline is None:
        expect("our chains", list(ours), [])
    return found


def _as_near(rules: list[str], deadlines: dict[str, float]) -> tuple[list[str], list[str]]:
    """The rules found, and those wanted; an end within NEAR seconds counts as equal.

    On a busy machine the service may read the clock some seconds later than the test.
    """
    wanted = []
    for network, deadline in deadlines.items():
        near = {grant(network, deadline + late) for late in range(-NEAR, NEAR + 1)}
        wanted.append(next(iter(near.intersection(rules)), grant(network, deadline)))
    return rules, sorted(wanted)


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

    def firewall(self, reactor: Any, baseline: str, metrics: Any, wall: Any) -> Any:
        """A firewall over the faulty tool."""
        tools = {name: self._folder / name for name in FAMILY_TOOLS.values()}
        config = Config(device="lo", baseline=baseline, **tools)
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
        self, baseline: str | None, deadlines: dict[int, dict[str, float]], _now: float
    ) -> list[str]:
        """Both families' differences; without a baseline nothing may be ours."""
        return [
            line for family in FAMILY_TOOLS
            for line in differences(self.kernel.snapshot(family), family, self.others[family],
                                    baseline, deadlines[family])
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
        """Remove a rule of others from a chain, if there is one."""
        there = self.others[family].rules[chain]
        if there and chain in self.kernel.snapshot(family).rules:
            words = there.pop(which % len(there))
            self.kernel.run(family, "-D", chain, *words.split())

    def cleared(self) -> None:
        """Our chains were removed, with the rules that others had put into them."""
        for others in self.others.values():
            for chain in ("ENVELOPE", "ENVELOPE-GRANTS"):
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
