"""Our structure in the wording of the nft that is installed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from envelope.firewall.errors import UnreadableRules
from envelope.firewall.nftables.head import stands
from envelope.firewall.nftables.rules import (
    BASELINE,
    DEVICES,
    INPUT,
    Structure,
    device_rule,
    device_rules,
)
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot


@dataclass(frozen=True, slots=True)
class Printed:
    """Our structure as this nft prints it; the wording differs from version to version.

    `chains` has the rules of each of our chains, `jump` the one in INPUT, `hook` the declaration
    of INPUT, and `sets` those of our sets.
    """

    chains: dict[str, tuple[str, ...]]
    sets: dict[str, tuple[str, ...]]
    hook: str
    jump: str

    @classmethod
    def learn(cls, snapshot: NftSnapshot, structure: Structure) -> Printed:
        """Take the wording from what nft shows right after the structure was written.

        Raises `UnreadableRules` when that cannot be what was written.
        """
        entry = snapshot.chains.get(INPUT, Chain())
        chains = {
            name: snapshot.chains.get(name, Chain()).texts for name in structure.chains
        }
        whole = all(
            len(chains[name]) == len(rules) for name, rules in structure.chains.items()
        ) and all(name in snapshot.sets for name in structure.sets)
        whole = whole and entry.texts.count(structure.jump) == 1 and bool(entry.hook)
        if not whole or not stands(snapshot, entry.texts, structure.jump):
            raise UnreadableRules("the rules do not stand as written")
        sets = {name: snapshot.sets[name].declaration for name in structure.sets}
        return cls(chains, sets, entry.hook, structure.jump)

    def guarding(self, structure: Structure) -> Printed:
        """The same with the devices of `structure` guarded; it was learned with one alone.

        All versions print these rules as they are written.
        """
        wanted = device_rules(structure.choices)
        if not wanted:
            return self
        baseline = (device_rule(structure.choices), *self.chains[BASELINE][1:])
        return replace(self, chains={**self.chains, DEVICES: wanted, BASELINE: baseline})
