"""The place of our jump in INPUT: the head, behind rules of others that let nobody in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from envelope.firewall import foreign
from envelope.firewall.foreign import Effect, Judge, Verdict
from envelope.firewall.iptables.rules import GRANTS, OWN_CHAINS, Rules, read_grant
from envelope.firewall.iptables.snapshot import Snapshot

_TARGETS: Final = {
    "DROP": Verdict.SHUTS, "REJECT": Verdict.SHUTS, "LOG": Verdict.SHUTS, "NFLOG": Verdict.SHUTS,
    "RETURN": Verdict.RETURNS,
    "ACCEPT": Verdict.OPENS, "QUEUE": Verdict.OPENS, "NFQUEUE": Verdict.OPENS,
}


@lru_cache(maxsize=1 << 15)
def effect(rule: str) -> Effect:
    """What a rule does, as iptables-save prints it. Cached: lists of bans have thousands."""
    words = _words(rule)
    targets = [place for place, word in enumerate(words) if word in ("-j", "-g")]
    if not targets and '"' not in words:
        # Without a target, a rule only counts.
        return Effect()
    if len(targets) != 1 or '"' in words or targets[0] + 1 == len(words):
        return Effect(Verdict.OPENS)
    target = words[targets[0] + 1]
    if words[targets[0]] == "-j" and target in _TARGETS:
        return Effect(_TARGETS[target])
    return Effect(chain=target, returns_here=words[targets[0]] == "-j")


def _words(rule: str) -> list[str]:
    """The words of a rule; what is quoted is left out, and an open quote stays as one word."""
    if '"' not in rule:
        return rule.split(" ")
    plain, quoted, escaped = "", False, False
    for character in rule:
        if quoted and (escaped or character == "\\"):
            escaped = not escaped
        elif character == '"':
            quoted = not quoted
        elif not quoted:
            plain += character
    return [*plain.split(" "), *(['"'] if quoted else [])]


def _judge(snapshot: Snapshot) -> Judge:
    chains = {
        chain: rules for chain, rules in snapshot.rules.items() if not OWN_CHAINS.match(chain)
    }
    return Judge(chains, effect, Verdict.OPENS if snapshot.whole else Verdict.UNSEEN)


def place(snapshot: Snapshot, others: Sequence[str], policy: str) -> int:
    """How many of the rules of `others` in INPUT our jump belongs behind.

    `policy` is INPUT's without us. Where it accepts, a rule that leaves INPUT lets packets in, and
    they would be dropped by our policy if it stood before our jump.
    """
    most = Verdict.RETURNS if policy == "DROP" else Verdict.SHUTS
    return _judge(snapshot).harmless(others, most)


def stands(snapshot: Snapshot, jump: str) -> bool:
    """Whether nothing before our jump in INPUT can let a packet in.

    What cannot be read is left where it is, so that the jump is not moved at each look.
    """
    entries = snapshot.rules["INPUT"]
    before = entries[:entries.index(jump)]
    return not before or _judge(snapshot).harmless(before, Verdict.UNSEEN) == len(before)


def openings(snapshot: Snapshot, ours: Mapping[str, Rules]) -> list[str]:
    """The rules of others in our chains that can let a packet in; see `foreign.openings`."""
    chains = {
        name: tuple(rule for rule in rules if read_grant(rule) is None)
        if name.startswith(GRANTS) and rules != ours.get(name) else rules
        for name, rules in snapshot.rules.items()
    }
    return foreign.openings(_judge(snapshot), chains, ours)
