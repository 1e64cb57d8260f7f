"""Many grants, spread over chains, so that a packet is compared with few of their rules. Pure.

The kernel compares a packet with the rules of a chain one after the other. When a chain has too
many grants, those of the prefix in which they are crowded get a chain of their own, and one rule
`-s PREFIX -j CHAIN` leads to it. When grants leave, small chains go back into the one before them.
So the addresses decide where the tree branches: it makes no difference which bits they share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from envelope.firewall.iptables.branching import Draft, Node, number_of
from envelope.firewall.kernel import NO_CLIENTS, Key

# Rules of grants in one chain: with more it is split, and chains with half as many together become
# one. The two are so far apart that a few visits do not move rules to and fro.
MOST_RULES: Final = 32
# Chains on the way to a grant behind the first. nf_tables follows 16 jumps (NFT_JUMP_STACK_SIZE),
# of which an operator's own rules may take some.
DEEPEST: Final = 8
# Networks whose chains are remembered.
_MOST_LEAVES: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Tree:
    """The chains for grants of one address family, from the chain `root` on.

    `bits` is how many bits an address has (32 or 128), `most` how many networks fit into a chain.
    `members` are the networks by the chain that their rules are in; trees with equal chains are
    equal.
    """

    root: str
    bits: int
    most: int = MOST_RULES
    nodes: Mapping[str, Node] = field(default_factory=dict)
    members: Mapping[str, frozenset[Key]] = field(default_factory=dict, compare=False)
    # What was worked out before with the same nodes.
    _leaves: dict[Key, str] = field(default_factory=dict, compare=False, repr=False)
    _rules: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, root: str, bits: int, rules: int = 1) -> Tree:
        """A tree without networks, each of which will have so many `rules`."""
        most = max(MOST_RULES // rules, 2)
        return cls(root, bits, most, {root: Node()}, {root: frozenset()})

    def leaf(self, key: Key) -> str:
        """The chain that a network's rules belong to; those of `EVERYONE` stay in the first."""
        if len(self.nodes) == 1 or key in NO_CLIENTS:
            return self.root
        leaf = self._leaves.get(key)
        if leaf is None:
            if len(self._leaves) >= _MOST_LEAVES:
                self._leaves.clear()
            leaf = self._leaves[key] = self._find_leaf(key)
        return leaf

    def _find_leaf(self, key: Key) -> str:
        leaf = self.root
        chain: str | None = leaf
        start, length = number_of(key)
        while chain is not None:
            leaf = chain
            chain = next(
                (way for way in self.nodes[leaf].ways
                 if self.nodes[way].has(start, length, self.bits)), None,
            )
        return leaf

    def ways(self, chain: str) -> tuple[str, ...] | None:
        """The chains that a chain leads to; None if there is no such chain."""
        node = self.nodes.get(chain)
        return None if node is None else node.ways

    def jump(self, way: str) -> str:
        """The rule that leads to a chain from the one before it."""
        node = self.nodes[way]
        return _jump(node.start, node.length, self.bits, way)

    @property
    def chains(self) -> Mapping[str, tuple[str, ...]]:
        """Each chain's rules that lead to further chains."""
        if not self._rules:
            for name, node in self.nodes.items():
                self._rules[name] = tuple(map(self.jump, node.ways))
        return self._rules

    def emptied(self) -> Tree:
        """The first chain alone."""
        return Tree(
            self.root, self.bits, self.most, {self.root: Node()}, {self.root: frozenset()}
        )

    def changed(
        self, coming: Collection[Key], going: Collection[Key], arrange: bool = True
    ) -> Tree:
        """The tree with and without these networks; without `arrange`, no chain comes or goes."""
        if len(self.nodes) == 1:
            keys = (self.members[self.root].union(coming) - NO_CLIENTS).difference(going)
            if len(keys) <= self.most or not arrange:
                return self._with({self.root: keys})
        draft = Draft(self.root, self.bits, self.most, self.nodes, self.members)
        grown, shrunk = (
            {key: self.leaf(key) for key in keys if key not in NO_CLIENTS}
            for keys in (coming, going)
        )
        for key, chain in grown.items():
            draft.put(key, chain)
        for key, chain in shrunk.items():
            draft.drop(key, chain)
        if arrange:
            for name in sorted({*shrunk.values()}):
                draft.gather(name)
            for name in sorted({*grown.values()}):
                draft.split(name)
            if draft.arranged and draft.depth > DEEPEST:
                draft.rebuild()
        members = {name: frozenset(keys) for name, keys in draft.members.items()}
        if draft.arranged:
            return Tree(self.root, self.bits, self.most, draft.nodes, members)
        return self._with(members)

    def _with(self, members: Mapping[str, frozenset[Key]]) -> Tree:
        return Tree(
            self.root, self.bits, self.most, self.nodes, members, self._leaves, self._rules
        )


@lru_cache(maxsize=1 << 12)
def _jump(start: int, length: int, bits: int, way: str) -> str:
    # From bytes: ip_address would take a small number for IPv4.
    return f"-s {ip_address(start.to_bytes(bits // 8, 'big'))}/{length} -j {way}"
