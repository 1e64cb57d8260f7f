"""What the kernel lets in, as written by us or read last: networks with their grants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, Key, W, version_of


class InForce(dict[Key, W]):
    """Grants by network. Change it by `put` and `replace` only: they keep the count."""

    def __init__(self) -> None:
        super().__init__()
        self._networks = dict.fromkeys(EVERYONE, 0)

    def count(self, version: int) -> int:
        """How many networks of an IP version are let in, `EVERYONE` left out."""
        return self._networks[version]

    def put(self, key: Key, grant: W | None) -> None:
        """Note a network's grant; None when it is not let in."""
        there = key in self
        if grant is not None:
            self[key] = grant
        elif there:
            del self[key]
        if there != (grant is not None) and key not in NO_CLIENTS:
            self._networks[version_of(key)] += -1 if there else 1

    def note(self, grants: Iterable[tuple[Key, W | None]]) -> tuple[()]:
        """Note several networks' grants."""
        for key, grant in grants:
            self.put(key, grant)
        return ()

    def replace(self, grants: Mapping[Key, W]) -> None:
        """Note that `grants` are all that are in force."""
        if grants.keys() != self.keys():
            six = sum(":" in key for key in grants) - (EVERYONE[6] in grants)
            four = len(grants) - six - sum(key in grants for key in NO_CLIENTS)
            self._networks = {4: four, 6: six}
        self.clear()
        self.update(grants)

    def beside(self, wanted: Mapping[Key, W]) -> tuple[Mapping[Key, W], Mapping[Key, W]]:
        """What is wanted, and these in the same order and others last: equal ones look alike."""
        return wanted, {key: self[key] for key in wanted if key in self} | self
