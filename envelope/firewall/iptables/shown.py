"""Our rules as commands of iptables: those that should stand, and those read last. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from envelope.firewall import RulesInForce
from envelope.firewall.iptables.ends import end_chain, end_rule, read_end
from envelope.firewall.iptables.grants import end_of
from envelope.firewall.iptables.rules import OWN_CHAINS, Rules
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.kernel import Key
from envelope.firewall.policy import IPV4
from envelope.text import printable


def in_force(
    structure: Structure,
    wanted: Mapping[Key, Rules],
    held: Mapping[Key, Rules],
    seen: Iterable[str],
    mended: bool,
) -> RulesInForce:
    """The structure with the grants that are `wanted` and `held`.

    `seen` are the lines of iptables-save that the last look found, without grants. With `mended`,
    the structure was put right since then, and only rules of others in our chains are added to it.
    """
    tool = "iptables" if structure.family is IPV4 else "ip6tables"
    fixed = dict.fromkeys(_as_wanted(structure))
    found = dict.fromkeys(_ours(structure, seen))
    if mended:
        strays = [line for line in found if line.startswith("-A") and line not in fixed]
        found = dict.fromkeys([*fixed, *strays])
    return RulesInForce(
        tuple(f"{tool} {line}" for line in dict.fromkeys([*fixed, *_grants(structure, wanted)])),
        tuple(f"{tool} {line}" for line in dict.fromkeys([*found, *_grants(structure, held)])),
    )


def _as_wanted(structure: Structure) -> Iterator[str]:
    if structure.choices.baseline == "service":
        yield "-P INPUT DROP"
    yield f"-A INPUT {structure.jump}"
    for chain, rules in structure.chains.items():
        yield f"-N {chain}"
        yield from (f"-A {chain} {rule}" for rule in rules)


def _ours(structure: Structure, seen: Iterable[str]) -> Iterator[str]:
    for line in seen:
        words = line.split(" ", 2)
        end = read_end(words[0][1:] if line.startswith(":") else words[1] if words[1:] else "")
        if end is not None and (line.startswith(":") or words[2:] == [end_rule(end)]):
            # Made ahead of time; those that grants refer to are shown with them.
            continue
        if line.startswith(":INPUT "):
            # With the operator's own baseline, the policy is the operator's too.
            if words[1] == "DROP" and structure.choices.baseline == "service":
                yield "-P INPUT DROP"
        elif line.startswith(":") and OWN_CHAINS.match(words[0][1:]):
            yield f"-N {words[0][1:]}"
        elif words[0] == "-A" and len(words) == 3 and (
            OWN_CHAINS.match(words[1])
            or (words[1] == "INPUT" and OWN_CHAINS.match(words[2].removeprefix("-j ")))
        ):
            yield printable(line)


def _grants(structure: Structure, grants: Mapping[Key, Rules]) -> Iterator[str]:
    for end in sorted({end for rules in grants.values() if (end := end_of(rules)) is not None}):
        yield from (f"-N {end_chain(end)}", f"-A {end_chain(end)} {end_rule(end)}")
    for key, rules in grants.items():
        chain = structure.leaf(key)
        yield from (f"-A {chain} {rule}" for rule in rules)
