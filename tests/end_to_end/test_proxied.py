"""Behind a proxy: the PROXY header alone decides whose packets are let in."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest

from tests.end_to_end.harness import UPGRADE

pytestmark = pytest.mark.kernel

# The address that the proxy connects from, and that of its client.
PROXY, CLIENT = "203.0.113.7", "203.0.113.8"
CLIENT6 = "2001:db8::8"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
V1_HEADER = f"PROXY TCP4 {CLIENT} 192.0.2.1 50000 443\r\n".encode()
V2_HEADER = V2 + b"\x21\x11\x00\x0c" + ip_address(CLIENT).packed + ip_address("192.0.2.1").packed \
    + struct.pack("!2H", 50000, 443)
V6_HEADER = f"PROXY TCP6 {CLIENT6} 2001:db8::1 50000 443\r\n".encode()
MAPPED = f"PROXY TCP6 ::ffff:{CLIENT} ::1 50000 443\r\n".encode()


@pytest.fixture
def proxied(rig: Any) -> Any:
    """The service with one port behind a proxy and one for direct clients."""
    for address in (CLIENT, CLIENT6):
        rig.lab.client().add_address(address)
    rig.serve(9000)
    rig.start("--listen=haproxy:tcp:8880", "--listen=:8882", "--max-clients=2")
    return rig


def grants(rig: Any) -> str:
    """The grants in the kernel's rules."""
    return "\n".join(line for line in rig.saved().splitlines() if "-j ENVELOPE-END-" in line)


@pytest.mark.parametrize(
    ("header", "address"),
    [(V1_HEADER, CLIENT), (V2_HEADER, CLIENT), (V6_HEADER, CLIENT6), (MAPPED, CLIENT)],
    ids=["v1", "v2", "IPv6", "mapped"],
)
def test_the_client_is_let_in_and_its_proxy_is_not(
    proxied: Any, header: bytes, address: str
) -> None:
    """TLS begins after the header."""
    client = proxied.client(proxied.token(), before=header)
    assert client.event()["status"] == 101
    to = proxied.lab.host.address6 if ":" in address else None
    assert proxied.reaches(9000, to, source=address)
    assert not proxied.reaches(9000, source=PROXY)
    client.tell("close")
    assert client.event()["code"] == 1000
    assert not proxied.reaches(9000, to, source=address)


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", f"PROXY UNKNOWN {CLIENT} 192.0.2.1 1 2\r\n".encode(),
     V2 + b"\x20\x00\x00\x00", V2 + b"\x20" + V2_HEADER[13:], V2 + b"\x21\x00\x00\x00"],
    ids=["UNKNOWN", "UNKNOWN with addresses", "LOCAL", "LOCAL with addresses", "UNSPEC"],
)
def test_a_client_without_address_is_refused(proxied: Any, header: bytes) -> None:
    """With a clear answer, and no other address is let in."""
    answer = proxied.client(proxied.token(), before=header).event()
    assert answer["status"] == 400
    assert grants(proxied) == ""


@pytest.mark.parametrize(
    "header", [b"", b"PROXY TCP4 evil 192.0.2.1 1 2\r\n", V2 + b"\x31\x11\x00\x00"],
    ids=["none", "malformed", "version 3"],
)
def test_without_a_valid_proxy_header_there_is_no_answer(proxied: Any, header: bytes) -> None:
    client = proxied.client(proxied.token(), before=header)
    assert client.event()["event"] in ("gone", "end")
    assert grants(proxied) == ""


FORWARDED = (
    f"X-Forwarded-For: {CLIENT}", f"Forwarded: for={CLIENT}", f"X-Real-IP: {CLIENT}",
    f"True-Client-IP: {CLIENT}", f"X-Client-IP: {CLIENT}", f"CF-Connecting-IP: {CLIENT}",
)


@pytest.mark.parametrize("port", [8880, 8882])
def test_headers_of_http_are_never_believed(proxied: Any, port: int) -> None:
    """Neither on the proxy's port nor on the direct one."""
    before = V1_HEADER.replace(CLIENT.encode(), PROXY.encode()) if port == 8880 else b""
    client = proxied.client(
        proxied.token(), headers=(*UPGRADE, *FORWARDED), port=port, before=before
    )
    assert client.event()["status"] == 101
    assert CLIENT not in grants(proxied)
    assert f"-s {PROXY}/32" in grants(proxied)
    assert not proxied.reaches(9000, source=CLIENT)


def test_a_proxy_header_is_not_believed_on_a_direct_port(proxied: Any) -> None:
    """Over TLS; without TLS it is a malformed request (`tests.end_to_end.test_attacks`)."""
    client = proxied.client(proxied.token(), port=8882, before=V1_HEADER)
    assert client.event()["event"] in ("gone", "end")
    assert grants(proxied) == ""
