"""Packets as they are on the wire: a client's first one, and the host's answers. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from envelope.addresses import Address

HOST_MAC: Final = bytes.fromhex("02000000aa01")
CLIENT_MAC: Final = bytes.fromhex("02000000aa02")
_TYPES: Final = {4: 0x0800, 6: 0x86DD}
_NUMBERS: Final = {"tcp": 6, "udp": 17}
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
# The option "maximum segment size", without which some rules take a SYN for forged.
_SEGMENT_SIZE: Final = struct.pack("!BBH", 2, 4, 1440)


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """Where a client's packet goes."""

    version: Literal[4, 6]
    protocol: Literal["tcp", "udp"]
    port: int

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port} over IPv{self.version}"


def first_packet(target: Target, source: Address, host: Address, source_port: int) -> bytes:
    """The Ethernet frame that begins a client's connection, or that is its only datagram."""
    number = _NUMBERS[target.protocol]
    if target.protocol == "tcp":
        head = struct.pack("!HHIIBBHHH", source_port, target.port, 1, 0, 6 << 4, _SYN, 64240, 0, 0)
        body, checksum_at = head + _SEGMENT_SIZE, 16
    else:
        content = b"envelope"
        size = 8 + len(content)
        body, checksum_at = struct.pack("!HHHH", source_port, target.port, size, 0) + content, 6
    addresses = source.packed + host.packed
    total = _checksum(addresses + struct.pack("!IxxxB", len(body), number) + body)
    body = body[:checksum_at] + struct.pack("!H", total or 0xFFFF) + body[checksum_at + 2:]
    ethernet = HOST_MAC + CLIENT_MAC + struct.pack("!H", _TYPES[target.version])
    return ethernet + _ip_head(target.version, number, len(body), addresses) + body


def _ip_head(version: int, number: int, size: int, addresses: bytes) -> bytes:
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, size, number, 64) + addresses
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 1, 0x4000, 64, number, 0) + addresses
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:]


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def accepted(frame: bytes) -> tuple[Target, Address, int] | None:
    """The connection that a frame from the host accepts: where to, the client and its port."""
    kind, = struct.unpack_from("!H", frame, 12) if len(frame) > 14 else (0,)
    packet = frame[14:]
    if kind == _TYPES[4] and len(packet) >= 40 and packet[9] == _NUMBERS["tcp"]:
        version: Literal[4, 6] = 4
        client, segment = packet[16:20], packet[4 * (packet[0] & 0xF):]
    elif kind == _TYPES[6] and len(packet) >= 60 and packet[6] == _NUMBERS["tcp"]:
        version = 6
        client, segment = packet[24:40], packet[40:]
    else:
        return None
    if len(segment) < 14 or segment[13] & (_SYN | _ACK | _RST) != _SYN | _ACK:
        return None
    port, client_port = struct.unpack_from("!HH", segment)
    return Target(version, "tcp", port), ip_address(client), client_port
