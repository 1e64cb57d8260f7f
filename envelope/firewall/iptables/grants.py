"""Grants among the kernel's rules, and the lines that change them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from envelope.firewall.iptables.ends import read_end
from envelope.firewall.iptables.plan import drop_branches
from envelope.firewall.iptables.rules import GRANTS, Rules, read_grant, service_in
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.kernel import Key


def grants_in(snapshot: Snapshot, structure: Structure) -> tuple[dict[Key, Rules], list[str]]:
    """The grants among the kernel's rules, and the lines that remove those in a wrong chain."""
    found: dict[Key, list[str]] = {}
    astray: list[str] = []
    version = structure.family.version
    for chain in structure.grant_chains:
        for rule in snapshot.rules.get(chain, ()):
            grant = read_grant(rule, version, service_in(chain))
            if grant is None:
                continue
            key = grant[0]
            if chain == structure.leaf(key):
                found.setdefault(key, []).append(rule)
            else:
                astray.append(f"-D {chain} {rule}")
    return {key: tuple(sorted(rules)) for key, rules in found.items()}, astray


def end_of(rules: Rules) -> int | None:
    """When the kernel ends these rules by itself (seconds since the epoch); None for no rules."""
    if rules and (end := read_end(rules[0].rpartition(" ")[2])) is not None and len(rules) == 1:
        return end
    ends = [grant[1] for grant in map(read_grant, rules) if grant is not None]
    return max(ends, default=None)


def change(chain: str, have: Rules, want: Rules, addition: str = "") -> list[str]:
    """The lines that turn a network's rules into others: additions first, then deletions.

    `addition` is how a line begins that adds a rule; without it, rules are added at the end.
    A rule is replaced by adding and deleting, not by its number, which others may have changed.
    """
    if have == want:
        return []
    addition = addition or f"-A {chain}"
    if not have or not want:
        return [f"{addition} {rule}" for rule in want] or [f"-D {chain} {rule}" for rule in have]
    there, asked = Counter(have), Counter(want)
    return [
        *(f"{addition} {rule}" for rule in (asked - there).elements()),
        *(f"-D {chain} {rule}" for rule in (there - asked).elements()),
    ]


def change_all(
    now: Structure,
    then: Structure,
    in_force: Mapping[Key, Rules],
    wants: Mapping[Key, Rules | None],
) -> list[str]:
    """The lines that give each network in `wants` those rules, or none; no other moves."""
    lines: list[str] = []
    for key, want in wants.items():
        chain = (then if want else now).leaf(key)
        lines += change(chain, in_force.get(key, ()), want or (), then.addition(chain, key))
    return lines


def rearrange(
    now: Structure,
    then: Structure,
    in_force: Mapping[Key, Rules],
    wants: Mapping[Key, Rules | None],
) -> list[str]:
    """The same, where `then` has other chains for grants: other networks move, too."""
    former, chains = _ways(now), _ways(then)
    going = [name for name in former if name not in chains]
    lines = [f":{name} - [0:0]" for name in chains if name not in former]
    for name, jumps in chains.items():
        old = former.get(name, ())
        lines += [f"-D {name} {jump}" for jump in old if jump not in jumps]
        # What no grant opens stands first. The newest grants do, too: behind them, one rule without
        # a source leads to all others.
        first = 1 + (len(then.closed) if name == GRANTS else 0)
        lines += [
            f"-A {name} {jump}" if jump.startswith("-j") else f"-I {name} {place} {jump}"
            for place, jump in enumerate(jumps, first) if jump not in old
        ]
    moved = {
        key for tree, old_tree in zip(then.trees, now.trees, strict=True)
        for name, keys in tree.members.items() if keys is not old_tree.members.get(name)
        for key in keys.keys() - old_tree.members.get(name, {}).keys() if key not in wants
    }
    for key in (*moved, *wants):
        have = in_force.get(key, ())
        want = wants.get(key, have) or ()
        before, after = now.leaf(key), then.leaf(key)
        if before == after:
            lines += change(after, have, want, then.addition(after, key))
        else:
            lines += change(after, (), want, then.addition(after, key))
            lines += change(before, have, ())
    return lines + drop_branches(going, ())


def _ways(structure: Structure) -> dict[str, Rules]:
    return {name: jumps for tree in structure.trees for name, jumps in tree.chains.items()}
