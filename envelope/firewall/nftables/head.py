"""The place of our jump in INPUT: the head, behind rules of others that let nobody in. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from envelope.firewall import foreign
from envelope.firewall.foreign import Effect, Judge, Verdict
from envelope.firewall.nftables.rules import BASELINE, GRANTS, INPUT, TABLE
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot, Rule

# What a rule has counted, which changes though the rule does not.
_COUNTER: Final = re.compile(r" packets \d+ bytes \d+")
_QUOTED: Final = re.compile(r'"[^"]*"')
# A jump or goto to a chain with a name, at the rule's end (nft(8), "VERDICT STATEMENT").
_LEADING: Final = re.compile(r"(?:^|.* )(jump|goto) ([^\s{}]+)", re.DOTALL)
# Words of statements that may let a packet in. Names in rules are quoted or have an @ before them.
_OPENING: Final = frozenset({
    "accept", "queue", "vmap", "synproxy", "tproxy", "fwd", "jump", "goto",
})


@lru_cache(maxsize=1 << 12)
def effect(rule: str) -> Effect:
    """What a rule does, as nft prints it."""
    plain = _QUOTED.sub("", rule).strip()
    words = plain.split()
    match = _LEADING.fullmatch(plain)
    if match is not None and _OPENING.isdisjoint(words[:-2]):
        return Effect(chain=match[2], returns_here=match[1] == "jump")
    if not _OPENING.isdisjoint(words):
        return Effect(Verdict.OPENS)
    return Effect(Verdict.RETURNS if words[-1:] == ["return"] else Verdict.SHUTS)


def _judge(snapshot: NftSnapshot) -> Judge:
    ours = (BASELINE, GRANTS)
    chains = {name: chain.texts for name, chain in snapshot.chains.items() if name not in ours}
    return Judge(chains, effect)


def jump_line(snapshot: NftSnapshot, others: Sequence[Rule], jump: str) -> str:
    """The command that puts our jump in its place among the rules of `others` in INPUT.

    Where INPUT's policy accepts, a rule that leaves INPUT lets packets in.
    """
    drops = "policy drop" in snapshot.chains.get(INPUT, Chain()).hook
    most = Verdict.RETURNS if drops else Verdict.SHUTS
    behind = _judge(snapshot).harmless([rule.text for rule in others], most)
    if behind == 0:
        return f"insert rule {TABLE} {INPUT} {jump}"
    return f"add rule {TABLE} {INPUT} handle {others[behind - 1].handle} {jump}"


def stands(snapshot: NftSnapshot, entries: Sequence[str], jump: str) -> bool:
    """Whether nothing before our jump among INPUT's `entries` can let a packet in."""
    before = entries[:entries.index(jump)]
    return _judge(snapshot).harmless(before, Verdict.UNSEEN) == len(before)


def openings(snapshot: NftSnapshot, ours: Mapping[str, Sequence[str]]) -> list[str]:
    """The rules of others in our chains that can let a packet in; see `foreign.openings`."""
    chains = {
        name: [_COUNTER.sub("", text) for text in chain.texts]
        for name, chain in snapshot.chains.items()
    }
    return foreign.openings(_judge(snapshot), chains, ours)
