"""Transactions that may have been applied although the tool did not acknowledge them. Pure.

The next reading shows whether they were. Otherwise the chains of our own transaction would count as
changes by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envelope.firewall.iptables.incremental import lines_of
from envelope.firewall.iptables.rules import Rules, read_grant, respelled, service_in
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.kernel import Key


class Doubt:
    """The transactions that failed since the last reading; true if there are any.

    Until then no other transaction may make or remove chains for grants.
    """

    def __init__(self) -> None:
        # The structure as the first of them would leave it; the others arrange no chains.
        self._then: Structure | None = None
        self._keys: set[Key] = set()

    def __bool__(self) -> bool:
        return self._then is not None

    def add(self, then: Structure, keys: Iterable[Key]) -> None:
        """A transaction that changes the grants of `keys`, and leaves `then`, failed."""
        self._then = self._then or then
        self._keys.update(keys)

    def note(self, keys: Iterable[Key]) -> None:
        """A transaction that changes these grants succeeded."""
        if self:
            self._keys.update(keys)

    def arranged(self, standing: Structure, text: str) -> Structure:
        """The structure with the chains for grants that iptables-save's `text` shows.

        So are the networks in doubt: in the first chain, or else where they belong behind it.
        """
        if self._then is None:
            return standing
        there = set(text.split("\n"))
        both = (standing, standing.with_trees(self._then.trees))
        whole = [each for each in both if there.issuperset(lines_of(each.grant_chains))]
        # Where one has all chains of the other and more, the text may show both.
        shown = max(whole, key=lambda each: len(each.grant_chains), default=standing)
        self._keys |= standing.newest ^ self._then.newest
        return shown.placed(self._keys, newest_in(there, shown))

    def settled(
        self, standing: Structure, found: Mapping[Key, Rules], known: Mapping[Key, Rules]
    ) -> Structure:
        """The structure with the networks that were `found` in its chains; ends the doubt.

        Those that were not `known`, others have put there.
        """
        if strange := found.keys() - known.keys():
            standing = standing.placed(strange, standing.newest)
        keys, self._then, self._keys = self._keys, None, set()
        gone = keys - found.keys()
        return standing.changed((), gone, arrange=False) if gone else standing


def newest_in(lines: Iterable[str], structure: Structure) -> set[Key]:
    """The networks whose rules are in the first chains, by lines of iptables-save."""
    firsts = tuple(f"-A {tree.root} -s " for tree in structure.trees)
    found = set[Key]()
    for line in lines:
        if line.startswith(firsts):
            _, chain, rule = line.split(" ", 2)
            grant = read_grant(respelled(rule), structure.family.version, service_in(chain))
            if grant is not None:
                found.add(grant[0])
    return found
