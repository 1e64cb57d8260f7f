"""Our rules as commands of nft: those that should stand, and those that were read last. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from envelope.firewall import RulesInForce
from envelope.firewall.kernel import Key
from envelope.firewall.nftables.printed import Printed
from envelope.firewall.nftables.rules import INPUT, TABLE, Structure, element_of
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot


def in_force(
    structure: Structure,
    printed: Printed,
    wanted: Iterable[Key],
    held: Iterable[Key],
    seen: NftSnapshot | None,
) -> RulesInForce:
    """The structure with elements for the networks that are `wanted` and `held`.

    `seen` is what the last look found, elements left out; None when the structure was put right
    since then.
    """
    fixed = [*_lines(structure, printed.hook, printed.sets, {
        **printed.chains, INPUT: (printed.jump,),
    })]
    found = fixed if seen is None else [*_seen_lines(structure, printed, seen)]
    return RulesInForce(
        tuple(dict.fromkeys([*fixed, *map(_grant, wanted)])),
        tuple(dict.fromkeys([*found, *map(_grant, held)])),
    )


def _seen_lines(structure: Structure, printed: Printed, seen: NftSnapshot) -> Iterator[str]:
    entry = seen.chains.get(INPUT, Chain())
    chains = {
        name: chain.texts for name, chain in seen.chains.items() if name in printed.chains
    }
    if INPUT in seen.chains:
        chains[INPUT] = tuple(text for text in entry.texts if text == printed.jump)
    sets = {
        name: shown.declaration for name, shown in seen.sets.items() if name in printed.sets
    }
    return _lines(structure, entry.hook, sets, chains)


def _lines(
    structure: Structure,
    hook: str,
    sets: Mapping[str, tuple[str, ...]],
    chains: Mapping[str, tuple[str, ...]],
) -> Iterator[str]:
    if INPUT in chains and structure.choices.baseline == "service":
        yield f"nft add chain {TABLE} {INPUT} {{ {hook} }}"
    for name, rules in chains.items():
        if name != INPUT:
            yield f"nft add chain {TABLE} {name}"
        yield from (f"nft add rule {TABLE} {name} {rule}" for rule in rules)
    for name, declaration in sets.items():
        yield f"nft add set {TABLE} {name} {{ {' '.join(declaration)} }}"


def _grant(key: Key) -> str:
    name, element = element_of(key)
    return f"nft add element {TABLE} {name} {{ {element} }}"
