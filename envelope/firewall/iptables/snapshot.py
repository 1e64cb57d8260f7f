"""The filter table as iptables-save prints it, read into values. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from envelope.firewall.errors import UnreadableRules
from envelope.firewall.iptables.rules import CHAIN, OWN_CHAINS, OWN_JUMP, respelled

# What iptables-nft-save says, in a comment, of a table that it does not print at all. (Of a table
# with base chains of others it says "contains incompatible base-chains", and prints the rest.)
INCOMPATIBLE: Final = "Table `filter' is incompatible"
# A comment of ours in a text that holds INPUT and our own chains alone.
PARTIAL: Final = "# only INPUT and the chains of envelope were read"


def text_of(output: bytes) -> str:
    """Decode what a tool printed; comments in it may hold any bytes (see `Dialect.text`)."""
    return output.decode("utf-8", "surrogateescape")


def written_by_nft(text: str) -> bool:
    """Whether iptables-nft-save printed this text, so that nf_tables holds all of the rules."""
    return "(nf_tables)" in text.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The filter table of one address family.

    `exists` is False while the kernel has no such table at all. `policies` are those of the
    built-in chains; `rules` maps each chain, built-in or not, to its rules without `-A CHAIN`.
    `whole` is False when only INPUT and our own chains were read.
    """

    exists: bool = False
    policies: dict[str, str] = field(default_factory=dict)
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    whole: bool = True

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the filter table out of iptables-save's output; raise `UnreadableRules`.

        No character but the newline ends a line, whatever a comment among them holds.
        """
        return cls.of_lines(text.split("\n"))

    @classmethod
    def of_lines(
        cls, lines: Iterable[str], besides: Mapping[str, Iterable[str]] | None = None
    ) -> Snapshot:
        """Read the table out of lines; `besides` are chains and rules whose lines were left out."""
        policies: dict[str, str] = {}
        rules = {chain: [*lines] for chain, lines in (besides or {}).items()}
        table: str | None = None
        exists, whole = False, True
        for line in lines:
            if line.startswith("-A ") and table == "filter":
                chain, _, rule = line[3:].partition(" ")
                if chain not in rules:
                    raise UnreadableRules(f"a rule of the undeclared chain {chain[:40]!r}")
                rules[chain].append(respelled(rule) if chain.startswith(CHAIN) else rule)
            elif line.startswith(":") and table == "filter":
                chain, policy, *_ = [*line[1:].split(" "), ""]
                if not chain or not policy:
                    raise UnreadableRules("a malformed chain line")
                rules[chain] = []
                if policy != "-":
                    policies[chain] = policy
            elif line.startswith("*"):
                if table is not None:
                    raise UnreadableRules("a table without its end")
                table = line[1:]
                exists = exists or table == "filter"
            elif line == "COMMIT":
                table = None
            elif line.startswith("#") and INCOMPATIBLE in line:
                raise UnreadableRules("iptables-save cannot print a rule that nft wrote")
            elif line == PARTIAL:
                whole = False
            elif line and not line.startswith(("#", "-A ", ":")):
                raise UnreadableRules("a line that is no rule")
        if table is not None:
            raise UnreadableRules("the text ends before its table does")
        return cls(exists, policies, {chain: tuple(lines) for chain, lines in rules.items()}, whole)

    @classmethod
    def of(cls, output: bytes) -> Snapshot:
        """Read what iptables-save printed; raise `UnreadableRules`."""
        return cls.parse(text_of(output))

    @property
    def policy(self) -> str:
        """INPUT's policy; without the table it is ACCEPT."""
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
            if OWN_JUMP.match(rule)
        ]

    def jumps_to(self, targets: Container[str]) -> list[tuple[str, str]]:
        """Rules that lead from other chains to one of `targets`, as (chain, rule)."""
        return [
            (chain, rule)
            for chain, lines in self.rules.items() if chain not in targets
            for rule in lines
            if rule.rpartition(" ")[2] in targets
        ]
