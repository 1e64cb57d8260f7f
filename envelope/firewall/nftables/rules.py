"""The rules of `--firewall=nftables` as text in nft's own form. Pure.

One table of family inet filters both address families. Grants are elements of its sets, each with
a timeout of its own: the kernel looks a packet's address up instead of comparing rule by rule, and
the rules never change. The sets hold addresses with the bits beyond the prefix masked away: with
sets of intervals a change would cost more the more elements there are (10,000: 28 ms).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeAlias

from envelope.addresses import Opening, PortRange
from envelope.config.subjects import Service
from envelope.firewall import grant_key
from envelope.firewall.kernel import EVERYONE, Key, service_of, version_of
from envelope.firewall.policy import IPV4, IPV6, RuleChoices

TABLE: Final = "inet envelope"
INPUT: Final = "input"
BASELINE: Final = "baseline"
# Nothing jumps to it: its name tells something from before the first start.
WAS_LOOSE: Final = "was_loose"
DEVICES: Final = "guarded"
GRANTS: Final = "grants"
HOOK: Final = "type filter hook input priority filter; policy drop;"

PROXIES: Final = "proxies"
# A set of ours: grants of one address family, for the first service or for another one.
_SET: Final = re.compile(r"grants(?P<version>[46])(?:_(?P<service>[1-9]\d{0,3}))?")
# An element, and for how many milliseconds it lasts.
_Change: TypeAlias = tuple[str, int | None]
_UNKNOWN: Final[Mapping[Key, bool]] = {}
# nft's names of the address families, which are the elements of `PROXIES`.
_NAMES: Final = {4: "ipv4", 6: "ipv6"}


def set_name(version: int, service: int = 0) -> str:
    """The set with a service's grants for one address family."""
    return f"grants{version}_{service}" if service else f"grants{version}"


@lru_cache(maxsize=1 << 8)
def read_set_name(name: str) -> tuple[int, int] | None:
    """The address family and the service of a set of grants; None for another set."""
    match = _SET.fullmatch(name)
    return (int(match["version"]), int(match["service"] or 0)) if match else None


def is_own_set(name: str) -> bool:
    """Whether a set of this name is ours."""
    return name == PROXIES or _SET.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything but the grants; `loose`: nf_conntrack_tcp_loose was 1 before the first start.

    `counts`: elements count what they let in, which old versions of nft cannot say.
    """

    choices: RuleChoices
    loose: bool = False
    counts: bool = True

    @property
    def sets(self) -> dict[str, str]:
        """Our sets, each with its declaration. Those of grants count, element by element."""
        counter = " counter;" if self.counts else ""
        sets = {
            set_name(version, number): f"type ipv{version}_addr; flags timeout;{counter}"
            for number in range(len(self.choices.services)) for version in (4, 6)
        }
        if self.choices.proxy_port:
            sets[PROXIES] = "type nf_proto; flags timeout;"
        return sets

    @property
    def chains(self) -> dict[str, tuple[str, ...]]:
        """Our chains with their rules, each after the chains that it jumps to; without INPUT."""
        chains = {GRANTS: tuple(_grant_rules(self.choices))}
        if self.choices.baseline == "operator":
            return chains
        if self.loose:
            chains[WAS_LOOSE] = ()
        if self.choices.also_guarded:
            chains[DEVICES] = device_rules(self.choices)
        return {**chains, BASELINE: tuple(_baseline_rules(self.choices))}

    @property
    def jump(self) -> str:
        """The rule that belongs at the head of INPUT."""
        return f"jump {GRANTS if self.choices.baseline == 'operator' else BASELINE}"


def _ports(ports: PortRange) -> str:
    last = "" if ports.first == ports.last else f"-{ports.last}"
    return f"{ports.protocol} dport {ports.first}{last}"


def _opening(opening: Opening) -> str:
    if isinstance(opening, PortRange):
        return _ports(opening)
    return f"meta l4proto {opening.number}"


def _baseline_rules(choices: RuleChoices) -> list[str]:
    direction = " ct direction reply" if choices.established == "cut" else ""
    return [
        device_rule(choices),
        "ip protocol icmp accept",
        # These are nft's own words; others it looks up in /etc/protocols, which may be missing.
        "meta nfproto ipv6 meta l4proto icmpv6 accept",
        # DHCPv6 answers and TCP resets: see `envelope.firewall.iptables.rules`.
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        *(f"{_opening(each)} accept" for each in
          dict.fromkeys((*choices.service_ports, *choices.allow))),
        f"ct state established,related{direction} accept",
        *(f"{_ports(ports)} reject with tcp reset" for ports in choices.closed_ports),
        f"jump {GRANTS}",
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx type port-unreachable",
    ]


def device_rule(choices: RuleChoices) -> str:
    """The first rule of the baseline: what comes in by no guarded device is accepted."""
    return f"jump {DEVICES}" if choices.also_guarded else f'iifname != "{choices.device}" accept'


def device_rules(choices: RuleChoices) -> tuple[str, ...]:
    """The rules of the chain that tells several guarded devices from others; none for one device.
    """
    if not choices.also_guarded:
        return ()
    matches = ("" if name == "*" else f'iifname "{name}" ' for name in choices.guarded("*"))
    return (*(f"{match}return" for match in matches), "accept")


def _grant_rules(choices: RuleChoices) -> list[str]:
    # An operator's own rules go on with what no grant opens; ours have refused it before.
    closed = choices.closed_ports if choices.baseline == "operator" else ()
    rules = [f"{_ports(each)} return" for each in closed]
    rules += [
        f"{port}{_source(version, choices.prefix(version))} @{set_name(version, number)} accept"
        for number, service in enumerate(choices.services) for version in (4, 6)
        for port in _matches(service)
    ]
    if choices.proxy_port:
        open_ports = ", ".join(map(str, sorted(set(choices.proxy_port))))
        rules.append(f"meta nfproto @{PROXIES} tcp dport {{ {open_ports} }} accept")
    return rules


def _matches(service: Service) -> Iterator[str]:
    """A service's ports. They stand before the set, which counts each packet that is looked up."""
    if not service.ports:
        yield ""
    for ports in dict.fromkeys(service.ports):
        yield f"{_ports(ports)} "


def _source(version: int, prefix: int) -> str:
    network = IPv4Network(f"0.0.0.0/{prefix}") if version == 4 else IPv6Network(f"::/{prefix}")
    masked = "" if prefix == network.max_prefixlen else f" & {network.netmask}"
    return f"{'ip' if version == 4 else 'ip6'} saddr{masked}"


def ruleset(structure: Structure) -> str:
    """The whole table, as `nft -f` takes it."""
    blocks = [(f"set {name}", [declaration]) for name, declaration in structure.sets.items()]
    blocks += [(f"chain {name}", [*rules]) for name, rules in structure.chains.items()]
    blocks.append((f"chain {INPUT}", [HOOK, structure.jump]))
    lines = [f"table {TABLE} {{"]
    for name, content in blocks:
        lines += [f"\t{name} {{", *(f"\t\t{line}" for line in content), "\t}"]
    return "\n".join((*lines, "}"))


def duration(milliseconds: int) -> str:
    """A time as nft reads it, `1d2h3m4s5ms`; nft reads no number of more than eight digits."""
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, full = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (full, "s"), (thousandths, "ms"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)


def element_of(key: Key) -> tuple[str, str]:
    """The set that holds a network's grant, and the element's name in it."""
    version = version_of(key)
    if key == EVERYONE[version]:
        return PROXIES, _NAMES[version]
    return set_name(version, service_of(key)), key.partition("/")[0]


def change_elements(
    ends: Iterable[tuple[Key, int | None]], standing: Mapping[Key, bool] = _UNKNOWN
) -> list[str]:
    """The commands that let networks in for so many milliseconds, or, with None, shut them out.

    `standing` holds the networks of which it is certain whether they have an element now. Adding an
    element that exists keeps its old timeout on some kernels, and deleting one that does not exist
    (or has just run out) fails the whole transaction. So an element in doubt is added, deleted, and
    added again with its new timeout. If nft is killed after it has read the beginning of a long
    transaction, each element still has a timeout.
    """
    touched: dict[str, tuple[list[_Change], list[_Change], list[_Change]]] = {}
    for key, milliseconds in ends:
        name, element = element_of(key)
        doubtful, going, staying = touched.setdefault(name, ([], [], []))
        there = standing.get(key)
        if there is None:
            doubtful.append((element, milliseconds or 1))
        if there is not False:
            going.append((element, None))
        if milliseconds is not None:
            staying.append((element, milliseconds))
    return [
        _elements(verb, name, changes)
        for name, steps in touched.items()
        for verb, changes in zip(("add", "delete", "add"), steps, strict=True) if changes
    ]


def forget(structure: Structure) -> list[str]:
    """The commands that remove the marker of nf_conntrack_tcp_loose, once that is restored."""
    return [f"delete chain {TABLE} {WAS_LOOSE}"] if WAS_LOOSE in structure.chains else []


def probe() -> list[str]:
    """Commands that make and remove a grant of either address family."""
    keys = [grant_key(str(family.example), 0) for family in (IPV4, IPV6)]
    return [*change_elements((key, 1000) for key in keys),
            *change_elements((key, None) for key in keys)]


def _elements(verb: str, name: str, changes: Sequence[_Change]) -> str:
    listed = ", ".join(
        element if lasts is None else f"{element} timeout {duration(lasts)}"
        for element, lasts in changes
    )
    return f"{verb} element {TABLE} {name} {{ {listed} }}"
