"""The difference between what the kernel holds and what it should, as one transaction. Pure.

What has to be remembered about the time before the first start, INPUT's policy, is remembered
with the rules: the name of an unreferenced chain (`ENVELOPE-WAS-ACCEPT`) says it, so it appears
and vanishes in the same transaction as they do, and a killed service's successor finds it. The
chain holds one rule, since `iptables -X` sweeps away every empty chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from envelope.config import Network
from envelope.firewall.ruleset import (
    CHAIN,
    FLOWS,
    GRANTS,
    Family,
    Layout,
    baseline_rules,
    grant_rules,
    proxy_rules,
    read_grant,
)
from envelope.firewall.snapshot import Snapshot

Before: TypeAlias = Literal["ACCEPT", "DROP", "ABSENT"]
# A grant's network, or None for the rules of `--proxy-port`.
Key: TypeAlias = Network | None
Rules: TypeAlias = tuple[str, ...]

_MARKER: Final = "ENVELOPE-WAS-"
_MARKER_RULE: Final = "-j RETURN"


def before(snapshot: Snapshot) -> Before:
    """How INPUT stood before the first start: as marked, else as it stands now."""
    for mark in ("ACCEPT", "DROP", "ABSENT"):
        if _MARKER + mark in snapshot.rules:
            return mark
    if not snapshot.exists:
        return "ABSENT"
    return "DROP" if snapshot.policy == "DROP" else "ACCEPT"


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything but the grants: what stays the same from start to stop."""

    layout: Layout
    family: Family
    before: Before
    flows: Rules = ()

    @property
    def chains(self) -> dict[str, Rules]:
        """Our chains with their fixed rules; that of the grants is empty here."""
        layout = self.layout
        if layout.baseline == "operator":
            marker = {_MARKER + "ABSENT": (_MARKER_RULE,)} if self.before == "ABSENT" else {}
            return {GRANTS: (), **marker}
        rules = baseline_rules(layout, self.family, bool(self.flows))
        chains: dict[str, Rules] = {GRANTS: (), _MARKER + self.before: (_MARKER_RULE,)}
        if self.flows:
            chains[FLOWS] = self.flows
        return {**chains, CHAIN: tuple(rules)}

    @property
    def jump(self) -> str:
        """The rule that belongs at the head of INPUT."""
        return f"-j {self.layout.entry}"


def install(snapshot: Snapshot, structure: Structure, probe: Rules) -> list[str]:
    """The start: clear what a predecessor left, then put the structure in force.

    `probe` rules are added and taken away again in the same transaction: a kernel that cannot
    hold a grant fails the start, not the first client.
    """
    lines = [f"-D INPUT {rule}" for chain, rule in snapshot.references
             if chain == "INPUT" and rule in (f"-j {CHAIN}", f"-j {GRANTS}")]
    chains = structure.chains
    stale = [chain for chain in snapshot.own_chains if chain not in chains]
    lines += [f":{chain} - [0:0]" for chain in (*stale, *chains)]
    lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
    lines += [f"-A {GRANTS} {rule}" for rule in probe]
    lines += [f"-D {GRANTS} {rule}" for rule in probe]
    if structure.layout.baseline == "service":
        lines.append("-P INPUT DROP")
    elif CHAIN in stale:
        lines.append(_policy_line(structure.before))
    lines.append(f"-I INPUT 1 {structure.jump}")
    lines += [f"-X {chain}" for chain in stale]
    return lines


def remove(snapshot: Snapshot) -> list[str]:
    """The clean stop: everything of ours goes, INPUT's policy is as it was."""
    own = snapshot.own_chains
    lines = [f"-D {chain} {rule}" for chain, rule in snapshot.references]
    if CHAIN in own:
        lines.append(_policy_line(before(snapshot)))
    lines += [f":{chain} - [0:0]" for chain in own]
    lines += [f"-X {chain}" for chain in own]
    return lines


def _policy_line(was: Before) -> str:
    return f"-P INPUT {'ACCEPT' if was == 'ABSENT' else was}"


def mend(snapshot: Snapshot, structure: Structure) -> tuple[list[str], list[str]]:
    """What others changed in the structure: the lines that put it right, and what kinds they are.

    Rules of others stay, in our own chains too, as long as ours stand in their order.
    """
    lines: list[str] = []
    kinds: list[str] = []
    for chain, rules in structure.chains.items():
        there = snapshot.rules.get(chain)
        if there is not None and _in_order(rules, there):
            continue
        kinds.append("chain" if there is None else "baseline")
        lines.append(f":{chain} - [0:0]")
        lines += [f"-A {chain} {rule}" for rule in rules]
    if structure.layout.baseline == "service" and snapshot.policy != "DROP":
        kinds.append("policy")
        lines.append("-P INPUT DROP")
    entries = snapshot.rules.get("INPUT", ())
    if entries[:1] != (structure.jump,) or entries.count(structure.jump) != 1:
        kinds.append("jump")
        lines += [f"-D INPUT {structure.jump}"] * entries.count(structure.jump)
        lines.append(f"-I INPUT 1 {structure.jump}")
    return lines, kinds


def _in_order(ours: Iterable[str], there: Sequence[str]) -> bool:
    rest = iter(there)
    return all(rule in rest for rule in ours)


def wanted_rules(layout: Layout, key: Key, end: int | None) -> Rules:
    """The rules that a grant ending at `end` consists of; none without an end."""
    if end is None:
        return ()
    if key is None:
        return tuple(proxy_rules(layout, end))
    return tuple(grant_rules(layout, key, end))


def grants_in(snapshot: Snapshot, known: Mapping[Key, Rules] | None = None) -> dict[Key, Rules]:
    """The rules in the grants' chain that look like ours, by network.

    `known` rules are recognised by their text alone, which costs next to nothing.
    """
    key_of = {rule: key for key, rules in (known or {}).items() for rule in rules}
    found: dict[Key, list[str]] = {}
    for rule in snapshot.rules.get(GRANTS, ()):
        if rule in key_of:
            found.setdefault(key_of[rule], []).append(rule)
        elif (grant := read_grant(rule)) is not None:
            found.setdefault(grant[0], []).append(rule)
    return {key: tuple(rules) for key, rules in found.items()}


def change(have: Rules, want: Rules) -> list[str]:
    """The lines that turn one network's rules into others; what comes, comes first."""
    if have == want:
        return []
    there, asked = Counter(have), Counter(want)
    return [
        *(f"-A {GRANTS} {rule}" for rule in (asked - there).elements()),
        *(f"-D {GRANTS} {rule}" for rule in (there - asked).elements()),
    ]


def end_of(rules: Rules) -> int | None:
    """When the kernel ends a network's rules by itself; None for no rules."""
    ends = [grant[1] for grant in map(read_grant, rules) if grant is not None]
    return max(ends, default=None)


def agrees(have: Mapping[Key, Rules], key: Key, want: Rules) -> bool:
    """Whether a network's rules are as wanted, in whatever order."""
    return Counter(have.get(key, ())) == Counter(want)
