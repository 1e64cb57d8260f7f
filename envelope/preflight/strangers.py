"""Rules of others that lead strangers past INPUT, and two firewalls in one network. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import ip_network
from typing import Final

from envelope.addresses import Address
from envelope.preflight.findings import Finding, ok, warn
from envelope.preflight.hostrules import HostRules

# Rules named in one line.
_MOST_NAMED: Final = 5
# "ct status dnat" asks for what another rule has done.
_DIVERTS: Final = re.compile(
    r"-j (?:DNAT|REDIRECT|NETMAP|TPROXY)\b|(?<!status )\b(?:dnat|redirect|tproxy)\b")
_LEADS: Final = re.compile(r"(?:-[jg]|\bjump|\bgoto) ([^\s;,}]+)")
# nft quotes one name; what it does not quote are several names, as a set or a map.
_IN_DEVICE: Final = re.compile(r'(!?) ?(?:-i |iifname |iif )(!= )?((?<=-i )[^\s"]+|"[^"]+")')
_TO: Final = re.compile(r"(!?) ?(?:-d |ip6? daddr )(!= )?([\da-f.:]+(?:/\d+)?)")
# Names of devices, which are kept; comments and prefixes for the log, which may hold any words.
# iptables-save quotes a comment only where it must.
_TEXT: Final = re.compile(
    r'(\b(?:iif|iifname) (?:!= )?"[^"]*")|"(?:[^"\\]|\\.)*"|--comment [^\s"]+')
_BASE: Final = re.compile(r"type \S+ hook prerouting\b")


def judge_diversions(
    rules: HostRules, device: str, addresses: Mapping[str, Set[Address]]
) -> Finding:
    """Warn of rules that lead packets which come in by `device` to another host, or another port.

    Packets to a container's published port pass FORWARD and not INPUT, which the service guards.
    `addresses` has those of each device: no stranger's packet is for loopback or another device's.
    """
    own = addresses.get(device, set())
    elsewhere = {each for held in addresses.values() for each in held} - own
    named = list(dict.fromkeys(_diversions(rules, device, elsewhere)))
    if not named:
        return ok("no rule leads strangers past INPUT (DNAT, REDIRECT)")
    more = f", and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return warn(
        f"rules lead strangers past INPUT, which alone is guarded: "
        f"{', '.join(named[:_MOST_NAMED])}{more}",
        "publish these ports on 127.0.0.1 or on another device, or refuse strangers in FORWARD",
    )


def _diversions(rules: HostRules, device: str, elsewhere: Set[Address]) -> Iterator[str]:
    for part in rules.saved.values():
        for table, text in re.findall(r"(?ms)^\*(\w+)$(.*?)^COMMIT$", part.text):
            chains: dict[str, list[str]] = {}
            for chain, rule in re.findall(r"(?m)^-A (\S+) (.*)$", text):
                chains.setdefault(chain, []).append(rule)
            for chain, rule in _reached(chains, ["PREROUTING"], device, elsewhere):
                yield f"{rule!r} in chain {chain} of {part.name}'s table {table}"
    for part in rules.tables.values():
        blocks = chains_of(part.text)
        bases = [name for name, lines in blocks.items() if any(map(_BASE.match, lines))]
        for chain, rule in _reached(blocks, bases, device, elsewhere):
            yield f"{rule!r} in chain {chain} of {part.name}"


def chains_of(text: str) -> dict[str, list[str]]:
    """The chains of a table as nft prints it, with their lines."""
    return {
        name: [line.strip() for line in block.splitlines() if line.strip()]
        for name, block in re.findall(r"(?ms)^\tchain (\S+) \{$(.*?)^\t\}$", text)
    }


def _reached(
    chains: Mapping[str, Iterable[str]], begin: list[str], device: str, elsewhere: Set[Address]
) -> Iterator[tuple[str, str]]:
    """The rules that divert packets from `device`, in chains that these packets can come to."""
    waiting, seen = list(begin), set(begin)
    while waiting:
        chain = waiting.pop(0)
        for rule in chains.get(chain, ()):
            words = _TEXT.sub(r"\1", rule)
            if not _matches(words, device) or _is_for(elsewhere, words):
                continue
            if _DIVERTS.search(words):
                yield chain, rule
            for target in _LEADS.findall(words):
                if target in chains and target not in seen:
                    seen.add(target)
                    waiting.append(target)


def _matches(rule: str, device: str) -> bool:
    """Whether a rule can match a packet that comes in by `device`."""
    found = _IN_DEVICE.search(rule)
    if found is None:
        return True
    name = found[3].strip('"')
    same = device.startswith(name[:-1]) if name[-1] in "+*" else device == name
    return same != bool(found[1] or found[2])


def _is_for(elsewhere: Set[Address], rule: str) -> bool:
    """Whether a rule matches only packets to loopback, or to one of the addresses `elsewhere`."""
    found = _TO.search(rule)
    if found is None or found[1] or found[2]:
        return False
    try:
        network = ip_network(found[3])
    except ValueError:
        return False
    return network.is_loopback or (
        network.num_addresses == 1 and network.network_address in elsewhere)


def judge_mixture(rules: HostRules) -> Finding:
    """Warn of rules in both of the kernel's firewalls: each tool shows only one of them."""
    legacy = [part.name for (_, kind), part in rules.saved.items()
              if kind == "legacy" and not part.is_empty]
    others = [part.name for (_, kind), part in rules.saved.items()
              if kind == "nft" and not part.is_empty]
    others += [part.name for part in rules.tables.values() if not part.is_empty]
    if legacy and others:
        return warn(
            f"there are rules of iptables-legacy ({', '.join(legacy)}) and of nftables "
            f"({', '.join(others)}) in this network: both decide, and each tool shows only its own",
            "use one of the two, and remove the rules of the other one",
        )
    return ok("iptables-legacy and nftables are not mixed")
