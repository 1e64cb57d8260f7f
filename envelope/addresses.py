"""IP addresses, networks, ranges of ports and protocols, and how they are written."""

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


def family_of(address: Address | None) -> AddressFamily | None:
    """The family of an address; None without one."""
    return None if address is None else AddressFamily.of_version(address.version)


def network_around(address: Address, bits: int) -> Network:
    """The network with the first `bits` of an address."""
    if isinstance(address, IPv4Address):
        four = IPv4Network((address, bits), strict=False)
        if four.network_address == address:
            # One object instead of two equal ones: 100 bytes less a session.
            four.network_address = address
        return four
    six = IPv6Network((address, bits), strict=False)
    if six.network_address == address:
        six.network_address = address
    return six


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


# Names of protocols that a host may need to hear, with the numbers of IANA's registry "Assigned
# Internet Protocol Numbers". /etc/protocols has more, and is missing in small containers.
PROTOCOLS: Final = {
    "igmp": 2, "ipv6": 41, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "eigrp": 88, "ospf": 89,
    "pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "udplite": 136,
    "hip": 139,
}
_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}
# Not protocols for the rules, but "all" or a header of IPv6 that another one follows (RFC 7045).
_HEADERS: Final = frozenset({0, 43, 44, 59, 60, 135, 140})
# Numbers that an operator is more likely to mean as a port: of ssh, http and their like.
_LIKE_PORTS: Final = frozenset({20, 21, 22, 23, 25, 53, 69, 80, 110, 111, 123, 143, 161, 179})


@dataclass(frozen=True, slots=True, order=True)
class Protocol:
    """An IP protocol without ports, by its number, as in `igmp` or `112`."""

    number: int

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """Read a name, a number or `proto/NUMBER`; raise `ValueError` with a one-line reason."""
        word = text.strip().lower()
        digits = word.removeprefix("proto/")
        known = digits.isascii() and digits.isdigit() and len(digits) <= 3
        number = int(digits) if known else PROTOCOLS.get(word, 256)
        if word in ("tcp", "udp") or number in (6, 17):
            raise ValueError(f"{text!r} has ports: write tcp/PORT or udp/PORT")
        if word.startswith("icmp") or number in (1, 58):
            raise ValueError(f"{text!r} needs no option: ICMP is always let in")
        if digits == word and number in _LIKE_PORTS:
            raise ValueError(f"{text!r} may be a port: write tcp/{word}, udp/{word}, or "
                             f"proto/{word} for the protocol of that number")
        if number > 255 or number in _HEADERS:
            raise ValueError(f"{text!r} is neither a protocol's name ({', '.join(PROTOCOLS)}) "
                             "nor the number of one")
        return cls(number)

    def __str__(self) -> str:
        if self.number in _LIKE_PORTS:
            return f"proto/{self.number}"
        return _NAMES.get(self.number, str(self.number))

    def covers(self, protocol: str, port: int) -> bool:  # noqa: ARG002
        """Whether a packet of `protocol` to `port` falls under this: it has no ports."""
        return False


Opening: TypeAlias = PortRange | Protocol


def parse_opening(text: str) -> Opening:
    """Read `PROTO/PORT[-PORT]` or a protocol without ports; raise `ValueError` with one line."""
    if "/" in text and not text.strip().lower().startswith("proto/"):
        return PortRange.parse(text)
    return Protocol.parse(text)


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
