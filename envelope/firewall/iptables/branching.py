"""How the chains that grants are spread over are split and merged. Pure; see `tree.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeAlias

from envelope.firewall.kernel import Key, parts_of

# Further chains that one chain leads to.
MOST_WAYS: Final = 8
# The networks of a chain, the newest last.
Members: TypeAlias = Mapping[Key, None]


@lru_cache(maxsize=1 << 15)
def number_of(key: Key) -> tuple[int, int]:
    """A network's address as a number, and its prefix."""
    packed, prefix = parts_of(key)
    return int.from_bytes(packed, "big"), prefix


@dataclass(frozen=True, slots=True)
class Node:
    """A chain: the prefix that leads to it, the chain before it, and those that it leads to.

    A packet is compared with `ways` in their order: a prefix stands before those that contain it.
    """

    start: int = 0
    length: int = 0
    before: str = ""
    ways: tuple[str, ...] = ()

    def has(self, start: int, length: int, bits: int) -> bool:
        """Whether a prefix lies within this one."""
        return length >= self.length and (start ^ self.start) >> (bits - self.length) == 0


class Draft:
    """The next state of a tree; `arranged`: chains have come or gone.

    The arguments are the fields of `Tree`. `trunk` is the chain that all others split from.
    """

    def __init__(
        self, root: str, trunk: str, bits: int, most: int,
        nodes: Mapping[str, Node], members: Mapping[str, Members],
    ) -> None:
        self._root = root
        self.trunk = trunk
        self._bits = bits
        self._most = most
        self._before = nodes
        self.nodes = dict(nodes)
        self.members = dict(members)
        self.arranged = False
        # The chains whose networks were copied, to be changed.
        self._own: dict[str, dict[Key, None]] = {}
        self._last = 0

    def put(self, key: Key, chain: str) -> None:
        """Add a network to a chain, as its newest."""
        self.drop(key, chain)
        self._of(chain)[key] = None

    def drop(self, key: Key, chain: str) -> None:
        """Remove a network from a chain, if it is there."""
        self._of(chain).pop(key, None)

    def _of(self, chain: str) -> dict[Key, None]:
        """The networks of a chain, to be changed."""
        if chain not in self._own:
            self._set(chain, dict(self.members[chain]))
        return self._own[chain]

    def _set(self, chain: str, keys: dict[Key, None]) -> None:
        self._own[chain] = self.members[chain] = keys

    def add_trunk(self) -> None:
        """Add a chain behind the first one, for all networks but the newest."""
        self.trunk = self._new_name()
        self.nodes[self.trunk] = Node(before=self._root)
        self.nodes[self._root] = Node(ways=(self.trunk,))
        self._set(self.trunk, {})
        self.arranged = True

    @property
    def depth(self) -> int:
        """The most chains on a way, the first one left out."""
        return max(map(self._depth_of, self.nodes))

    def _depth_of(self, name: str) -> int:
        depth = 0
        while name != self._root:
            name, depth = self.nodes[name].before, depth + 1
        return depth

    def split(self, name: str) -> None:
        """Split a chain until neither its networks nor its ways are too many, if it is there."""
        while name in self.nodes:
            keys, ways = self.members[name], self.nodes[name].ways
            if len(keys) > self._most:
                target = max(self._most // 2, len(keys) // 4)
                part = crowded([number_of(key) for key in keys], target, self._bits)
                child = self._put_chain(name, part, ())
            elif len(ways) > MOST_WAYS:
                prefixes = [(self.nodes[way].start, self.nodes[way].length) for way in ways]
                child = self._group(name, crowded(prefixes, MOST_WAYS // 2, self._bits))
            else:
                return
            self.split(child)

    def _group(self, name: str, part: tuple[int, int]) -> str:
        """Put the ways within a prefix behind one way; returns its chain."""
        within = Node(*part)
        moving: tuple[str, ...] = ()
        around = None
        for way in self.nodes[name].ways:
            node = self.nodes[way]
            if within.has(node.start, node.length, self._bits):
                moving += (way,)
            elif around is None and node.has(*part, self._bits):
                around = way
        if around is None:
            return self._put_chain(name, part, moving)
        # A chain of its own would take networks from this one, whose prefix is shorter.
        self._move(moving, name, around)
        return around

    def _put_chain(self, name: str, part: tuple[int, int], ways: tuple[str, ...]) -> str:
        """Add a chain for the networks of `name` within a prefix, and these ways; returns it."""
        child = self._new_name()
        self.nodes[child] = within = Node(*part, name)
        inside, outside = dict[Key, None](), dict[Key, None]()
        for key in self.members[name]:
            (inside if within.has(*number_of(key), self._bits) else outside)[key] = None
        self._set(child, inside)
        self._set(name, outside)
        self._move(ways, name, child)
        # No other way contains the prefix: its networks would have been there. A chain of few
        # networks may contain other ways; one of many, behind several ways, is compared first.
        old = self.nodes[name]
        self.nodes[name] = replace(old, ways=(child, *old.ways) if ways else (*old.ways, child))
        return child

    def _move(self, ways: tuple[str, ...], before: str, after: str) -> None:
        """Put ways of one chain in front of those of another."""
        old, new = self.nodes[before], self.nodes[after]
        staying = tuple(way for way in old.ways if way not in ways)
        self.nodes[before] = replace(old, ways=staying)
        self.nodes[after] = replace(new, ways=(*ways, *new.ways))
        for way in ways:
            self.nodes[way] = replace(self.nodes[way], before=after)
        self.arranged = True

    def _new_name(self) -> str:
        while True:
            self._last += 1
            name = f"{self._root}-B{self._last}"
            # A chain that goes in this transaction does not come again in it.
            if name not in self._before and name not in self.nodes:
                return name

    def gather(self, name: str) -> None:
        """Merge the small chains that `name` leads to, then `name` itself, then the one before it.

        Does nothing when it was merged already.
        """
        while name in self.nodes:
            for way in self.nodes[name].ways:
                if not self.nodes[way].ways:
                    self._merge_if_small(way)
            node = self.nodes[name]
            if name == self._root or (name == self.trunk and node.ways):
                return
            if len(node.ways) < 2 and not (node.ways and self.members[name]):
                self._merge_if_small(name)
            if name in self.nodes:
                return
            name = node.before

    def _merge_if_small(self, name: str) -> None:
        """Take a chain away if few networks are in it and in the chain that they would be in."""
        size, heir = len(self.members[name]), self._heir(name)
        if size and size + len(self.members[heir]) > self._most // 2:
            return
        node = self.nodes.pop(name)
        before = self.nodes[node.before]
        # The first chain's own are newer.
        self._set(heir, {**self.members.pop(name), **self.members[heir]})
        place = before.ways.index(name)
        self.nodes[node.before] = replace(
            before, ways=(*before.ways[:place], *node.ways, *before.ways[place + 1:])
        )
        for way in node.ways:
            self.nodes[way] = replace(self.nodes[way], before=node.before)
        self.arranged = True

    def _heir(self, name: str) -> str:
        """The chain that the networks of a chain would be in without it."""
        node = self.nodes[name]
        heir = node.before
        ways = self.nodes[heir].ways
        ways = ways[ways.index(name) + 1:]
        while True:
            found = next(
                (way for way in ways
                 if self.nodes[way].has(node.start, node.length, self._bits)), None,
            )
            if found is None:
                return heir
            heir, ways = found, self.nodes[found].ways

    def rebuild(self) -> None:
        """Arrange all networks behind the trunk anew, whatever order they came in."""
        root, trunk = self._root, self.trunk
        first = {root: self.members.pop(root)} if trunk != root else {}
        everyone = {key: None for keys in self.members.values() for key in keys}
        self.nodes = {trunk: Node(before=root if first else "")}
        if first:
            self.nodes[root] = Node(ways=(trunk,))
        self.members, self._own = {**first, trunk: everyone}, {}
        self.split(trunk)


def crowded(
    prefixes: Collection[tuple[int, int]], most: int, bits: int
) -> tuple[int, int]:
    """Find the prefix with at most `most` of these prefixes, and at least about half of that.

    All are pairs of an address and a length. The prefix is as short as it can be.
    """
    inside: Sequence[tuple[int, int]] = [*prefixes]
    length = 0
    while len(inside) > most:
        low, high = min(inside)[0], max(inside)[0]
        shared = min(bits - (low ^ high).bit_length(), min(each for _, each in inside))
        # The next bit parts them; what ends here has none.
        shift = bits - shared - 1
        halves: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for start, each in inside:
            if each > shared:
                halves[start >> shift & 1].append((start, each))
        inside = max(halves, key=len)
        length = shared + 1
    start = inside[0][0] >> (bits - length) << (bits - length)
    return start, length
