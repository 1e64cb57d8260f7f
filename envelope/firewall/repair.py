"""Puts a chain's rules back in order; rules of others in it stay where they are. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher


def in_order(ours: Iterable[str], there: Sequence[str]) -> bool:
    """Whether `there` holds all of `ours` in their order, with or without other rules between."""
    rest = iter(there)
    return all(rule in rest for rule in ours)


def repair(chain: str, ours: Sequence[str], there: Sequence[str]) -> list[str]:
    """The lines that make `ours` stand in order in a chain that holds `there`.

    Rules of others are neither touched nor reordered; a missing rule is inserted right behind the
    one before it. Rules are removed by their text, never by their number: if another program
    changes the chain meanwhile, none of its rules is hit.
    """
    blocks = SequenceMatcher(None, ours, there, autojunk=False).get_matching_blocks()
    kept = Counter(rule for at, _, size in blocks for rule in ours[at:at + size])
    # Removing by text takes the first copy, which may be the right one: so all copies go.
    astray = {rule for rule in ours if Counter(there)[rule] > kept[rule]}
    lines = [f"-D {chain} {rule}" for rule in there if rule in astray]
    now = [rule for rule in there if rule not in astray]
    position = 0
    for rule in ours:
        if rule in astray or rule not in now[position:]:
            now.insert(position, rule)
            lines.append(f"-I {chain} {position + 1} {rule}")
            position += 1
        else:
            position = now.index(rule, position) + 1
    return lines
