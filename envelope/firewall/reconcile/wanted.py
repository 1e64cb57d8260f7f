"""What the kernel shall hold: each network's grant, and what callers were told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Generic

from envelope.deadlines import LatestDeadline
from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, Key, W, version_of


class Wanted(Generic[W]):
    """Grants by network, with their ends in reactor seconds.

    `written` turns a network and its end into what the table writes. Every method that changes
    something returns the networks whose rules have to change. With `proxies`, everyone's grant
    (`--proxy-port`) lasts until the latest end of its family's grants.
    """

    def __init__(self, written: Callable[[Key, float], W]) -> None:
        self.proxies = False
        self._written = written
        self._ends: dict[Key, float] = {}
        self._grants: dict[Key, W] = {}
        # The ends that callers were told are in force.
        self._confirmed: dict[Key, float] = {}
        self._ends_of = {version: LatestDeadline() for version in EVERYONE}

    @property
    def grants(self) -> Mapping[Key, W]:
        """Every grant that is wanted."""
        return self._grants

    def get(self, key: Key) -> W | None:
        """The grant wanted for a network, or None when it shall be shut out."""
        return self._grants.get(key)

    def differing(self, in_force: Mapping[Key, W]) -> set[Key]:
        """The networks whose grant in force is not the one that is wanted."""
        # One step of the interpreter: 40 ns a network.
        return {key for key, _ in self._grants.items() ^ in_force.items()}

    def granted(self, keys: Set[Key]) -> Set[Key]:
        """Those of `keys` that shall be let in."""
        return keys & self._grants.keys()

    def allow(self, key: Key, end: float) -> list[Key]:
        """Want a network let in until `end` (reactor seconds)."""
        return self._put(key, end)

    def revoke(self, key: Key) -> list[Key]:
        """Want a network shut out."""
        self._confirmed.pop(key, None)
        return self._put(key, None)

    def confirm(self, key: Key) -> bool:
        """Note that what is wanted for a network is in force; True if that is a grant."""
        end = self._ends.get(key)
        if end is None:
            return False
        self._confirmed[key] = end
        return True

    def fall_back(self, key: Key) -> list[Key]:
        """Want what was confirmed last: a grant with its older end, or none.

        A new end that is earlier than the confirmed one stays wanted: no network may be let in
        for longer than it was asked for.
        """
        older, asked = self._confirmed.get(key), self._ends.get(key)
        if older is not None and asked is not None and asked < older:
            return []
        return self._put(key, older)

    def rewrite(self) -> list[Key]:
        """Write every grant anew with the end that it has: the table's clock was stepped."""
        renewed = {key: self._written(key, end) for key, end in self._ends.items()}
        changed = [key for key, grant in renewed.items() if grant != self._grants[key]]
        self._grants = renewed
        return changed

    def clear(self) -> None:
        """Want nothing any more; this makes no network count as changed."""
        self._ends.clear()
        self._grants.clear()

    def _put(self, key: Key, end: float | None) -> list[Key]:
        self._set(key, end)
        if not self.proxies or key in NO_CLIENTS:
            return [key]
        version = version_of(key)
        ends = self._ends_of[version]
        if end is None:
            ends.drop(key)
        else:
            ends.put(key, end)
        everyone = EVERYONE[version]
        self._set(everyone, ends.latest)
        return [key, everyone]

    def _set(self, key: Key, end: float | None) -> None:
        if end is None:
            self._ends.pop(key, None)
            self._grants.pop(key, None)
        else:
            self._ends[key] = end
            self._grants[key] = self._written(key, end)
