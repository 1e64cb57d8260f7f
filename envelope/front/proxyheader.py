"""Parses the PROXY header, versions 1 and 2, which names the proxy's client (pure).

The source is "The PROXY protocol", versions 1 & 2, of HAProxy Technologies. Twisted's own parser
(`twisted.protocols.haproxy`, 26.10) does not serve: before the header, and if it names no address,
the client seems to have the proxy's address; a port that is not a number raises an error that is
not caught; the first bytes must arrive in one segment; and `PROXY UNKNOWN` without addresses is
refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from envelope.addresses import Address

# The largest header, in bytes. Version 1 allows 107. Version 2 allows 65551, of which proxies use a
# few hundred, for extensions that are ignored here.
MOST_BYTES: Final = 4096

_V1_START: Final = b"PROXY "
_V1_BYTES: Final = 107
_V1: Final = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?")
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
# Address family and transport -> bytes of one address. Only TCP over IPv4 and IPv6 is accepted.
_V2_SIZES: Final = {0x11: 4, 0x21: 16}
_V2_UNKNOWN: Final = (0x00, 0x31)


class MalformedHeader(Exception):
    """The bytes are not a PROXY header; the connection must be dropped (section 2 there)."""


@dataclass(frozen=True, slots=True)
class Source:
    """The address and port of the proxy's client."""

    address: Address
    port: int


class ProxyHeaderReader:
    """Collects one header; must not be used after it."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[Source | None, bytes] | None:
        """Add bytes; once the header is complete, return its source and the bytes after it.

        The source is None if the proxy connected for itself, or does not know the client. Raises
        `MalformedHeader` as soon as the bytes cannot become a header.
        """
        self._buffer += data
        for start, read in ((_V1_START, _read_v1), (_V2_START, _read_v2)):
            if self._buffer[: len(start)] == start[: len(self._buffer)]:
                return read(self._buffer) if len(self._buffer) >= len(start) else None
        raise MalformedHeader


def _read_v1(data: bytes) -> tuple[Source | None, bytes] | None:
    line, end, rest = data.partition(b"\r\n")
    if len(line) + len(b"\r\n") > _V1_BYTES:
        raise MalformedHeader
    if not end:
        return None
    if _V1_UNKNOWN.fullmatch(line):
        return None, rest
    match = _V1.fullmatch(line)
    if match is None:
        raise MalformedHeader
    family, source, destination, *ports = (part.decode("ascii") for part in match.groups())
    kind = IPv4Address if family == "4" else IPv6Address
    try:
        address, _ = kind(source), kind(destination)
    except ValueError:
        raise MalformedHeader from None
    if max(map(int, ports)) > 0xFFFF:
        raise MalformedHeader
    return Source(address, int(ports[0])), rest


def _read_v2(data: bytes) -> tuple[Source | None, bytes] | None:
    if len(data) < _V2_FIXED:
        return None
    command, family = data[12], data[13]
    end = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or end > MOST_BYTES:
        raise MalformedHeader
    unknown = command == _LOCAL or family in _V2_UNKNOWN
    size = _V2_SIZES.get(family, 0)
    if not unknown and (not size or end < _V2_FIXED + 2 * size + 4):
        raise MalformedHeader
    if len(data) < end:
        return None
    if unknown:
        return None, data[end:]
    raw = data[_V2_FIXED : _V2_FIXED + size]
    port = int.from_bytes(data[_V2_FIXED + 2 * size : _V2_FIXED + 2 * size + 2], "big")
    return Source(IPv4Address(raw) if size == 4 else IPv6Address(raw), port), data[end:]
