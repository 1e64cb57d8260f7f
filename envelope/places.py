"""The addresses of sockets: where an operator says to listen, and where a client comes from."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from twisted.internet.address import IPv4Address as Host4
from twisted.internet.address import IPv6Address as Host6

from envelope.config import Address

ENDPOINTS: Final = ("tcp", "tcp6", "systemd", "haproxy", "unix")
# What such an endpoint's description has before that of the socket itself.
PROXIED: Final = "haproxy:"

_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[^][]*)\]|(?P<host>[^][:\s/=]*)):(?P<port>[0-9]{1,5})")
_ENDPOINT_PORT: Final = re.compile(r"(?:haproxy:)?tcp6?:(?:port=)?(?P<port>[^:]*)(?::.*)?")
_MAPPED: Final = "::ffff:"
_NAMELESS: Final = re.compile(r"unix:.*|systemd:(?:.*:)?(?:domain=)?UNIX(?::.*)?")


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """One place to listen on, as the operator wrote it in `text`.

    `host` is an address or a name, empty for every address of both families, and None for a
    Twisted endpoint description. `port` is None when only the endpoint knows it.
    """

    text: str
    host: str | None
    port: int | None

    @property
    def proxied(self) -> bool:
        """Whether a PROXY header is expected, and says who the client is."""
        return self.host is None and self.text.startswith(PROXIED)

    @property
    def knows_clients(self) -> bool:
        """Whether the address of a client can be known."""
        return _NAMELESS.fullmatch(self.text) is None


def parse_listen(text: str) -> ListenSpec:
    """Read `[HOST]:PORT` or an endpoint description; raise `ValueError` with one line."""
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be seen")
    if text.startswith(tuple(f"{kind}:" for kind in ENDPOINTS)):
        if text.removeprefix(PROXIED).startswith(PROXIED):
            raise ValueError(f"{text!r} says haproxy: twice")
        match = _ENDPOINT_PORT.fullmatch(text)
        return ListenSpec(text, None, _port(match["port"], text) if match else None)
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is neither [HOST]:PORT nor an endpoint ({', '.join(ENDPOINTS)})"
        )
    if match["v6"] is not None:
        try:
            IPv6Address(match["v6"])
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address in its brackets") from None
    return ListenSpec(text, match["v6"] or match["host"] or "", _port(match["port"], text))


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError(f"{whole!r} names a port outside 0 to 65535")
    return int(text)


def client_address(peer: object) -> Address | None:
    """The client's address as the kernel's rules see it; None when there is none (a UNIX socket).

    A dual-stack socket shows IPv4 clients as `::ffff:a.b.c.d`.
    """
    if not isinstance(peer, Host4 | Host6):
        return None
    with suppress(ValueError):
        return fold(peer.host)
    return None


def fold(text: str) -> Address:
    """`text` as an address, without zone, an IPv4-mapped one as IPv4; raise `ValueError`."""
    text = text.partition("%")[0]
    # As the kernel writes them; a third of the time that going through IPv6 takes.
    if text.startswith(_MAPPED) and "." in text:
        return IPv4Address(text.removeprefix(_MAPPED))
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
