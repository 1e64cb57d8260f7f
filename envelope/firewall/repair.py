"""One chain's rules put back in order around those of others, which stay. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher


def in_order(ours: Iterable[str], there: Sequence[str]) -> bool:
    """Whether `ours` all stand in `there` in their order, with or without others in between."""
    rest = iter(there)
    return all(rule in rest for rule in ours)


def repair(chain: str, ours: Sequence[str], there: Sequence[str]) -> list[str]:
    """The lines that make `ours` stand in order in a chain that holds `there`.

    Rules of others are neither touched nor reordered; a missing rule comes right behind the one
    before it. Rules are removed by their text, never by their number: should somebody change the
    chain meanwhile, nothing of theirs is hit.
    """
    blocks = SequenceMatcher(None, ours, there, autojunk=False).get_matching_blocks()
    kept = Counter(rule for at, _, size in blocks for rule in ours[at:at + size])
    # Which copy of a text goes is not ours to choose, so all of them do.
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
