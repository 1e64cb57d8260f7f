"""The lines that install, mend and remove the structure, each as one transaction. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from envelope.firewall.iptables.ends import drop_ends, make_ends, read_end
from envelope.firewall.iptables.guarded import guard
from envelope.firewall.iptables.head import place, stands
from envelope.firewall.iptables.rules import BRANCHES, CHAIN, GRANTS, Rules
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.structure import Before, Structure, before
from envelope.firewall.kernel import DriftKind
from envelope.firewall.repair import in_order, repair

_JUMPS: Final = (f"-j {CHAIN}", f"-j {GRANTS}")


def install(
    snapshot: Snapshot, structure: Structure, probe: Rules, ends: Collection[int] = ()
) -> list[str]:
    """The lines of a start: clear what a killed service left, then put the structure in force.

    `probe` is a grant that is added and removed in the same transaction, with the chains of the
    `ends` that it jumps to: a kernel that cannot hold one fails the start, not the first client.
    """
    first = structure.trees[0].root
    entries = snapshot.rules.get("INPUT", ())
    lines = [f"-D INPUT {rule}" for rule in entries if rule in _JUMPS]
    others = [rule for rule in entries if rule not in _JUMPS]
    chains = structure.chains
    stale = [chain for chain in snapshot.own_chains if chain not in chains]
    lines += [f":{chain} - [0:0]" for chain in (*stale, *chains)]
    lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
    lines += make_ends(ends)
    lines += [f"-A {first} {rule}" for rule in probe]
    lines += [f"-D {first} {rule}" for rule in probe]
    lines += drop_ends(ends)
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
    stale = [
        chain for chain in snapshot.rules
        if chain not in grant_chains and BRANCHES.match(chain)
    ]
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


def ends_in(chains: Mapping[str, Rules]) -> dict[int, Rules]:
    """The chains that grants end by, by their ends, with their rules."""
    return {
        end: rules for chain, rules in chains.items() if (end := read_end(chain)) is not None
    }


def drop_branches(chains: Iterable[str], jumps: Iterable[tuple[str, str]]) -> list[str]:
    """The lines that delete chains that grants were spread over, with the jumps to them."""
    chains = [*chains]
    return [
        *(f":{chain} - [0:0]" for chain in chains),
        *(f"-D {chain} {rule}" for chain, rule in jumps),
        *(f"-X {chain}" for chain in chains),
    ]
