"""What the kernel lets in, as written by us or read last: networks with their grants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envelope.firewall.kernel import EVERYONE, Key, W


class InForce(dict[Key, W]):
    """Grants by network."""

    def count(self, version: int) -> int:
        """How many networks of an IP version are let in, `EVERYONE` left out."""
        # 50 ns a network: for a metric, not for each change.
        is_six = version == 6
        return sum((":" in key) == is_six for key in self) - (EVERYONE[version] in self)

    def note(self, grants: Iterable[tuple[Key, W | None]]) -> tuple[()]:
        """Note several networks' grants; None of one that is not let in."""
        for key, grant in grants:
            if grant is None:
                self.pop(key, None)
            else:
                self[key] = grant
        return ()

    def replace(self, grants: Mapping[Key, W]) -> None:
        """Note that `grants` are all that are in force."""
        self.clear()
        self.update(grants)

    def beside(self, wanted: Mapping[Key, W]) -> tuple[Mapping[Key, W], Mapping[Key, W]]:
        """What is wanted, and these in the same order and others last: equal ones look alike."""
        return wanted, {key: self[key] for key in wanted if key in self} | self
