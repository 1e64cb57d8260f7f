"""What the kernel lets in, as far as is known: networks with their rules, and how many. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, Key, Rules, version_of


class Grants(dict[Key, Rules]):
    """Rules by network; `networks` counts them by address family, everyone's aside.

    Changed by `put` and `replace` only, which keep the count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.networks = dict.fromkeys(EVERYONE, 0)

    def put(self, key: Key, rules: Rules) -> None:
        """Note a network's rules; without any it is not let in."""
        there = key in self
        if rules:
            self[key] = rules
        elif there:
            del self[key]
        if there != bool(rules) and key not in NO_CLIENTS:
            self.networks[version_of(key)] += -1 if there else 1

    def replace(self, grants: Mapping[Key, Rules]) -> None:
        """Note that these are all there are."""
        if grants.keys() != self.keys():
            six = sum(":" in key for key in grants) - (EVERYONE[6] in grants)
            four = len(grants) - six - sum(key in grants for key in NO_CLIENTS)
            self.networks = {4: four, 6: six}
        self.clear()
        self.update(grants)
