"""What the kernel lets in, as far as is known: networks with their rules, and how many. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from envelope.firewall.kernel import EVERYONE, Key, Rules, version_of


class Grants(dict[Key, Rules]):
    """Rules by network; `networks` counts them by address family, everyone's aside.

    Changed by `put` and `replace` only, which keep the count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.networks = dict.fromkeys(EVERYONE, 0)

    def put(self, key: Key, rules: Rules) -> None:
        """Note a network's rules; without any it is not let in."""
        if key not in EVERYONE.values():
            self.networks[version_of(key)] += bool(rules) - (key in self)
        if rules:
            self[key] = rules
        else:
            self.pop(key, None)

    def replace(self, grants: Mapping[Key, Rules]) -> None:
        """Forget everything, and note these."""
        self.clear()
        self.update(grants)
        self.networks = dict.fromkeys(EVERYONE, 0)
        for key in grants.keys() - set(EVERYONE.values()):
            self.networks[version_of(key)] += 1
