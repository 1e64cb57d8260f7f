"""What the kernel holds, read from iptables-save's text. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field

from envelope.firewall.ruleset import OWN_CHAINS

_CHAIN = re.compile(r":(?P<name>\S+) (?P<policy>\S+)")


class UnreadableRules(Exception):
    """The text is not what iptables-save prints, or the tool cannot show the whole table."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The filter table of one address family.

    `exists` is False while the kernel has no such table at all. `policies` are those of the
    built-in chains; `rules` maps each chain, built-in or not, to its rules without `-A CHAIN`.
    """

    exists: bool = False
    policies: dict[str, str] = field(default_factory=dict)
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the filter table out of iptables-save's output; raise `UnreadableRules`."""
        policies: dict[str, str] = {}
        rules: dict[str, list[str]] = {}
        table: str | None = None
        exists = False
        for line in text.splitlines():
            if line.startswith("-A ") and table == "filter":
                _, chain, rule = [*line.split(" ", 2), ""][:3]
                if chain not in rules:
                    raise UnreadableRules(f"a rule of the undeclared chain {chain[:40]!r}")
                rules[chain].append(rule)
            elif line.startswith(":") and table == "filter":
                match = _CHAIN.match(line)
                if match is None:
                    raise UnreadableRules("a malformed chain line")
                rules[match["name"]] = []
                if match["policy"] != "-":
                    policies[match["name"]] = match["policy"]
            elif line.startswith("*"):
                if table is not None:
                    raise UnreadableRules("a table without its end")
                table = line[1:]
                exists = exists or table == "filter"
            elif line == "COMMIT":
                table = None
            elif "incompatible" in line:
                raise UnreadableRules("the filter table was changed by nft in ways it cannot show")
            elif line and not line.startswith(("#", "-A ", ":")):
                raise UnreadableRules("a line that is no rule")
        if table is not None:
            raise UnreadableRules("the text ends before its table does")
        return cls(exists, policies, {chain: tuple(lines) for chain, lines in rules.items()})

    @classmethod
    def of(cls, output: bytes) -> Snapshot:
        """Read what iptables-save printed; raise `UnreadableRules`."""
        return cls.parse(output.decode("utf-8", "replace"))

    @property
    def policy(self) -> str:
        """INPUT's policy; a table that does not exist lets everything in."""
        return self.policies.get("INPUT", "ACCEPT")

    @property
    def own_chains(self) -> list[str]:
        """The chains that bear our name."""
        return [chain for chain in self.rules if OWN_CHAINS.match(chain)]

    @property
    def references(self) -> list[tuple[str, str]]:
        """Rules of other chains that jump to ours, as (chain, rule)."""
        return [
            (chain, rule)
            for chain, lines in self.rules.items() if not OWN_CHAINS.match(chain)
            for rule in lines
            if re.search(r"-[jg] ENVELOPE(-\S+)?$", rule)
        ]

    def jumps_to(self, targets: Container[str]) -> list[tuple[str, str]]:
        """Rules that lead from other chains to one of `targets`, as (chain, rule)."""
        return [
            (chain, rule)
            for chain, lines in self.rules.items() if chain not in targets
            for rule in lines
            if rule.rpartition(" ")[2] in targets
        ]
