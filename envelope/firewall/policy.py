"""What the rules shall do, whichever tool writes them: the operator's choices. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final, Literal

from envelope.addresses import Network, Opening, PortRange
from envelope.config import Config
from envelope.config.subjects import Service
from envelope.firewall.kernel import TableLabel


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the two address families; `label` is their name in the metrics."""

    version: Literal[4, 6]
    label: TableLabel
    icmp: str
    reject: str
    nft: str
    # From the ranges kept for documentation (RFC 5737, RFC 3849), to try a grant's rule with.
    example: Network


IPV4: Final = Family(
    4, TableLabel.IPV4, "icmp", "icmp-port-unreachable", "ip", ip_network("192.0.2.1/32")
)

IPV6: Final = Family(
    6, TableLabel.IPV6, "ipv6-icmp", "icmp6-port-unreachable", "ip6", ip_network("2001:db8::1/128")
)


@dataclass(frozen=True, slots=True)
class RuleChoices:
    """The operator's choices that decide the rules; the fields are named as in `Config`."""

    device: str
    service_ports: tuple[PortRange, ...]
    allow: tuple[Opening, ...]
    # What grants open, by the number of the service.
    services: tuple[Service, ...]
    proxy_port: tuple[int, ...]
    established: Literal["cut", "keep"]
    baseline: Literal["service", "operator"]
    on_stop: Literal["restore", "keep"]
    grant_prefix4: int = 32
    grant_prefix6: int = 128
    # The service's other ports, which no grant opens, without those that are always open.
    closed_ports: tuple[PortRange, ...] = ()
    # Devices that are guarded besides `device`, while that has another name or a master.
    also_guarded: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, config: Config, service_ports: tuple[PortRange, ...],
        closed_ports: tuple[PortRange, ...] = (),
    ) -> RuleChoices:
        """Take the choices from `config`; the ports are known once the service listens."""
        always_open = (*service_ports, *config.allow)
        return cls(
            config.device, service_ports, config.allow, config.services, config.proxy_port,
            config.established, config.baseline, config.on_stop,
            config.grant_prefix4, config.grant_prefix6,
            tuple(
                port for port in closed_ports
                if not any(each.covers(port.protocol, port.first) for each in always_open)
            ),
        )

    def guarded(self, wildcard: str) -> tuple[str, ...]:
        """The guarded devices as a tool takes them, which reads `wildcard` as any end of a name."""
        return tuple(_as_written(name, wildcard) for name in (self.device, *self.also_guarded))

    def prefix(self, version: int) -> int:
        """How many bits of an address of this family a grant opens."""
        return self.grant_prefix4 if version == 4 else self.grant_prefix6


# What all tools take as it is in the name of a device. The kernel allows nearly everything.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@-]*")


def _as_written(name: str, wildcard: str) -> str:
    plain = _PLAIN.match(name)
    assert plain is not None, "it matches nothing as well"
    return name if plain[0] == name else plain[0] + wildcard


# Seconds after its deadline at which the kernel ends a grant that was not revoked: late enough for
# the service's own revocation to come first, early enough for the contract's "a few seconds".
BACKSTOP: Final = 4
