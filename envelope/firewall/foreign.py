"""Whether rules of others that stand before ours can let a packet in. Pure.

A rule that only drops, rejects, logs or returns may stand before our jump: a ban stays a ban. One
that accepts may not, because it would let clients past the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# Chains that lead to each other; the kernel itself follows 16 (nf_tables, NFT_JUMP_STACK_SIZE).
_DEEPEST: Final = 16


class Verdict(IntEnum):
    """The most that a rule can do to a packet, from the least harm to the most."""

    # Drops it, or leaves it to the next rule.
    SHUTS = 0
    # Leaves the chain: of the chain at the hook, the policy decides then.
    RETURNS = 1
    # Leads to a chain that could not be read.
    UNSEEN = 2
    # Accepts it, or cannot be judged.
    OPENS = 3


@dataclass(frozen=True, slots=True)
class Effect:
    """What one rule does to the packets that it matches.

    `chain` is where it leads to, if anywhere; `returns_here` is False for a goto, which does not
    come back.
    """

    verdict: Verdict = Verdict.SHUTS
    chain: str = ""
    returns_here: bool = True


class Judge:
    """Judges rules by what they do and by what is in the chains that they lead to.

    `chains` are the chains of others with their rules, `effect` reads one rule, and `unknown` is
    the verdict of a rule that leads to a chain which is not among `chains`.
    """

    def __init__(
        self,
        chains: Mapping[str, Sequence[str]],
        effect: Callable[[str], Effect],
        unknown: Verdict = Verdict.OPENS,
    ) -> None:
        self._chains = chains
        self._effect = effect
        self._unknown = unknown
        self._judged: dict[str, Verdict] = {}

    def harmless(self, rules: Sequence[str], most: Verdict) -> int:
        """How many rules, from the first one on, do no more than `most`."""
        for number, rule in enumerate(rules):
            if self._of(rule, 0) > most:
                return number
        return len(rules)

    def _of(self, rule: str, depth: int) -> Verdict:
        effect = self._effect(rule)
        if not effect.chain:
            return effect.verdict
        inside = self._of_chain(effect.chain, depth)
        # A return in a chain that was jumped to only comes back.
        if inside in (Verdict.SHUTS, Verdict.RETURNS):
            return Verdict.SHUTS if effect.returns_here else Verdict.RETURNS
        return inside

    def _of_chain(self, name: str, depth: int) -> Verdict:
        if name not in self._judged:
            # Until it is judged, a chain that leads back to itself cannot be.
            self._judged[name] = Verdict.OPENS
            rules = self._chains.get(name)
            if rules is None:
                self._judged[name] = self._unknown
            elif depth < _DEEPEST:
                self._judged[name] = max(
                    (self._of(rule, depth + 1) for rule in rules), default=Verdict.SHUTS
                )
        return self._judged[name]


def openings(
    judge: Judge, chains: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]
) -> list[str]:
    """The rules of others in our chains that can let a packet in, as `CHAIN: RULE`.

    `chains` are our chains as they are in force, `ours` as they were written.
    """
    return [
        f"{name}: {rule}"
        for name, rules in ours.items() if chains.get(name, rules) != rules
        for rule in chains[name]
        if rule not in rules and not judge.harmless([rule], Verdict.UNSEEN)
    ]
