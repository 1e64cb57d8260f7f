"""The rules' text, and grants read back from it. Pure.

The text has the form that iptables-save prints, so that rules that were written and rules that are
read back compare as strings. Every argument is a word of its own: iptables 1.8.9 rejects
`--jump=ACCEPT`.
"""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final, TypeAlias

from envelope.addresses import PROTOCOLS, Opening, PortRange
from envelope.firewall import grant_key
from envelope.firewall.iptables.ends import END_NAME, end_chain, read_datestop, read_end
from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, Key, network_text_of, parts_of
from envelope.firewall.policy import IPV6, Family, RuleChoices

CHAIN: Final = "ENVELOPE"
GRANTS: Final = "ENVELOPE-GRANTS"
DEVICES: Final = "ENVELOPE-DEVICES"

# The answer to a DHCPv6 request, which conntrack does not know because the request is multicast. It
# comes from a server or relay on the link, from and to fixed ports (RFC 8415 section 7.2).
_DHCPV6: Final = "-s fe80::/10 -p udp -m udp --sport 547 --dport 546 -j ACCEPT"

# Several services' chains, the chains that many grants are spread over (see `tree.py`), and those
# of older versions.
_BRANCH: Final = r"-GRANTS-(?:(?:S\d{1,4}-)?B\d{1,6}|S\d{1,4}|[0-3]{1,4})"
BRANCHES: Final = re.compile(f"ENVELOPE{_BRANCH}$")
# The names of our chains. Others that merely begin like them are not ours.
_OWN_NAME: Final = (
    f"(?:ENVELOPE(?:-GRANTS|{_BRANCH}|-FLOWS|-DEVICES|-WAS-(?:ACCEPT|DROP|ABSENT|LOOSE))?"
    f"|{END_NAME})"
)
OWN_CHAINS: Final = re.compile(f"{_OWN_NAME}$")
OWN_JUMP: Final = re.compile(f"(?:^|.* )-[jg] {_OWN_NAME}$", re.DOTALL)

# A grant as it stands in the kernel: its rules without `-A CHAIN`, sorted.
Rules: TypeAlias = tuple[str, ...]


def _ports(ports: PortRange) -> str:
    last = "" if ports.first == ports.last else f":{ports.last}"
    return f"-p {ports.protocol} -m {ports.protocol} --dport {ports.first}{last}"


def _opening(opening: Opening, family: Family) -> str:
    if isinstance(opening, PortRange):
        return _ports(opening)
    # ip6tables passes over this header when it looks for the protocol (ip6tables(8), "-p").
    if family is IPV6 and opening.number == PROTOCOLS["ah"]:
        return "-m ah"
    return f"-p {opening.number}"


def baseline_rules(choices: RuleChoices, family: Family) -> list[str]:
    """The rules of the ENVELOPE chain in their order (docs/rules.md)."""
    direction = " --ctdir REPLY" if choices.established == "cut" else ""
    always_open = dict.fromkeys((*choices.service_ports, *choices.allow))
    return [
        device_rule(choices),
        f"-p {family.icmp} -j ACCEPT",
        *([_DHCPV6] if family is IPV6 else []),
        *(f"{_opening(each, family)} -j ACCEPT" for each in always_open),
        f"-m conntrack --ctstate RELATED,ESTABLISHED{direction} -j ACCEPT",
        *(f"{_ports(ports)} -j REJECT --reject-with tcp-reset" for ports in choices.closed_ports),
        f"-j {GRANTS}",
        # The kernel limits how many ICMP errors a peer gets, and TCP would then wait for seconds
        # (icmp(7), icmp_ratelimit); a reset is not limited.
        "-p tcp -j REJECT --reject-with tcp-reset",
        f"-j REJECT --reject-with {family.reject}",
    ]


_PROTOCOL: Final = re.compile(r"-p ([a-z][^ ]*) -j ACCEPT")
_MIXED: Final = re.compile(r"::(?:[0-9a-f]+:)?\d+(?:\.\d+){3}")


def respelled(rule: str) -> str:
    """A rule of ours in our own spelling; the tools have a second one for some.

    A protocol's number is printed as its name, if /etc/protocols has one, and `::102:304` as
    `::1.2.3.4` (inet_ntop(3)).
    """
    if rule.startswith("-s ::"):
        source, space, rest = rule.removeprefix("-s ").partition(" ")
        if "." in source:
            return f"-s {_MIXED.sub(_as_ipaddress_does, source)}{space}{rest}"
    elif match := _PROTOCOL.fullmatch(rule):
        number = _protocol_number(match[1])
        return rule if number is None else f"-p {number} -j ACCEPT"
    return rule


def _as_ipaddress_does(mixed: re.Match[str]) -> str:
    return str(IPv6Address(mixed[0]))


@lru_cache(maxsize=1 << 8)
def _protocol_number(name: str) -> int | None:
    # Our own rules name these.
    if name in ("tcp", "udp", "icmp", "ipv6-icmp"):
        return None
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    try:
        return socket.getprotobyname(name)
    except (OSError, ValueError):
        # There is none of this name, or it is no text (see `snapshot.text_of`).
        return None


def kept_closed(choices: RuleChoices) -> Rules:
    """The rules before an operator's grants, for ports that no grant opens: INPUT goes on."""
    if choices.baseline == "service":
        return ()
    return tuple(f"{_ports(ports)} -j RETURN" for ports in choices.closed_ports)


def device_rule(choices: RuleChoices) -> str:
    """The first rule of the ENVELOPE chain: what comes in by no guarded device is accepted."""
    return f"-j {DEVICES}" if choices.also_guarded else f"! -i {choices.device} -j ACCEPT"


def device_rules(choices: RuleChoices) -> Rules:
    """The rules of the chain that tells several guarded devices from others; none for one device.
    """
    if not choices.also_guarded:
        return ()
    matches = ("" if name == "+" else f"-i {name} " for name in choices.guarded("+"))
    return (*(f"{match}-j RETURN" for match in matches), "-j ACCEPT")


def service_chain(number: int) -> str:
    """The chain with the grants for one of several services."""
    return f"{GRANTS}-S{number}"


_SERVICE: Final = re.compile(rf"{GRANTS}-S(\d{{1,4}})(?:-B\d+)?")


@lru_cache(maxsize=1 << 10)
def service_in(chain: str) -> int:
    """The number of the service that grants in this chain are for."""
    match = _SERVICE.fullmatch(chain)
    return int(match[1]) if match else 0


def service_jumps(choices: RuleChoices) -> Rules:
    """The rules that lead to several services' chains, by their ports; none for one service."""
    if len(choices.services) == 1:
        return ()
    return tuple(
        f"{match}-j {service_chain(number)}"
        for number, service in enumerate(choices.services)
        for match in [f"{_ports(ports)} " for ports in dict.fromkeys(service.ports)] or [""]
    )


def grant_rules(choices: RuleChoices, key: Key, end: int) -> Rules:
    """The grant of a network until `end` (seconds since the epoch): one rule, or one for each port.

    Each jumps to the chain of that end. The ports are the service's, and `--proxy-port` for a key
    of `EVERYONE`; with several services they stand in the rules that lead to a service's chain.
    Sorted, so that it compares with what is read back.
    """
    target = end_chain(end)
    if key in NO_CLIENTS:
        return tuple(sorted(
            f"-p tcp -m tcp --dport {port} -j {target}" for port in set(choices.proxy_port)
        ))
    source = f"-s {network_text_of(key)}"
    if len(choices.services) > 1 or not choices.services[0].ports:
        return (f"{source} -j {target}",)
    ports = set(choices.services[0].ports)
    return tuple(sorted(f"{source} {_ports(each)} -j {target}" for each in ports))


# Older versions had the end in each grant's own rule.
_GRANT: Final = re.compile(
    r"(?:-s (?P<source>[0-9a-f.:]+/\d+) )?(?:-p \S+ -m \S+ --dport \S+ )?"
    rf"(?:-j (?P<chain>{END_NAME})|(?P<time>-m time .*))"
)


@lru_cache(maxsize=1 << 15)
def read_grant(rule: str, version: int = 4, service: int = 0) -> tuple[Key, int] | None:
    """Read a grant's key and end (seconds since the epoch) from its rule; None if it is none.

    A rule without a source is the one of `EVERYONE` of this IP version; another one is for the
    `service` of its chain. Cached, since every rule is read at each comparison.
    """
    match = _GRANT.fullmatch(rule)
    if match is None:
        return None
    end = read_end(match["chain"]) if match["chain"] else read_datestop(match["time"])
    try:
        key = grant_key(match["source"], service) if match["source"] else EVERYONE[version]
        parts_of(key)
    except ValueError:
        return None
    return None if end is None else (key, end)
