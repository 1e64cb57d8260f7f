"""The kernel's rules as values, their text, and their inverse. Pure.

Text is in the form that iptables-save prints, so that what was written and what is read back
compare as strings. Every argument is a word of its own: iptables 1.8.9 rejects `--jump=ACCEPT`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_network
from typing import Final, Literal

from envelope.config import Config, Network, PortRange
from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, Key, Rules, one_key, parts_of

CHAIN: Final = "ENVELOPE"
GRANTS: Final = "ENVELOPE-GRANTS"
FLOWS: Final = "ENVELOPE-FLOWS"
OWN_CHAINS: Final = re.compile(r"ENVELOPE(-.*)?$")

# The kernel ends a grant this long (seconds) after its deadline, should nobody else: late enough
# that the service's own revocation always comes first, early enough for "a few seconds".
BACKSTOP: Final = 4
# xt_time counts seconds in 32 bits but its user-space parser stops here (iptables-extensions(8)).
LATEST_END: Final = int(datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the two address families; `label` is their name in the metrics."""

    version: Literal[4, 6]
    label: str
    icmp: str
    reject: str
    nft: str
    # From the ranges kept for documentation (RFC 5737, RFC 3849), to try a grant's rule with.
    example: Network


IPV4: Final = Family(
    4, "ipv4", "icmp", "icmp-port-unreachable", "ip", ip_network("192.0.2.1/32")
)
IPV6: Final = Family(
    6, "ipv6", "ipv6-icmp", "icmp6-port-unreachable", "ip6", ip_network("2001:db8::1/128")
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The operator's choices that decide which rules there are."""

    device: str
    service_ports: tuple[PortRange, ...]
    allow: tuple[PortRange, ...]
    grant_port: tuple[PortRange, ...]
    proxy_port: tuple[int, ...]
    established: Literal["cut", "keep"]
    baseline: Literal["service", "operator"]
    on_stop: Literal["restore", "keep"]
    grant_prefix4: int = 32
    grant_prefix6: int = 128

    @classmethod
    def of(cls, config: Config, service_ports: tuple[PortRange, ...]) -> Layout:
        """Take over what `config` says; `service_ports` are known once the service listens."""
        return cls(
            config.device, service_ports, config.allow, config.grant_port, config.proxy_port,
            config.established, config.baseline, config.on_stop,
            config.grant_prefix4, config.grant_prefix6,
        )

    def prefix(self, version: int) -> int:
        """How many bits of an address of this family a grant opens."""
        return self.grant_prefix4 if version == 4 else self.grant_prefix6

    @property
    def entry(self) -> str:
        """The chain that INPUT jumps to."""
        return CHAIN if self.baseline == "service" else GRANTS


def _ports(ports: PortRange) -> str:
    last = "" if ports.first == ports.last else f":{ports.last}"
    return f"-p {ports.protocol} -m {ports.protocol} --dport {ports.first}{last}"


def baseline_rules(layout: Layout, family: Family, with_flows: bool = False) -> list[str]:
    """The rules of the ENVELOPE chain in their order (README, "The baseline")."""
    direction = " --ctdir REPLY" if layout.established == "cut" else ""
    always_open = dict.fromkeys((*layout.service_ports, *layout.allow))
    return [
        f"! -i {layout.device} -j ACCEPT",
        f"-p {family.icmp} -j ACCEPT",
        *(f"{_ports(ports)} -j ACCEPT" for ports in always_open),
        f"-m conntrack --ctstate RELATED,ESTABLISHED{direction} -j ACCEPT",
        *([f"-j {FLOWS}"] if with_flows else []),
        f"-j {GRANTS}",
        f"-j REJECT --reject-with {family.reject}",
    ]


def end_of_grant(deadline: float) -> int:
    """The second (since the epoch) at which the kernel ends a grant with this deadline."""
    return min(math.ceil(deadline) + BACKSTOP, LATEST_END)


@lru_cache(maxsize=1 << 10)
def _until(end: int) -> str:
    # Those who come in the same second mostly end in the same one.
    return f"-m time --datestop {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%S}"


def grant_rules(layout: Layout, key: Key, end: int) -> Rules:
    """What lets a network in until `end`: a rule, or one for each `--grant-port`.

    For everyone, it is a rule for each `--proxy-port`. Sorted, so that what is read back compares.
    """
    if key in NO_CLIENTS:
        return tuple(sorted(
            f"-p tcp -m tcp --dport {port} {_until(end)} -j ACCEPT"
            for port in set(layout.proxy_port)
        ))
    matches = [f" {_ports(ports)}" for ports in set(layout.grant_port)] or [""]
    return tuple(sorted(f"-s {key}{match} {_until(end)} -j ACCEPT" for match in matches))


_GRANT: Final = re.compile(
    r"(?:-s (?P<source>[0-9a-f.:]+/\d+) )?(?:-p \S+ -m \S+ --dport \S+ )?"
    r"-m time (?:--timestart \S+ --timestop \S+ )?--datestop (?P<end>\S+) -j ACCEPT"
)


@lru_cache(maxsize=1 << 15)
def read_grant(rule: str, version: int = 4) -> tuple[Key, int] | None:
    """Tell a grant's network and end from its rule; None when no grant of ours looks like this.

    A rule without a source is everyone's of the address family. Remembered, since it is asked of
    every rule each time the kernel's are compared.
    """
    match = _GRANT.fullmatch(rule)
    if match is None:
        return None
    try:
        end = datetime.fromisoformat(match["end"]).replace(tzinfo=UTC)
        key = one_key(match["source"]) if match["source"] else EVERYONE[version]
        parts_of(key)
    except ValueError:
        return None
    return key, int(end.timestamp())
