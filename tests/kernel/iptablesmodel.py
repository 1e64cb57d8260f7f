"""The rules that iptables' filter tables must hold, computed without the service's code.

They are written out here as in docs/rules.md; `envelope.firewall.iptables` is used to read what is
there, never to compute what is expected.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from envelope.firewall.iptables.snapshot import Snapshot
from tests.kernel.modelservices import Grants, Guarded

# Seconds from a session's deadline to the grant's end in the kernel at least; grants of so many
# seconds share an end. And the tolerance.
BACKSTOP = 2
SHARED = 4
NEAR = 4


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


GRANTS = "ENVELOPE-GRANTS"
# The rules that lead to the chains of `SEVERAL` services, which carry their ports.
WAYS = [
    *("-p tcp -m tcp --dport 443 -j ENVELOPE-GRANTS-S0",
      "-p udp -m udp --dport 7777 -j ENVELOPE-GRANTS-S0"),
    "-p udp -m udp --dport 7780:7782 -j ENVELOPE-GRANTS-S1",
    *("-p tcp -m tcp --dport 443 -j ENVELOPE-GRANTS-S2",
      "-p udp -m udp --dport 7777 -j ENVELOPE-GRANTS-S2",
      "-p udp -m udp --dport 7780:7782 -j ENVELOPE-GRANTS-S2"),
]
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
    seen: Snapshot,
    family: int,
    others: Others,
    baseline: str | None,
    guarded: Guarded,
    grants: Grants,
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
    by_chain = [(name, rule) for name, chain in ours.items() if name.startswith(GRANTS)
                for rule in chain]
    # When grants are spread over several chains, one rule jumps to each.
    leads = [(trunk(name), target) for name, rule in by_chain if (target := branch_of(rule))]
    expect("chains jumped to", sorted(leads), sorted(
        (trunk(name), name) for name in ours if name != trunk(name)))
    # The rules that lead to the chains of several services.
    ways = [rule for name, rule in by_chain if name == GRANTS and f"-j {GRANTS}-S" in rule]
    expect("ways to services", sorted(ways),
           sorted(WAYS) if guarded.several and baseline is not None else [])
    expect("chains of services", sorted(name for name in ours if re.search(r"-S\d+$", name)),
           sorted({rule.rpartition(" ")[2] for rule in ways}))
    rules = [(trunk(name), rule) for name, rule in by_chain
             if rule not in ways and not branch_of(rule)]
    ends = {name: list(chain) for name, chain in ours.items() if name.startswith("ENVELOPE-END-")}
    expect("the ends", ends, {name: [end_rule(name)] for name in ends})
    among = [(name, rule) for name in (GRANTS, f"{GRANTS}-S1") for rule in others.rules[name]]
    expect("grants", *_as_near(sorted(r for r in rules if r not in among), guarded, grants))
    expect("others' among the grants",
           sorted((r for r in rules if r in among), key=lambda rule: rule[0]), among)
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


def trunk(chain: str) -> str:
    """The chain that grants in `chain` are in while they are few."""
    return re.sub(r"-B\d+$", "", chain) if chain.startswith(GRANTS) else chain


def branch_of(rule: str) -> str:
    """The chain that a rule leads many grants to; "" for another rule."""
    match = re.search(rf"-j ({GRANTS}(?:-S\d+)?-B\d+)$", rule)
    return match[1] if match else ""


def _as_near(
    rules: list[tuple[str, str]], guarded: Guarded, deadlines: Grants
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The rules found, and those wanted; an end within NEAR seconds counts as equal.

    On a busy machine the service may read the clock some seconds later than the test.
    """
    wanted = []
    for (service, network), deadline in deadlines.items():
        chain = f"{GRANTS}-S{service}" if guarded.several else GRANTS
        near = {(chain, grant(network, deadline + late)) for late in range(-NEAR, NEAR + 1)}
        wanted.append(next(iter(near.intersection(rules)), (chain, grant(network, deadline))))
    return rules, sorted(wanted)
