"""iptables-save's text, read again and again: a line that was read before is not parsed anew. Pure.

With 1,000 grants the text has some 1,700 lines, and between two readings few of them change. The
meaning of a line depends on nothing but the line, so each is parsed once and looked up afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from envelope.firewall import grant_key
from envelope.firewall.cooperate import slices
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.iptables.grants import grants_in
from envelope.firewall.iptables.head import openings
from envelope.firewall.iptables.plan import ends_in, mend, moved
from envelope.firewall.iptables.rules import CHAIN, GRANTS, Rules, read_grant, respelled, service_in
from envelope.firewall.iptables.snapshot import INCOMPATIBLE, PARTIAL, Snapshot
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.kernel import DriftKind, Key, Seen

# How the rules of every chain begin that may hold grants.
_GRANT: Final = f"-A {GRANTS}"
_OURS: Final = f"-A {CHAIN}"
# A built-in chain's policy, and how many packets and bytes it has judged.
_POLICY: Final = re.compile(r"(:\S+ [A-Z]+) \[\d+:\d+\]")

# A grant's network, its rule, and the chain that it is in.
Grant: TypeAlias = tuple[Key, str, str]


class Rereader:
    """Remembers the lines of the last text, and what they mean.

    `ends` are the chains that grants end by, with their rules.
    """

    def __init__(self) -> None:
        self.ends: Mapping[int, Rules] = {}
        self._structure: Structure | None = None
        # Each grant's line, with its network, rule and chain; and the rules by network.
        self._lines: dict[str, Grant] = {}
        self._grants: dict[Key, Rules] = {}
        # The lines of the chains that these are in, and whether all of them were there.
        self._fixed: frozenset[str] = frozenset()
        self._intact = False
        # All other lines in their order, and what has to be done about them.
        self._others: list[str] = []
        self._mending: tuple[list[str], list[DriftKind]] = ([], [])
        self._moving: list[str] = []
        self._openings: list[str] = []

    @property
    def others(self) -> list[str]:
        """The lines that are no grants, spelled as we write them."""
        return [*(self._fixed if self._intact else ()), *self._others]

    def read(
        self, text: str, structure: Structure, in_force: Mapping[Key, Rules]
    ) -> Generator[int, None, Seen[Rules]]:
        """What the kernel holds, and the lines that mend the structure; raise `UnreadableRules`.

        Works in steps of `SLICE` lines that are new or gone. Rules that equal those of `in_force`
        are returned as the same objects, which makes comparing them cheap.
        """
        if structure is not self._structure:
            yield from self._follow(structure)
        lines = text.split("\n")
        there = set(lines)
        gone = self._lines.keys() - there
        intact = there >= self._fixed
        others = [line for line in lines if line not in self._lines]
        twice = len(lines) - len(others) != len(self._lines) - len(gone)
        if intact:
            # Hundreds of lines of chains that grants are spread over, all as they should be.
            others = [line for line in others if line not in self._fixed]
        yield len(lines)
        fresh: dict[str, Grant] = {}
        quiet: dict[str, str] = {}
        familiar = set(self._others)
        for part in slices([line for line in others if line not in familiar]):
            for line in part:
                grant = _grant_in(line, structure, in_force)
                if grant is None:
                    quiet[line] = _without_noise(line)
                else:
                    twice = twice or line in fresh
                    fresh[line] = grant
            yield len(part)
        if twice:
            # A grant's rule stands twice, which only others do: rare, so read without shortcuts.
            return self._read_afresh(lines, structure)
        others = [quiet.get(line, line) for line in others if line not in fresh]
        if others != self._others or intact != self._intact:
            self._judge(others, intact, (self._lines.keys() - gone) | fresh.keys(), structure)
        yield from self._note(gone, fresh, in_force)
        return Seen(*self._mending, self._grants, self._moving, self._openings)

    def _follow(self, structure: Structure) -> Generator[int, None, None]:
        """Go over to another structure; mostly one in which some networks have another chain."""
        former = self._structure
        if former is None or replace(former, trees=structure.trees) != structure:
            self._forget(structure)
            return
        changed = {
            name for old, new in zip(former.trees, structure.trees, strict=True)
            if old != new
            for name in new.nodes.keys() | old.nodes.keys() if new.ways(name) != old.ways(name)
        }
        moved = former.newest ^ structure.newest
        lines, grants = dict(self._lines), dict(self._grants)
        suspect = [
            line for line, (key, _, chain) in lines.items() if chain in changed or key in moved
        ]
        for part in slices(suspect):
            for line in part:
                key, rule, chain = lines[line]
                if chain != structure.leaf(key):
                    _leave_out(lines, grants, line, rule)
            yield len(part)
        if structure != former:
            self._forget(structure)
        elif moved and any(line.startswith(_GRANT) for line in self._others):
            # What was astray may be where it belongs: all other lines are judged again.
            self._others = []
        self._structure = structure
        self._lines, self._grants = lines, grants

    def _forget(self, structure: Structure) -> None:
        self._structure = structure
        self._fixed = frozenset(lines_of(structure.grant_chains))
        self._intact = False
        self._lines, self._grants = {}, {}
        self._others, self._mending, self._moving = [], ([], []), []
        self._openings = []

    def _read_afresh(self, lines: list[str], structure: Structure) -> Seen[Rules]:
        self._forget(structure)
        snapshot = Snapshot.of_lines(lines)
        self.ends = ends_in(snapshot.rules)
        grants, _ = grants_in(snapshot, structure)
        seen = Seen(
            *_mend(snapshot, structure), grants, moved(snapshot, structure),
            openings(snapshot, structure.chains),
        )
        self._others = [
            _without_noise(line) for line in lines if _grant_in(line, structure, grants) is None
        ]
        # The next text is read in full.
        self._structure = None
        return seen

    def _judge(
        self, others: list[str], intact: bool, grants: set[str], structure: Structure
    ) -> None:
        snapshot = Snapshot.of_lines(others, structure.grant_chains if intact else None)
        mending, moving = _mend(snapshot, structure), moved(snapshot, structure)
        homeless = structure.grant_chains.keys() - snapshot.rules.keys()
        if homeless and any(line.split(" ", 2)[1] in homeless for line in grants):
            raise UnreadableRules("a grant in a chain that is not there")
        self._others, self._intact = others, intact
        self._mending, self._moving = mending, moving
        self._openings = openings(snapshot, structure.chains)
        self.ends = ends_in(snapshot.rules)

    def _note(
        self, gone: set[str], fresh: dict[str, Grant], in_force: Mapping[Key, Rules]
    ) -> Generator[int, None, None]:
        """Note which lines of grants are gone and which are new; earlier results stay unchanged."""
        if not gone and not fresh:
            return
        lines, grants = dict(self._lines), dict(self._grants)
        for part in slices(gone):
            for line in part:
                _leave_out(lines, grants, line, lines[line][1])
            yield len(part)
        for part in slices(fresh):
            for line in part:
                lines[line] = key, rule, _ = fresh[line]
                rules = tuple(sorted((*grants[key], rule))) if key in grants else (rule,)
                known = in_force.get(key)
                grants[key] = known if known == rules else rules
            yield len(part)
        self._lines, self._grants = lines, grants


def _leave_out(
    lines: dict[str, Grant], grants: dict[Key, Rules], line: str, rule: str
) -> None:
    key = lines.pop(line)[0]
    rules = grants.pop(key)
    if len(rules) > 1:
        grants[key] = tuple(each for each in rules if each != rule)


def lines_of(chains: Mapping[str, Rules]) -> Iterator[str]:
    """The lines of iptables-save for these chains."""
    for chain, rules in chains.items():
        yield f":{chain} - [0:0]"
        yield from (f"-A {chain} {rule}" for rule in rules)


def _grant_in(
    line: str, structure: Structure, in_force: Mapping[Key, Rules]
) -> Grant | None:
    """A grant in its proper chain; None for every other line."""
    if not line.startswith(_GRANT):
        return None
    chain, _, rule = line.removeprefix("-A ").partition(" ")
    rule = respelled(rule)
    key = _key_of(rule, service_in(chain), structure, in_force)
    if key is None or chain != structure.leaf(key):
        return None
    return key, rule, chain


def _key_of(
    rule: str, service: int, structure: Structure, in_force: Mapping[Key, Rules]
) -> Key | None:
    words = rule.split(" ", 2)
    if words[0] == "-s":
        # Nearly all are as we wrote them, and need no parsing.
        key = grant_key(words[1], service)
        if rule in in_force.get(key, ()):
            return key
    grant = read_grant(rule, structure.family.version, service)
    return None if grant is None else grant[0]


def _without_noise(line: str) -> str:
    """A line without what changes though no rule does: its time, its counters, its spelling."""
    if line.startswith(_OURS):
        chain, _, rule = line.removeprefix("-A ").partition(" ")
        return f"-A {chain} {respelled(rule)}"
    if line.startswith("#"):
        return line if line == PARTIAL or INCOMPATIBLE in line else ""
    policy = _POLICY.fullmatch(line)
    return line if policy is None else policy[1]


def _mend(snapshot: Snapshot, structure: Structure) -> tuple[list[str], list[DriftKind]]:
    lines, kinds = mend(snapshot, structure)
    _, astray = grants_in(snapshot, structure)
    return [*lines, *astray], [*kinds, *(DriftKind.STRAY for _ in astray)]
