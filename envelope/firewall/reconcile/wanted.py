"""What is wanted of the kernel: which networks have which rules, and what callers were told. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from envelope.deadlines import Latest
from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, KernelTable, Key, Rules, version_of
from envelope.firewall.policy import LATEST_END


class Wishes:
    """Rules by network; whatever changes them returns the networks whose rules are to be changed.

    With `proxies`, everyone's rules (`--proxy-port`) are wanted until the latest end of their
    family's grants.
    """

    def __init__(self, table: KernelTable) -> None:
        self.proxies = False
        self._table = table
        self._rules: dict[Key, Rules] = {}
        # What callers were told is in force.
        self._granted: dict[Key, Rules] = {}
        self._ends: dict[int, Latest[int]] = {version: Latest() for version in EVERYONE}

    def get(self, key: Key) -> Rules:
        """The rules that are wanted for a network, none if it shall not be let in."""
        return self._rules.get(key, ())

    def differing(self, in_force: Mapping[Key, Rules]) -> set[Key]:
        """The networks whose rules in force are not as wanted."""
        # One step of the interpreter's, 40 ns for each network.
        return {key for key, _ in self._rules.items() ^ in_force.items()}

    def wanted(self, keys: Set[Key]) -> Set[Key]:
        """Those of these networks that shall be let in."""
        return keys & self._rules.keys()

    def allow(self, key: Key, end: int) -> list[Key]:
        """Want a network let in until `end` (seconds since the epoch)."""
        return self._put(key, self._table.rules(key, end))

    def revoke(self, key: Key) -> list[Key]:
        """Want a network shut out."""
        self._granted.pop(key, None)
        return self._put(key, ())

    def fulfilled(self, key: Key) -> bool:
        """Note that what is wanted for a network is in force; whether that is to be let in."""
        if key not in self._rules:
            return False
        self._granted[key] = self._rules[key]
        return True

    def fall_back(self, key: Key) -> list[Key]:
        """Want what was in force before: a grant's older end, or nothing.

        An end that is earlier than that is still wanted: nobody may be let in for longer.
        """
        older = self._granted.get(key, ())
        end, asked = self._table.end_of(older), self._table.end_of(self.get(key))
        if end is not None and asked is not None and asked < end:
            return []
        return self._put(key, older)

    def move(self, by: int) -> list[Key]:
        """Move every end by so many seconds, since the clock that they are told by was set."""

        def moved(key: Key, rules: Rules) -> Rules:
            end = self._table.end_of(rules)
            return () if end is None else self._table.rules(key, min(end + by, LATEST_END))

        changed = [
            each for key, rules in list(self._rules.items()) if key not in NO_CLIENTS
            for each in self._put(key, moved(key, rules))
        ]
        self._granted = {key: moved(key, rules) for key, rules in self._granted.items()}
        return changed

    def clear(self) -> None:
        """Want nothing any more; no network counts as changed by that."""
        self._rules.clear()

    def _put(self, key: Key, rules: Rules) -> list[Key]:
        self._set(key, rules)
        if not self.proxies:
            return [key]
        version = version_of(key)
        ends = self._ends[version]
        end = self._table.end_of(rules)
        if end is None:
            ends.drop(key)
        else:
            ends.put(key, end)
        everyone = EVERYONE[version]
        latest = ends.end
        self._set(everyone, () if latest is None else self._table.rules(everyone, latest))
        return [key, everyone]

    def _set(self, key: Key, rules: Rules) -> None:
        if rules:
            self._rules[key] = rules
        else:
            self._rules.pop(key, None)
