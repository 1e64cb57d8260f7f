"""Puts a chain of our table back in order; rules of others in it stay where they are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from envelope.firewall.nftables.rules import TABLE
from envelope.firewall.nftables.snapshot import Rule


def repair(
    name: str, rules: Sequence[str], ours: Sequence[str], there: Sequence[Rule]
) -> list[str]:
    """Put our rules (`ours` as nft prints them) in order around those of others.

    A missing rule comes right behind the one before it.
    """
    texts = [rule.text for rule in there]
    kept: dict[int, int] = {}
    for at, place, size in SequenceMatcher(None, ours, texts, autojunk=False).get_matching_blocks():
        kept.update(zip(range(at, at + size), range(place, place + size), strict=True))
    staying = set(kept.values())
    gone = {
        place for place, text in enumerate(texts) if text in ours and place not in staying
    }
    lines = [
        f"delete rule {TABLE} {name} handle {there[place].handle}" for place in sorted(gone)
    ]
    place = 0
    for number, rule in enumerate(rules):
        if number in kept:
            place = kept[number] + 1
            continue
        following = next((p for p in range(place, len(there)) if p not in gone), None)
        if following is None:
            lines.append(f"add rule {TABLE} {name} {rule}")
        else:
            handle = there[following].handle
            lines.append(f"insert rule {TABLE} {name} handle {handle} {rule}")
    return lines
