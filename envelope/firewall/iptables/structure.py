"""The rules that are there without any grant, and what is remembered in them. Pure.

What was before the first start is remembered with the rules, in the names of chains that nothing
jumps to: `ENVELOPE-WAS-ACCEPT` for INPUT's policy, `ENVELOPE-WAS-LOOSE` when nf_conntrack_tcp_loose
was 1. They come and go in the same transaction as the rules, and the start after a `kill -9` finds
them. Each holds one rule, because `iptables -X` without a name deletes every empty chain.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from envelope.firewall.iptables.ends import end_chain, end_rule
from envelope.firewall.iptables.rules import (
    CHAIN,
    DEVICES,
    GRANTS,
    Rules,
    baseline_rules,
    device_rules,
    kept_closed,
    service_chain,
    service_jumps,
)
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.tree import Tree
from envelope.firewall.kernel import NO_CLIENTS, Key, service_of
from envelope.firewall.policy import Family, RuleChoices

Before: TypeAlias = Literal["ACCEPT", "DROP", "ABSENT"]

_MARKER: Final = "ENVELOPE-WAS-"
_MARKER_RULE: Final = "-j RETURN"
MARKERS: Final = tuple(f"{_MARKER}{was}" for was in ("ACCEPT", "DROP", "ABSENT", "LOOSE"))
_WAS_LOOSE: Final = f"{_MARKER}LOOSE"


def before(snapshot: Snapshot) -> Before:
    """INPUT's policy before the first start: as the marker chain says, else as it is now."""
    for mark in ("ACCEPT", "DROP", "ABSENT"):
        if _MARKER + mark in snapshot.rules:
            return mark
    if not snapshot.exists:
        return "ABSENT"
    return "DROP" if snapshot.policy == "DROP" else "ACCEPT"


def was_loose(snapshot: Snapshot) -> bool:
    """Whether nf_conntrack_tcp_loose was 1 before the first start, as marked."""
    return _WAS_LOOSE in snapshot.rules


def forget() -> list[str]:
    """The lines that remove the marker of nf_conntrack_tcp_loose, once that is restored."""
    return [f":{_WAS_LOOSE} - [0:0]", f"-X {_WAS_LOOSE}"]


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything but the grants; `trees` are the chains that grants are in, by service.

    `loose`: nf_conntrack_tcp_loose was 1 before the first start.
    """

    choices: RuleChoices
    family: Family
    before: Before
    trees: tuple[Tree, ...]
    loose: bool = False

    @classmethod
    def of(
        cls, choices: RuleChoices, family: Family, before: Before, loose: bool = False
    ) -> Structure:
        """The structure of a start."""
        bits, services = family.example.max_prefixlen, choices.services
        if len(services) == 1:
            trees: tuple[Tree, ...] = (
                Tree.of(
                    GRANTS, bits, max(len(set(services[0].ports)), 1), not kept_closed(choices)
                ),
            )
        else:
            trees = tuple(Tree.of(service_chain(n), bits) for n in range(len(services)))
        return cls(choices, family, before, trees, loose)

    def leaf(self, key: Key) -> str:
        """The chain that a grant's rules belong to."""
        if len(self.trees) == 1:
            return self.trees[0].leaf(key)
        return GRANTS if key in NO_CLIENTS else self.trees[service_of(key)].leaf(key)

    def addition(self, chain: str, key: Key) -> str:
        """How the line begins that adds a grant's rule to this chain: the newest come first."""
        number = 0 if len(self.trees) == 1 else service_of(key)
        if key in NO_CLIENTS or not self.trees[number].adds_in_front(chain):
            return f"-A {chain}"
        return f"-I {chain} 1"

    def placed(self, keys: Collection[Key], first: Container[Key]) -> Structure:
        """The structure with these grants in the first chains, or else behind them."""
        return self.with_trees(tuple(
            tree.placed(
                [key for key in keys if len(self.trees) == 1 or service_of(key) == number], first
            )
            for number, tree in enumerate(self.trees)
        ))

    @property
    def newest(self) -> frozenset[Key]:
        """The grants in the first chains."""
        return frozenset(key for tree in self.trees for key in tree.members[tree.root])

    def changed(
        self, coming: Collection[Key], going: Collection[Key], arrange: bool = True
    ) -> Structure:
        """The structure with and without these grants; see `Tree.changed`."""
        if len(self.trees) == 1:
            return self.with_trees((self.trees[0].changed(coming, going, arrange),))
        return self.with_trees(tuple(
            tree.changed(
                [key for key in coming if service_of(key) == number],
                [key for key in going if service_of(key) == number], arrange,
            )
            for number, tree in enumerate(self.trees)
        ))

    def with_trees(self, trees: tuple[Tree, ...]) -> Structure:
        """The structure with these chains for grants."""
        return Structure(self.choices, self.family, self.before, trees, self.loose)

    def as_written(self, ends: Iterable[int]) -> Snapshot:
        """What a reading finds if nobody has changed it, with the chains of `ends`; no grants."""
        policies = {"INPUT": "DROP"} if self.choices.baseline == "service" else {}
        # The devices' chain may stand although it is not wanted any more.
        rules = {
            "INPUT": (self.jump,), DEVICES: (), **self.chains,
            **{end_chain(end): (end_rule(end),) for end in ends},
        }
        return Snapshot(True, policies, rules, whole=False)

    @property
    def emptied(self) -> Structure:
        """The structure without grants."""
        return self.with_trees(tuple(tree.emptied() for tree in self.trees))

    @property
    def chains(self) -> dict[str, Rules]:
        """Our chains with their fixed rules, without grants."""
        choices = self.choices
        chains = {**self.grant_chains}
        if self.loose:
            chains[_WAS_LOOSE] = (_MARKER_RULE,)
        if choices.baseline == "operator":
            if self.before == "ABSENT":
                chains[_MARKER + "ABSENT"] = (_MARKER_RULE,)
            return chains
        chains[_MARKER + self.before] = (_MARKER_RULE,)
        if choices.also_guarded:
            chains[DEVICES] = device_rules(choices)
        return {**chains, CHAIN: tuple(baseline_rules(choices, self.family))}

    @property
    def closed(self) -> Rules:
        """The rules before all grants."""
        return kept_closed(self.choices)

    @property
    def grant_chains(self) -> dict[str, Rules]:
        """The chains that hold grants, with the rules that lead from one to the next."""
        chains = {chain: jumps for tree in self.trees for chain, jumps in tree.chains.items()}
        first = (*self.closed, *service_jumps(self.choices), *chains.pop(GRANTS, ()))
        return {GRANTS: first, **chains}

    @property
    def jump(self) -> str:
        """Our rule in INPUT; `head.place` tells where."""
        return f"-j {CHAIN if self.choices.baseline == 'service' else GRANTS}"
