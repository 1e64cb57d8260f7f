"""Many grants, spread over chains, so that a packet is compared with few of their rules. Pure.

The kernel compares a packet with the rules of a chain one after the other. When the first chain has
too many grants, it keeps the newest, in front, and all others go to a chain behind it, the trunk.
When a chain has too many, those of the prefix in which they are crowded get a chain of their own,
and one rule `-s PREFIX -j CHAIN` leads to it. When grants leave, small chains go back into the one
before them. So the addresses decide where the tree branches: it makes no difference which bits they
share.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from envelope.firewall.iptables.branching import Draft, Members, Node, number_of
from envelope.firewall.kernel import NO_CLIENTS, Key

# Rules of grants in one chain: with more it is split, and chains with half as many together become
# one. The two are so far apart that a few visits do not move rules to and fro.
MOST_RULES: Final = 32
# The newest grants, which stay in the first chain while there are others. With one more, all but
# the newest go to the other chains, so that they do so a few at a time.
NEWEST: Final = 3
# Chains on the way to a grant behind the first. nf_tables follows 16 jumps (NFT_JUMP_STACK_SIZE),
# of which an operator's own rules may take some.
DEEPEST: Final = 8
# Networks whose chains are remembered.
_MOST_LEAVES: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Tree:
    """The chains for grants of one address family, from the chain `root` on.

    `bits` is how many bits an address has (32 or 128), `most` how many networks fit into a chain,
    and `newest` how many stay in `root` while there are other chains; with 0 it is like the others.
    `members` are the networks by the chain that their rules are in. `moves` counts how often
    networks went from `root` to the trunk; trees with equal chains and moves are equal.
    """

    root: str
    bits: int
    most: int = MOST_RULES
    newest: int = NEWEST
    nodes: Mapping[str, Node] = field(default_factory=dict)
    members: Mapping[str, Members] = field(default_factory=dict, compare=False)
    moves: int = 0
    # What was worked out before with the same nodes.
    _leaves: dict[Key, str] = field(default_factory=dict, compare=False, repr=False)
    _rules: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, root: str, bits: int, rules: int = 1, apart: bool = True) -> Tree:
        """A tree without networks, each of which will have so many `rules`.

        With `apart`, the newest networks are kept apart from the others.
        """
        most = max(MOST_RULES // rules, 2)
        newest = max(NEWEST // rules, 1) if apart else 0
        return cls(root, bits, most, newest, {root: Node()}, {root: {}})

    def leaf(self, key: Key) -> str:
        """The chain that a network's rules are in; those of `EVERYONE` stay in the first.

        For a network that is in no chain, the one that it would be in if it were not new.
        """
        if len(self.nodes) == 1 or key in NO_CLIENTS or key in self.members[self.root]:
            return self.root
        return self._behind(key)

    def _behind(self, key: Key) -> str:
        """The chain for a network that is not among the newest."""
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

    @property
    def trunk(self) -> str:
        """The chain that all others split from."""
        return next(iter(self.nodes[self.root].ways), self.root) if self.newest else self.root

    def adds_in_front(self, chain: str) -> bool:
        """Whether a new rule goes in front of a chain's others: not where those lead further."""
        return self.newest > 0 and (chain == self.root or not self.nodes[chain].ways)

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
            self.root, self.bits, self.most, self.newest, {self.root: Node()}, {self.root: {}}
        )

    def changed(
        self, coming: Collection[Key], going: Collection[Key], arrange: bool = True
    ) -> Tree:
        """The tree with and without these networks; without `arrange`, no others move."""
        spread = len(self.nodes) > 1
        if self.newest or not spread:
            first, elsewhere = dict(self.members[self.root]), False
            for key in coming:
                if not spread or self._is_new(key):
                    first.pop(key, None)
                    first[key] = None
            for key in going:
                if key in first:
                    del first[key]
                else:
                    elsewhere = spread
            for key in NO_CLIENTS:
                first.pop(key, None)
            room = self.newest if spread else self.most
            if not elsewhere and (len(first) <= room or not arrange):
                return self._with({**self.members, self.root: first})
        return self._rearranged(coming, going, arrange)

    def _is_new(self, key: Key) -> bool:
        """Whether a network that comes goes to the first chain, or is there."""
        leaf = self.leaf(key)
        return self.newest > 0 and (leaf == self.root or key not in self.members[leaf])

    def _rearranged(
        self, coming: Collection[Key], going: Collection[Key], arrange: bool
    ) -> Tree:
        root, trunk, moves = self.root, self.trunk, self.moves
        draft = Draft(root, trunk, self.bits, self.most, self.nodes, self.members)
        grown = {
            key: root if self._is_new(key) else self.leaf(key)
            for key in coming if key not in NO_CLIENTS
        }
        shrunk = {key: self.leaf(key) for key in going if key not in NO_CLIENTS}
        for key, chain in grown.items():
            draft.put(key, chain)
        for key, chain in shrunk.items():
            draft.drop(key, chain)
        if arrange:
            first = [*draft.members[root]]
            if self.newest and len(first) > (self.most if trunk == root else self.newest):
                moves += 1
                if trunk == root:
                    draft.add_trunk()
                for key in first[:-1]:
                    grown[key] = draft.trunk if trunk == root else self._behind(key)
                    draft.drop(key, root)
                    draft.put(key, grown[key])
            for name in sorted({*shrunk.values()}):
                draft.gather(name)
            for name in sorted({*grown.values()}):
                if name != root or draft.trunk == root:
                    draft.split(name)
            if draft.arranged and draft.depth > DEEPEST:
                draft.rebuild()
        if draft.arranged:
            return Tree(
                root, self.bits, self.most, self.newest, draft.nodes, draft.members, moves
            )
        return self._with(draft.members, moves)

    def placed(self, keys: Collection[Key], first: Container[Key]) -> Tree:
        """The tree with these networks in the first chain, or else behind it."""
        draft = Draft(self.root, self.trunk, self.bits, self.most, self.nodes, self.members)
        for key in keys:
            if key not in NO_CLIENTS:
                draft.drop(key, self.leaf(key))
                draft.put(key, self.root if self.newest and key in first else self._behind(key))
        return self._with(draft.members)

    def _with(self, members: Mapping[str, Members], moves: int | None = None) -> Tree:
        return Tree(
            self.root, self.bits, self.most, self.newest, self.nodes, members,
            self.moves if moves is None else moves, self._leaves, self._rules,
        )


@lru_cache(maxsize=1 << 12)
def _jump(start: int, length: int, bits: int, way: str) -> str:
    if not length:
        return f"-j {way}"
    # From bytes: ip_address would take a small number for IPv4.
    return f"-s {ip_address(start.to_bytes(bits // 8, 'big'))}/{length} -j {way}"
