"""Transactions that may have been applied although the tool did not acknowledge them. Pure.

The next reading shows whether they were. Otherwise the chains of our own transaction would count as
changes by others.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from envelope.firewall.iptables.incremental import lines_of
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
        """The structure with the chains for grants that iptables-save's `text` shows."""
        if self._then is None or self._then.trees == standing.trees:
            return standing
        there = set(text.split("\n"))
        both = (standing, standing.with_trees(self._then.trees))
        whole = [each for each in both if there.issuperset(lines_of(each.grant_chains))]
        # Where one has all chains of the other and more, the text may show both.
        return max(whole, key=lambda each: len(each.grant_chains), default=standing)

    def settled(self, standing: Structure, found: Container[Key]) -> Structure:
        """The structure with the networks that were `found` in its chains; ends the doubt."""
        if self._then is None:
            return standing
        keys, self._then, self._keys = self._keys, None, set()
        coming = {key for key in keys if key in found}
        return standing.changed(coming, keys - coming, arrange=False)
