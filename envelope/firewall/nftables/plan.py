"""The commands that install, mend and remove our table, each as one transaction. Pure.

No rules from before the first start have to be remembered: our table stands beside those of others,
and once it is deleted they are as they were. That nf_conntrack_tcp_loose was 1 is remembered in the
name of a chain. With `--baseline=operator` the table and its chain `input` are the operator's, and
only the sets, the chain `grants` and the jump to it are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from envelope.firewall import FirewallError
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.kernel import DriftKind
from envelope.firewall.nftables.guarded import guard
from envelope.firewall.nftables.head import jump_line, stands
from envelope.firewall.nftables.printed import Printed
from envelope.firewall.nftables.repair import repair
from envelope.firewall.nftables.rules import (
    BASELINE,
    GRANTS,
    HOOK,
    INPUT,
    TABLE,
    WAS_LOOSE,
    Structure,
    is_own_set,
    ruleset,
    set_name,
)
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot
from envelope.firewall.repair import in_order

REMOVE_TABLE: Final = (f"add table {TABLE}", f"delete table {TABLE}")


def was_loose(snapshot: NftSnapshot) -> bool:
    """Whether nf_conntrack_tcp_loose was 1 before the first start, as marked."""
    return WAS_LOOSE in snapshot.chains


def is_ours(snapshot: NftSnapshot) -> bool:
    """Whether this service has made the table, or its part of an operator's."""
    return BASELINE in snapshot.chains or (
        GRANTS in snapshot.chains and set_name(4) in snapshot.sets
    )


def install(snapshot: NftSnapshot, structure: Structure, probe: Sequence[str]) -> list[str]:
    """The commands of a start: clear what a killed service left, then put the structure in force.

    `probe` adds and removes a grant in the same transaction: a kernel that cannot hold one fails
    the start, not the first client. Raises `FirewallError` when a table or chain of our name is
    not ours, or when the operator's is missing where `--baseline=operator` needs it.
    """
    ours = BASELINE in snapshot.chains
    if structure.choices.baseline == "service":
        if snapshot.exists and not ours:
            raise FirewallError(
                f"there is a table {TABLE} that this service has not made: delete it "
                f"(nft delete table {TABLE}), or say --baseline=operator"
            )
        return [*commands(structure), *probe]
    if ours or " hook input " not in snapshot.chains.get(INPUT, Chain()).hook:
        raise FirewallError(
            f"--baseline=operator needs your own rules in the chain {INPUT} of the table {TABLE} "
            "(type filter hook input), and there is none"
        )
    if GRANTS in snapshot.chains and set_name(4) not in snapshot.sets:
        raise FirewallError(
            f"the chain {GRANTS} of your table {TABLE} is not this service's: rename it"
        )
    others = [rule for rule in snapshot.chains[INPUT].rules if rule.text != structure.jump]
    jump = jump_line(snapshot, others, structure.jump)
    return [*_remove_ours(snapshot), *_add_ours(structure), jump, *probe]


def commands(structure: Structure) -> list[str]:
    """The commands that put the structure in force, whether or not an earlier table stands."""
    if structure.choices.baseline == "service":
        return [*REMOVE_TABLE, ruleset(structure)]
    return [*_add_ours(structure), jump_line(NftSnapshot(), (), structure.jump)]


def remove(snapshot: NftSnapshot) -> list[str]:
    """The commands of a clean stop: everything of ours goes."""
    if not snapshot.exists:
        return []
    if BASELINE in snapshot.chains:
        return [*REMOVE_TABLE]
    return _remove_ours(snapshot)


def _remove_ours(snapshot: NftSnapshot) -> list[str]:
    lines = [
        f"delete rule {TABLE} {name} handle {rule.handle}"
        for name, chain in snapshot.chains.items() if name != GRANTS
        for rule in chain.rules if rule.text == f"jump {GRANTS}"
    ]
    if GRANTS in snapshot.chains:
        lines += [f"flush chain {TABLE} {GRANTS}", f"delete chain {TABLE} {GRANTS}"]
    return lines + [f"delete set {TABLE} {name}" for name in snapshot.sets if is_own_set(name)]


def _add_ours(structure: Structure) -> list[str]:
    lines = [
        f"add set {TABLE} {name} {{ {declaration} }}"
        for name, declaration in structure.sets.items()
    ]
    for name, rules in structure.chains.items():
        lines.append(f"add chain {TABLE} {name}")
        lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
    return lines


def flush_grants(structure: Structure) -> list[str]:
    """The commands that remove all grants and leave the rest in force."""
    return [f"flush set {TABLE} {name}" for name in structure.sets]


def last_lines(snapshot: NftSnapshot, structure: Structure, printed: Printed) -> list[str]:
    """The commands of a stop: everything of ours goes, or all but the default drop."""
    if structure.choices.on_stop == "restore":
        return remove(snapshot)
    # The default drop stays in force, without grants.
    lines, _ = mend(snapshot, structure, printed)
    return [*lines, *moved(snapshot, printed), *flush_grants(structure)]


def mend(
    snapshot: NftSnapshot, structure: Structure, printed: Printed
) -> tuple[list[str], list[DriftKind]]:
    """The commands that put the structure right where others changed it, and the kinds of changes.

    Rules of others stay where they are, in our own chains too. Raises `UnreadableRules` when the
    operator's own chain is gone.
    """
    if structure.choices.baseline == "operator":
        if not snapshot.chains.get(INPUT, Chain()).hook:
            raise UnreadableRules(f"the operator's chain {INPUT} of the table {TABLE} is gone")
    elif not snapshot.exists:
        return [ruleset(structure)], [DriftKind.CHAIN]
    lines, snapshot = guard(snapshot, structure.choices)
    kinds: list[DriftKind] = []
    hook = _hook(snapshot.chains.get(INPUT, Chain()).hook)
    if (
        "flags dormant" in snapshot.flags and structure.choices.baseline == "service"
        and hook == _hook(printed.hook)
    ):
        # A dormant table filters nothing. The kernel does not activate it in a transaction that
        # makes the chain anew (EINVAL): then the chain is made first, and the next look does this.
        kinds.append(DriftKind.POLICY)
        lines.append(f"add table {TABLE}")
    chains = dict(snapshot.chains)
    for name, declaration in structure.sets.items():
        if name in snapshot.sets and snapshot.sets[name].declaration == printed.sets[name]:
            continue
        kinds.append(DriftKind.CHAIN)
        if name in snapshot.sets:
            # A set cannot be deleted while rules refer to it.
            chains = {**chains, GRANTS: Chain()}
            lines += [f"flush chain {TABLE} {GRANTS}"] if GRANTS in snapshot.chains else []
            lines.append(f"delete set {TABLE} {name}")
        lines.append(f"add set {TABLE} {name} {{ {declaration} }}")
    for name, rules in structure.chains.items():
        there = chains.get(name)
        if there is None:
            kinds.append(DriftKind.CHAIN)
            lines.append(f"add chain {TABLE} {name}")
            lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
        elif not in_order(printed.chains[name], there.texts):
            kinds.append(DriftKind.BASELINE)
            lines += repair(name, rules, printed.chains[name], there.rules)
    entry_lines, entry_kinds = _mend_input(snapshot, structure, printed)
    return lines + entry_lines, kinds + entry_kinds


def moved(snapshot: NftSnapshot, printed: Printed) -> list[str]:
    """The commands that move our jump to before what others have put before it and accepts."""
    there = snapshot.chains.get(INPUT, Chain())
    if _hook(there.hook) != _hook(printed.hook) or there.texts.count(printed.jump) != 1:
        # Mending puts the jump in its place.
        return []
    if stands(snapshot, there.texts, printed.jump):
        return []
    return [
        *(f"delete rule {TABLE} {INPUT} handle {rule.handle}"
          for rule in there.rules if rule.text == printed.jump),
        jump_line(snapshot, [r for r in there.rules if r.text != printed.jump], printed.jump),
    ]


def _hook(declaration: str) -> str:
    """Where the kernel calls a chain, without its policy."""
    return declaration.partition("policy")[0]


def _mend_input(
    snapshot: NftSnapshot, structure: Structure, printed: Printed
) -> tuple[list[str], list[DriftKind]]:
    lines: list[str] = []
    kinds: list[DriftKind] = []
    there = snapshot.chains.get(INPUT)
    hook, entries = ("", ()) if there is None else (there.hook, there.rules)
    if structure.choices.baseline == "service" and hook != printed.hook:
        if _hook(hook) == _hook(printed.hook):
            kinds.append(DriftKind.POLICY)
        else:
            kinds.append(DriftKind.CHAIN)
            if there is not None:
                lines += [f"flush chain {TABLE} {INPUT}", f"delete chain {TABLE} {INPUT}"]
            entries = ()
        lines.append(f"add chain {TABLE} {INPUT} {{ {HOOK} }}")
    jumps = [rule for rule in entries if rule.text == printed.jump]
    if len(jumps) != 1:
        kinds.append(DriftKind.JUMP)
        lines += [f"delete rule {TABLE} {INPUT} handle {rule.handle}" for rule in jumps]
        others = [rule for rule in entries if rule.text != printed.jump]
        lines.append(jump_line(snapshot, others, structure.jump))
    return lines, kinds
