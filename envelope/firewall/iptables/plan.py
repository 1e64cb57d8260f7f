"""The lines that install, mend and remove the structure, each as one transaction. Pure.

What was before the first start is remembered with the rules, in the names of chains that nothing
jumps to: `ENVELOPE-WAS-ACCEPT` for INPUT's policy, `ENVELOPE-WAS-LOOSE` when nf_conntrack_tcp_loose
was 1. They come and go in the same transaction as the rules, and the start after a `kill -9` finds
them. Each holds one rule, because `iptables -X` without a name deletes every empty chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from envelope.firewall.iptables.guarded import guard
from envelope.firewall.iptables.head import place, stands
from envelope.firewall.iptables.rules import (
    CHAIN,
    DEVICES,
    GRANTS,
    Rules,
    baseline_rules,
    device_rules,
    kept_closed,
)
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.spread import branches, is_branch
from envelope.firewall.kernel import DriftKind
from envelope.firewall.policy import Family, RuleChoices
from envelope.firewall.repair import in_order, repair

Before: TypeAlias = Literal["ACCEPT", "DROP", "ABSENT"]

_MARKER: Final = "ENVELOPE-WAS-"
_MARKER_RULE: Final = "-j RETURN"
_JUMPS: Final = (f"-j {CHAIN}", f"-j {GRANTS}")
MARKERS: Final = tuple(f"{_MARKER}{was}" for was in ("ACCEPT", "DROP", "ABSENT", "LOOSE"))
_WAS_LOOSE: Final = f"{_MARKER}LOOSE"


def before(snapshot: Snapshot) -> Before:
    """INPUT's policy before the first start: as the marker chain says, else as it is now."""
    for mark in ("ACCEPT", "DROP", "ABSENT"):
        if _MARKER + mark in snapshot.rules:
            return mark
    if not snapshot.exists:
        return "ABSENT"
    return "DROP" if snapshot.policy == "DROP" else "ACCEPT"


def was_loose(snapshot: Snapshot) -> bool:
    """Whether nf_conntrack_tcp_loose was 1 before the first start, as marked."""
    return _WAS_LOOSE in snapshot.rules


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything but the grants; `spread`: grants are spread over chains (see `spread.py`).

    `loose`: nf_conntrack_tcp_loose was 1 before the first start.
    """

    choices: RuleChoices
    family: Family
    before: Before
    loose: bool = False
    spread: bool = False

    @property
    def chains(self) -> dict[str, Rules]:
        """Our chains with their fixed rules, without grants."""
        choices = self.choices
        chains = {**self.grant_chains}
        if choices.baseline == "operator":
            if self.before == "ABSENT":
                chains[_MARKER + "ABSENT"] = (_MARKER_RULE,)
            return chains
        chains[_MARKER + self.before] = (_MARKER_RULE,)
        if self.loose:
            chains[_WAS_LOOSE] = (_MARKER_RULE,)
        if choices.also_guarded:
            chains[DEVICES] = device_rules(choices)
        return {**chains, CHAIN: tuple(baseline_rules(choices, self.family))}

    @property
    def grant_chains(self) -> dict[str, Rules]:
        """The chains that hold grants, with the rules that lead from one to the next."""
        closed = kept_closed(self.choices)
        if not self.spread:
            return {GRANTS: closed}
        chains = branches(
            self.choices.prefix(self.family.version), self.family.example.max_prefixlen
        )
        return {**chains, GRANTS: closed + chains[GRANTS]} if closed else chains

    @property
    def jump(self) -> str:
        """Our rule in INPUT; `head.place` tells where."""
        return f"-j {CHAIN if self.choices.baseline == 'service' else GRANTS}"


def install(snapshot: Snapshot, structure: Structure, probe: Rules) -> list[str]:
    """The lines of a start: clear what a killed service left, then put the structure in force.

    `probe` is a grant that is added and removed in the same transaction: a kernel that cannot hold
    one fails the start, not the first client.
    """
    entries = snapshot.rules.get("INPUT", ())
    lines = [f"-D INPUT {rule}" for rule in entries if rule in _JUMPS]
    others = [rule for rule in entries if rule not in _JUMPS]
    chains = structure.chains
    stale = [chain for chain in snapshot.own_chains if chain not in chains]
    lines += [f":{chain} - [0:0]" for chain in (*stale, *chains)]
    lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
    lines += [f"-A {GRANTS} {rule}" for rule in probe]
    lines += [f"-D {GRANTS} {rule}" for rule in probe]
    if structure.choices.baseline == "service":
        lines.append("-P INPUT DROP")
    elif CHAIN in stale:
        lines.append(_policy_line(structure.before))
    lines.append(_jump_line(snapshot, structure, others))
    lines += [f"-X {chain}" for chain in stale]
    return lines


def remove(snapshot: Snapshot) -> list[str]:
    """The lines of a clean stop: everything of ours goes, and INPUT has its former policy."""
    own = snapshot.own_chains
    lines = [f"-D {chain} {rule}" for chain, rule in snapshot.references]
    if CHAIN in own:
        lines.append(_policy_line(before(snapshot)))
    lines += [f":{chain} - [0:0]" for chain in own]
    lines += [f"-X {chain}" for chain in own]
    return lines


def is_all_ours(snapshot: Snapshot) -> bool:
    """Whether the table without our rules would be as good as no table at all."""
    own, jumps = set(snapshot.own_chains), set(snapshot.references)
    return snapshot.whole and all(
        policy == "ACCEPT" or (chain == "INPUT" and CHAIN in own)
        for chain, policy in snapshot.policies.items()
    ) and all(
        chain in own or (chain in snapshot.policies and jumps.issuperset(
            (chain, rule) for rule in rules))
        for chain, rules in snapshot.rules.items()
    )


def _jump_line(snapshot: Snapshot, structure: Structure, others: Sequence[str]) -> str:
    behind = place(snapshot, others, structure.before)
    return f"-I INPUT {behind + 1} {structure.jump}"


def _policy_line(was: Before) -> str:
    return f"-P INPUT {'ACCEPT' if was == 'ABSENT' else was}"


def mend(snapshot: Snapshot, structure: Structure) -> tuple[list[str], list[DriftKind]]:
    """The lines that put the structure right where others changed it, and the kinds of changes.

    Rules of others stay where they are, in our own chains too.
    """
    declared: list[str] = []
    lines, snapshot = guard(snapshot, structure.choices)
    kinds: list[DriftKind] = []
    grant_chains = structure.grant_chains
    for chain, rules in structure.chains.items():
        there = snapshot.rules.get(chain)
        if there is None:
            kinds.append(DriftKind.CHAIN)
            declared.append(f":{chain} - [0:0]")
            lines += [f"-A {chain} {rule}" for rule in rules]
            continue
        if chain in grant_chains:
            # Among grants the order does not matter, but what keeps a port closed comes first.
            mending = [
                f"-I {chain} 1 {rule}" if rule.endswith("-j RETURN") else f"-A {chain} {rule}"
                for rule in rules if rule not in there
            ]
        else:
            mending = repair(chain, rules, there) if not in_order(rules, there) else []
        if mending:
            kinds.append(DriftKind.BASELINE)
            lines += mending
    stale = [chain for chain in snapshot.rules if chain not in grant_chains and is_branch(chain)]
    if stale:
        kinds.append(DriftKind.CHAIN)
        lines += drop_branches(stale, snapshot.jumps_to(stale))
    if structure.choices.baseline == "service" and snapshot.policy != "DROP":
        kinds.append(DriftKind.POLICY)
        lines.append("-P INPUT DROP")
    if snapshot.rules.get("INPUT", ()).count(structure.jump) != 1:
        kinds.append(DriftKind.JUMP)
        lines += _put_jump(snapshot, structure)
    return declared + lines, kinds


def moved(snapshot: Snapshot, structure: Structure) -> list[str]:
    """The lines that move our jump to before what others have put before it and accepts."""
    if snapshot.rules.get("INPUT", ()).count(structure.jump) != 1:
        return []
    return [] if stands(snapshot, structure.jump) else _put_jump(snapshot, structure)


def _put_jump(snapshot: Snapshot, structure: Structure) -> list[str]:
    entries = snapshot.rules.get("INPUT", ())
    others = [rule for rule in entries if rule != structure.jump]
    return [
        *[f"-D INPUT {structure.jump}"] * (len(entries) - len(others)),
        _jump_line(snapshot, structure, others),
    ]


def drop_branches(chains: Iterable[str], jumps: Iterable[tuple[str, str]]) -> list[str]:
    """The lines that delete chains that grants were spread over, with the jumps to them."""
    chains = [*chains]
    return [
        *(f":{chain} - [0:0]" for chain in chains),
        *(f"-D {chain} {rule}" for chain, rule in jumps),
        *(f"-X {chain}" for chain in chains),
    ]
