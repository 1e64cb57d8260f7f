"""IP addresses, networks and ranges of ports, and how they are written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal, TypeAlias

from twisted.internet.address import IPv4Address as Host4
from twisted.internet.address import IPv6Address as Host6

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class AddressFamily(StrEnum):
    """The label `family` of the metrics that count clients or their networks."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @classmethod
    def of_version(cls, version: int) -> AddressFamily:
        """The family of IP `version`, 4 or 6."""
        return cls.IPV6 if version == 6 else cls.IPV4


# The prefix of an IPv4-mapped address (RFC 4291 section 2.5.5.2).
_MAPPED: Final = "::ffff:"


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports of one protocol, `first` to `last` inclusive, as in `udp/53` or `tcp/5000-5010`."""

    protocol: Literal["tcp", "udp"]
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read `PROTO/PORT[-PORT]`; raise `ValueError` with a one-line reason."""
        protocol, slash, ports = text.strip().lower().partition("/")
        first, dash, last = ports.partition("-")
        if not slash or protocol not in ("tcp", "udp"):
            raise ValueError(f"{text!r} is not PROTO/PORT or PROTO/PORT-PORT with tcp or udp")
        low, high = _port(first, text), _port(last if dash else first, text)
        if low > high:
            raise ValueError(f"{text!r} ends before it begins")
        return cls("tcp" if protocol == "tcp" else "udp", low, high)

    def __str__(self) -> str:
        ports = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol}/{ports}"

    def covers(self, protocol: str, port: int) -> bool:
        """Whether a packet of `protocol` to `port` falls in this range."""
        return protocol == self.protocol and self.first <= port <= self.last


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{whole!r} names a port outside 1 to 65535")
    return int(text)


def client_address(peer: object) -> Address | None:
    """The client's address as packets carry it; None without one (a UNIX socket).

    A dual-stack socket reports IPv4 clients as `::ffff:a.b.c.d`.
    """
    if not isinstance(peer, Host4 | Host6):
        return None
    with suppress(ValueError):
        return fold(peer.host)
    return None


def fold(text: str) -> Address:
    """Parse an address, without its zone, an IPv4-mapped one as IPv4; raise `ValueError`."""
    text = text.partition("%")[0]
    # The kernel writes them like this; parsing as IPv6 takes three times as long.
    if text.startswith(_MAPPED) and "." in text:
        return IPv4Address(text.removeprefix(_MAPPED))
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
