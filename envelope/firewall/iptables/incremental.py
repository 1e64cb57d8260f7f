"""iptables-save's text, read again and again: a line that was read before is not parsed anew. Pure.

With 1,000 grants the text has some 1,700 lines, and between two readings few of them change. The
meaning of a line depends on nothing but the line, so each is parsed once and looked up afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from typing import Final

from envelope.firewall.cooperate import slices
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.iptables.grants import chain_of, grants_in
from envelope.firewall.iptables.head import openings
from envelope.firewall.iptables.plan import Structure, mend, moved
from envelope.firewall.iptables.rules import CHAIN, GRANTS, Rules, read_grant, respelled
from envelope.firewall.iptables.snapshot import INCOMPATIBLE, PARTIAL, Snapshot
from envelope.firewall.kernel import DriftKind, Key, Seen, one_key

# How the rules of every chain begin that may hold grants.
_GRANT: Final = f"-A {GRANTS}"
_OURS: Final = f"-A {CHAIN}"
# A built-in chain's policy, and how many packets and bytes it has judged.
_POLICY: Final = re.compile(r"(:\S+ [A-Z]+) \[\d+:\d+\]")


class Rereader:
    """Remembers the lines of the last text, and what they mean.

    `others` are those that are no grants, spelled as we write them.
    """

    def __init__(self) -> None:
        self.others: list[str] = []
        self._structure: Structure | None = None
        # Each grant's line, with the network and the rule that it says; and the same by network.
        self._lines: dict[str, tuple[Key, str]] = {}
        self._grants: dict[Key, Rules] = {}
        # The lines of the chains that these are in.
        self._fixed: frozenset[str] = frozenset()
        # All other lines in their order, and what has to be done about them.
        self._others: list[str] = []
        self._mending: tuple[list[str], list[DriftKind]] = ([], [])
        self._moving: list[str] = []
        self._openings: list[str] = []

    def read(
        self, text: str, structure: Structure, in_force: Mapping[Key, Rules]
    ) -> Generator[int, None, Seen[Rules]]:
        """What the kernel holds, and the lines that mend the structure; raise `UnreadableRules`.

        Works in steps of `SLICE` lines that are new or gone. Rules that equal those of `in_force`
        are returned as the same objects, which makes comparing them cheap.
        """
        if structure != self._structure:
            self._forget(structure)
        lines = text.split("\n")
        others = [line for line in lines if line not in self._lines]
        gone = self._lines.keys() - set(lines)
        twice = len(lines) - len(others) != len(self._lines) - len(gone)
        yield len(lines)
        fresh: dict[str, tuple[Key, str]] = {}
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
        if others != self._others:
            self._judge(others, (self._lines.keys() - gone) | fresh.keys(), structure)
        yield from self._note(gone, fresh, in_force)
        self.others = self._others
        return Seen(*self._mending, self._grants, self._moving, self._openings)

    def _forget(self, structure: Structure) -> None:
        self._structure = structure
        self._fixed = frozenset(_lines_of(structure.grant_chains))
        self._lines, self._grants = {}, {}
        self._others, self._mending, self._moving = [], ([], []), []
        self._openings = []

    def _read_afresh(self, lines: list[str], structure: Structure) -> Seen[Rules]:
        self._forget(structure)
        version = structure.family.version
        self.others = [
            _without_noise(line) for line in lines
            if not line.startswith(_GRANT) or read_grant(line.split(" ", 2)[-1], version) is None
        ]
        snapshot = Snapshot.of_lines(lines)
        grants, _ = grants_in(snapshot, structure)
        return Seen(
            *_mend(snapshot, structure), grants, moved(snapshot, structure),
            openings(snapshot, structure.chains),
        )

    def _judge(self, others: list[str], grants: set[str], structure: Structure) -> None:
        if self._fixed.issubset(others):
            # Hundreds of lines of chains that grants are spread over, all as they should be.
            rest = [line for line in others if line not in self._fixed]
            snapshot = Snapshot.of_lines(rest, structure.grant_chains)
        else:
            snapshot = Snapshot.of_lines(others)
        mending, moving = _mend(snapshot, structure), moved(snapshot, structure)
        homeless = structure.grant_chains.keys() - snapshot.rules.keys()
        if homeless and any(line.split(" ", 2)[1] in homeless for line in grants):
            raise UnreadableRules("a grant in a chain that is not there")
        self._others, self._mending, self._moving = others, mending, moving
        self._openings = openings(snapshot, structure.chains)

    def _note(
        self, gone: set[str], fresh: dict[str, tuple[Key, str]], in_force: Mapping[Key, Rules]
    ) -> Generator[int, None, None]:
        """Note which lines of grants are gone and which are new; earlier results stay unchanged."""
        if not gone and not fresh:
            return
        lines, grants = dict(self._lines), dict(self._grants)
        for part in slices(gone):
            for line in part:
                key, rule = lines.pop(line)
                rules = grants.pop(key)
                if len(rules) > 1:
                    grants[key] = tuple(each for each in rules if each != rule)
            yield len(part)
        for part in slices(fresh):
            for line in part:
                lines[line] = key, rule = fresh[line]
                rules = tuple(sorted((*grants[key], rule))) if key in grants else (rule,)
                known = in_force.get(key)
                grants[key] = known if known == rules else rules
            yield len(part)
        self._lines, self._grants = lines, grants


def _lines_of(chains: Mapping[str, Rules]) -> Iterator[str]:
    for chain, rules in chains.items():
        yield f":{chain} - [0:0]"
        yield from (f"-A {chain} {rule}" for rule in rules)


def _grant_in(
    line: str, structure: Structure, in_force: Mapping[Key, Rules]
) -> tuple[Key, str] | None:
    """The network and the rule of a grant in its proper chain; None for every other line."""
    if not line.startswith(_GRANT):
        return None
    chain, _, rule = line.removeprefix("-A ").partition(" ")
    rule = respelled(rule)
    key = _network_of(rule, structure, in_force)
    if key is None or chain != chain_of(structure, key):
        return None
    return key, rule


def _network_of(rule: str, structure: Structure, in_force: Mapping[Key, Rules]) -> Key | None:
    words = rule.split(" ", 2)
    if words[0] == "-s" and "--comment" not in rule:
        # Nearly all are as we wrote them, and need no parsing.
        key = one_key(words[1])
        if rule in in_force.get(key, ()):
            return key
    grant = read_grant(rule, structure.family.version)
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
