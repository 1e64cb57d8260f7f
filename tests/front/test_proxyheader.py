"""PROXY headers: which client they name, and which are malformed."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.front.proxyheader import MOST_BYTES, MalformedHeader, ProxyHeaderReader, Source

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"GET / HTTP/1.1\r\n"


def v2(command: int, family: int, block: bytes, size: int | None = None) -> bytes:
    """A version 2 header; `size` is what it claims."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if size is None else size) \
        + block


def pair(source: str, port: int = 50000) -> bytes:
    """The addresses of a version 2 header."""
    packed = ip_address(source).packed
    return packed + b"\xee" * len(packed) + struct.pack("!2H", port, 8880)


NAMED = {
    "v1, IPv4": (b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8880\r\n", "203.0.113.7"),
    "v1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:DB8::1 50000 8880\r\n", "2001:db8::7"),
    "v1, mapped": (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 50000 8880\r\n", "::ffff:203.0.113.7"),
    "v2, IPv4": (v2(0x21, 0x11, pair("203.0.113.7")), "203.0.113.7"),
    "v2, IPv6": (v2(0x21, 0x21, pair("2001:db8::7")), "2001:db8::7"),
    "v2 with extensions": (v2(0x21, 0x11, pair("203.0.113.7") + b"\x03\0\4abcd"), "203.0.113.7"),
}
NAMELESS = {
    "v1, unknown": b"PROXY UNKNOWN\r\n",
    "v1, unknown with addresses": b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    "v2, the proxy's own": v2(0x20, 0x00, b""),
    "v2, the proxy's own, with addresses": v2(0x20, 0x11, pair("203.0.113.7")),
    "v2, unspecified": v2(0x21, 0x00, b"\x04\0\2xx"),
    "v2, UNIX": v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")),
}
BROKEN = {
    "HTTP": REST,
    "TLS": b"\x16\x03\x01\x02\x00",
    "nothing but a CR": b"\rX",
    "half a name": b"PROXX",
    "no family": b"PROXY \r\n",
    "another family": b"PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n",
    "no addresses": b"PROXY TCP4\r\n",
    "one address": b"PROXY TCP4 203.0.113.7\r\n",
    "no ports": b"PROXY TCP4 203.0.113.7 192.0.2.1\r\n",
    "one port": b"PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n",
    "one too many": b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2 3\r\n",
    "a port of words": b"PROXY TCP4 203.0.113.7 192.0.2.1 one 2\r\n",
    "a port with an underscore": b"PROXY TCP4 203.0.113.7 192.0.2.1 1_0 2\r\n",
    "a negative port": b"PROXY TCP4 203.0.113.7 192.0.2.1 -1 2\r\n",
    "a port with a zero": b"PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n",
    "a port beyond the last": b"PROXY TCP4 203.0.113.7 192.0.2.1 1 65536\r\n",
    "a name": b"PROXY TCP4 evil.example 192.0.2.1 1 2\r\n",
    "a number": b"PROXY TCP4 3405803783 192.0.2.1 1 2\r\n",
    "an octal address": b"PROXY TCP4 0313.0.0161.07 192.0.2.1 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "IPv6 as IPv4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "IPv4 as IPv6": b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    "a bad destination": b"PROXY TCP4 203.0.113.7 x 1 2\r\n",
    "two spaces": b"PROXY  TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
    "small letters": b"proxy TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
    "high bytes": b"PROXY TCP4 \xff\xfe 192.0.2.1 1 2\r\n",
    "a bare LF": b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n" + b"x" * 80,
    "a bare CR": b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\rGET /\r\n",
    "no end": b"PROXY TCP4 " + b"1" * 200,
    "an end too late": b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n",
    "v1 again, unknown and high": b"PROXY UNKNOWN \xff\r\n",
    "version 1 in binary": v2(0x11, 0x11, pair("203.0.113.7")),
    "version 3": v2(0x31, 0x11, pair("203.0.113.7")),
    "another command": v2(0x22, 0x11, pair("203.0.113.7")),
    "a datagram": v2(0x21, 0x12, pair("203.0.113.7")),
    "another binary family": v2(0x21, 0x41, pair("203.0.113.7")),
    "IPv6 in the room of IPv4": v2(0x21, 0x21, pair("203.0.113.7")),
    "too short": v2(0x21, 0x11, pair("203.0.113.7")[:-1]),
    "no room": v2(0x21, 0x11, b""),
    "64 kB": v2(0x21, 0x11, pair("203.0.113.7"), size=65535),
    "64 kB of the proxy's own": v2(0x20, 0x00, b"", size=65535),
}


def read(*pieces: bytes) -> tuple[Source | None, bytes] | None:
    """Feed all; what follows the header is gathered."""
    reader = ProxyHeaderReader()
    for number, piece in enumerate(pieces):
        whole = reader.feed(piece)
        if whole is not None:
            return whole[0], whole[1] + b"".join(pieces[number + 1 :])
    return None


@pytest.mark.parametrize("name", NAMED)
def test_headers_that_name_a_client(name: str) -> None:
    header, address = NAMED[name]
    assert read(header + REST) == (Source(ip_address(address), 50000), REST)


@pytest.mark.parametrize("name", NAMELESS)
def test_headers_without_a_client(name: str) -> None:
    assert read(NAMELESS[name] + REST) == (None, REST)


@pytest.mark.parametrize("name", BROKEN)
def test_anything_else_is_malformed(name: str) -> None:
    with pytest.raises(MalformedHeader):
        read(BROKEN[name])


@pytest.mark.parametrize("name", NAMED)
def test_the_result_does_not_depend_on_how_bytes_are_split(name: str) -> None:
    header, address = NAMED[name]
    whole = header + REST
    assert read(*(whole[i : i + 1] for i in range(len(whole)))) == (
        Source(ip_address(address), 50000), REST
    )


@pytest.mark.parametrize("header", [one for one, _ in NAMED.values()])
def test_half_a_header_has_no_result_yet(header: bytes) -> None:
    for size in range(len(header)):
        assert read(header[:size]) is None


def test_the_size_of_a_header_is_limited() -> None:
    block = pair("203.0.113.7")
    most = block + b"\0" * (MOST_BYTES - len(SIGNATURE) - 4 - len(block))
    assert read(v2(0x21, 0x11, most)) == (Source(ip_address("203.0.113.7"), 50000), b"")
    with pytest.raises(MalformedHeader):
        read(v2(0x21, 0x11, most + b"\0"))


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(SIGNATURE.__add__),
        st.binary(max_size=120).map(b"PROXY TCP4 ".__add__),
    ),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_random_bytes_raise_nothing_else(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    verdicts: list[object] = []
    for way in ([data], pieces):
        try:
            verdicts.append(read(*way))
        except MalformedHeader:
            verdicts.append("malformed")
    assert verdicts[0] == verdicts[1]
