"""The PROXY header, versions 1 and 2: who is behind the proxy (pure).

Written after "The PROXY protocol", versions 1 & 2, of HAProxy Technologies. Read here and not by
`twisted.protocols.haproxy` (26.10), which answers with the proxy's own address as long as, and
whenever, the header names none; raises what nobody catches at a port that is no number; wants the
first bytes in one segment; and refuses `PROXY UNKNOWN` without addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from envelope.addresses import Address

# Bytes of a whole header. Version 1 has 107 at most; version 2 allows 65551, of which a proxy uses
# a few hundred, in extensions that nobody reads here.
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
# Address family and transport -> bytes of one address; only streams can be what a stream carries.
_V2_SIZES: Final = {0x11: 4, 0x21: 16}
_V2_NOWHERE: Final = (0x00, 0x31)


class MalformedHeader(Exception):
    """The bytes are no PROXY header; the connection has to be dropped (section 2 there)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the proxy's client is."""

    address: Address
    port: int


class ProxyHeaderReader:
    """Gathers one header; of no use after it."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[Source | None, bytes] | None:
        """Take the next bytes; once the header is whole, return its source and what follows it.

        The source is None when the proxy speaks for itself or does not know. Raises
        `MalformedHeader`, as soon as the bytes cannot become a header.
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
    nowhere = command == _LOCAL or family in _V2_NOWHERE
    size = _V2_SIZES.get(family, 0)
    if not nowhere and (not size or end < _V2_FIXED + 2 * size + 4):
        raise MalformedHeader
    if len(data) < end:
        return None
    if nowhere:
        return None, data[end:]
    raw = data[_V2_FIXED : _V2_FIXED + size]
    port = int.from_bytes(data[_V2_FIXED + 2 * size : _V2_FIXED + 2 * size + 2], "big")
    return Source(IPv4Address(raw) if size == 4 else IPv6Address(raw), port), data[end:]
