"""Grants among the kernel's rules, and the lines that change them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from envelope.firewall.iptables.plan import Structure, drop_branches
from envelope.firewall.iptables.rules import GRANTS, Rules, read_grant
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.spread import GATHER_BELOW, SPREAD_ABOVE, is_branch, leaf
from envelope.firewall.kernel import Key


def chain_of(structure: Structure, key: Key) -> str:
    """The chain that a network's rules belong to."""
    return leaf(key) if structure.spread else GRANTS


def grants_in(snapshot: Snapshot, structure: Structure) -> tuple[dict[Key, Rules], list[str]]:
    """The grants among the kernel's rules, and the lines that remove those in a wrong chain."""
    found: dict[Key, list[str]] = {}
    astray: list[str] = []
    version = structure.family.version
    for chain in structure.grant_chains:
        for rule in snapshot.rules.get(chain, ()):
            grant = read_grant(rule, version)
            if grant is None:
                continue
            key = grant[0]
            if chain == chain_of(structure, key):
                found.setdefault(key, []).append(rule)
            else:
                astray.append(f"-D {chain} {rule}")
    return {key: tuple(sorted(rules)) for key, rules in found.items()}, astray


def end_of(rules: Rules) -> int | None:
    """When the kernel ends these rules by itself (seconds since the epoch); None for no rules."""
    ends = [grant[1] for grant in map(read_grant, rules) if grant is not None]
    return max(ends, default=None)


def change(chain: str, have: Rules, want: Rules) -> list[str]:
    """The lines that turn a network's rules into others: additions first, then deletions."""
    if have == want:
        return []
    if not have or not want:
        return [f"-A {chain} {rule}" for rule in want] or [f"-D {chain} {rule}" for rule in have]
    there, asked = Counter(have), Counter(want)
    return [
        *(f"-A {chain} {rule}" for rule in (asked - there).elements()),
        *(f"-D {chain} {rule}" for rule in (there - asked).elements()),
    ]


def should_spread(structure: Structure, networks: int) -> bool:
    """Whether grants of so many networks are to be spread over chains."""
    return networks > (GATHER_BELOW if structure.spread else SPREAD_ABOVE)


def change_all(
    now: Structure,
    then: Structure,
    in_force: Mapping[Key, Rules],
    wants: Mapping[Key, Rules | None],
) -> list[str]:
    """The lines that give each network in `wants` those rules, or none.

    When one of `now` and `then` spreads grants and the other does not, the lines also move all
    grants in force.
    """
    if now.spread == then.spread:
        return [
            line for key, want in wants.items()
            for line in change(chain_of(now, key), in_force.get(key, ()), want or ())
        ]
    lines: list[str] = []
    if then.spread:
        chains = then.grant_chains
        lines += [f":{chain} - [0:0]" for chain in chains if is_branch(chain)]
        standing = now.grant_chains[GRANTS]
        lines += [
            f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules
            if rule not in standing
        ]
    for key in dict.fromkeys((*in_force, *wants)):
        have = in_force.get(key, ())
        want = wants.get(key, have) or ()
        old, new = chain_of(now, key), chain_of(then, key)
        if old == new:
            lines += change(new, have, want)
        else:
            lines += [*change(new, (), want), *change(old, have, ())]
    if now.spread:
        chains = now.grant_chains
        staying = then.grant_chains[GRANTS]
        jumps = [(GRANTS, rule) for rule in chains[GRANTS] if rule not in staying]
        lines += drop_branches(filter(is_branch, chains), jumps)
    return lines
