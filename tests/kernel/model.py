"""What the kernel should hold, told by other means than the service's, and compared with it.

The rules are spelled out here as the README has them; nothing of `envelope.firewall.ruleset` or
`plan` is used to say what is expected.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from envelope.firewall.snapshot import Snapshot
from tests.kernel.subject import FAMILY_TOOLS, Kernel
from tests.kernel.udp import PORT

# Seconds between a session's deadline and its end in the kernel.
BACKSTOP = 4
NEAR = 4
# An operator's own baseline (`--baseline=operator`), which refuses packets and says so.
OPERATORS = {
    family: [f"-i lo -p {icmp} -j ACCEPT", f"-i lo -p udp -m udp --dport {PORT} -j REJECT "
             f"--reject-with {reject}-port-unreachable"]
    for family, icmp, reject in ((4, "icmp", "icmp"), (6, "ipv6-icmp", "icmp6"))
}


def own_chain(family: int) -> list[str]:
    """The ENVELOPE chain, with the default options on device lo."""
    icmp, reject = ("icmp", "icmp") if family == 4 else ("ipv6-icmp", "icmp6")
    return [
        "! -i lo -j ACCEPT",
        f"-p {icmp} -j ACCEPT",
        "-p tcp -m tcp --dport 8880 -j ACCEPT",
        "-p udp -m udp --dport 53 -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j ACCEPT",
        "-j ENVELOPE-GRANTS",
        f"-j REJECT --reject-with {reject}-port-unreachable",
    ]


def grant(network: str, deadline: float) -> str:
    """A grant's rule."""
    end = datetime.fromtimestamp(math.ceil(deadline) + BACKSTOP, UTC)
    return f"-s {network} -m time --datestop {end:%Y-%m-%dT%H:%M:%S} -j ACCEPT"


@dataclass
class Others:
    """What other software has in one family's filter table: its rules in order, its policy."""

    policy: str = "ACCEPT"
    rules: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def flush(self) -> None:
        """All of it goes."""
        self.policy = "ACCEPT"
        self.rules.clear()


def differences(
    seen: Snapshot, family: int, others: Others, baseline: str | None, grants: dict[str, float]
) -> list[str]:
    """What the kernel holds against what it should; `baseline` is None when nothing is ours."""
    found: list[str] = []

    def expect(what: str, there: Any, wanted: Any) -> None:
        if there != wanted:
            found.append(f"IPv{family} {what}: {there} instead of {wanted}")

    expect("policy", seen.policy, "DROP" if baseline == "service" else others.policy)
    jump = {"service": ["-j ENVELOPE"], "operator": ["-j ENVELOPE-GRANTS"], None: []}[baseline]
    expect("INPUT", list(seen.rules.get("INPUT", ())), jump + others.rules["INPUT"])
    expect("FORWARD", list(seen.rules.get("FORWARD", ())), others.rules["FORWARD"])
    ours = {name: rules for name, rules in seen.rules.items() if name.startswith("ENVELOPE")}
    rules = [rule for name, chain in ours.items() if name.startswith("ENVELOPE-GRANTS")
             for rule in chain if not re.search(r"-j ENVELOPE-GRANTS-[0-3]+$", rule)]
    # Where grants are spread over chains, one rule leads to each.
    leads = [match[1] for chain in ours.values() for rule in chain
             if (match := re.search(r"-j (ENVELOPE-GRANTS-[0-3]+)$", rule))]
    expect("chains led to", sorted(leads), sorted(
        name for name in ours if name.startswith("ENVELOPE-GRANTS-")))
    theirs = others.rules["ENVELOPE-GRANTS"]
    expect("grants", *_as_near(sorted(r for r in rules if r not in theirs), grants))
    expect("others' among the grants", [r for r in rules if r in theirs], theirs)
    theirs = others.rules["ENVELOPE"]
    chain = list(ours.get("ENVELOPE", ()))
    wanted = own_chain(family) if baseline == "service" else []
    expect("ENVELOPE", [rule for rule in chain if rule not in theirs], wanted)
    expect("others' in ENVELOPE", [rule for rule in chain if rule in theirs], theirs)
    markers = [name for name in ours if name.startswith("ENVELOPE-WAS-")]
    if baseline == "service":
        expect("markers", len(markers), 1)
    elif baseline is None:
        expect("our chains", list(ours), [])
    return found


def _as_near(rules: list[str], deadlines: dict[str, float]) -> tuple[list[str], list[str]]:
    """The rules that there are, and those that there should be, with the same ends if near.

    A busy machine may hold the service up between two looks at the clock.
    """
    wanted = []
    for network, deadline in deadlines.items():
        near = {grant(network, deadline + late) for late in range(-NEAR, NEAR + 1)}
        wanted.append(next(iter(near.intersection(rules)), grant(network, deadline)))
    return rules, sorted(wanted)


# What somebody may do to what is ours, by its name: the tool's words, and whether all goes.
EDITS: dict[str, list[list[str]]] = {
    "flush our chain": [["-F", "ENVELOPE"]],
    "flush the grants": [["-F", "ENVELOPE-GRANTS"]],
    "delete the jump": [["-D", "INPUT", "-j", "{entry}"]],
    "flush INPUT": [["-F", "INPUT"]],
    "double the jump": [["-A", "INPUT", "-j", "{entry}"]],
    "delete our third rule": [
        ["-D", "ENVELOPE", "-p", "tcp", "-m", "tcp", "--dport", "8880", "-j", "ACCEPT"]],
    "delete our last rule": [["-D", "ENVELOPE", "-j", "REJECT", "--reject-with", "{reject}"]],
    "a stray grant": [["-A", "ENVELOPE-GRANTS", "-s", "{stray}", "-m", "time", "--datestop",
                       "2030-01-01T00:00:00", "-j", "ACCEPT"]],
    "remove the marker": [["-F", "{marker}"], ["-X", "{marker}"]],
    "reset the policy": [["-P", "INPUT", "ACCEPT"]],
    "flush everything": [["-F"], ["-X"], ["-P", "INPUT", "ACCEPT"]],
    "delete the table": [],
}


def edit(kernel: Kernel, family: int, what: str, others: Others, baseline: str) -> None:
    """Do it, as far as there is anything to do it to, and note what it does to the others."""
    seen = kernel.snapshot(family)
    marker = next((name for name in seen.rules if name.startswith("ENVELOPE-WAS-")), "none")
    stray = {4: "203.0.113.99/32", 6: "2001:db8::99/128"}[family]
    entry = "ENVELOPE" if baseline == "service" else "ENVELOPE-GRANTS"
    reject = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}[family]
    if what == "delete the table":
        if kernel.kind != "nft":
            return
        name = {4: "ip", 6: "ip6"}[family]
        subprocess.run(["/usr/sbin/nft", f"delete table {name} filter"], capture_output=True)
    for words in EDITS[what]:
        filled = [word.format(stray=stray, marker=marker, entry=entry, reject=reject)
                  for word in words]
        subprocess.run([kernel.tool(family), *filled], capture_output=True)
    flushed = {"flush our chain": "ENVELOPE", "flush the grants": "ENVELOPE-GRANTS",
               "flush INPUT": "INPUT"}.get(what)
    if flushed:
        others.rules.pop(flushed, None)
    if what in ("flush everything", "delete the table"):
        policy = others.policy
        others.flush()
        if baseline == "service":
            # What INPUT was like before the first start, the service remembers.
            others.policy = policy
    if what == "reset the policy" and baseline == "operator":
        others.policy = "ACCEPT"


def remembered_policy(kernel: Kernel, family: int) -> str:
    """What a successor will take for INPUT's policy from before: as marked, or as it stands."""
    seen = kernel.snapshot(family)
    marks = [name for name in seen.rules if name.startswith("ENVELOPE-WAS-")]
    mark = marks[0].removeprefix("ENVELOPE-WAS-") if marks else seen.policy
    return "ACCEPT" if mark == "ABSENT" else mark


def look(kernel: Kernel, others: dict[int, Others], baseline: str | None,
         deadlines: dict[int, dict[str, float]]) -> list[str]:
    """Both families' differences."""
    return [
        line for family in FAMILY_TOOLS
        for line in differences(
            kernel.snapshot(family), family, others[family], baseline, deadlines[family])
    ]
