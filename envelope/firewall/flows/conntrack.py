"""What the kernel's connection tracking knows, asked and told through ctnetlink.

A kernel may come without it (CONFIG_NF_CT_NETLINK), and changes take CAP_NET_ADMIN. Telling of a
flow takes 10 µs; a list of 5,000 UDP flows takes 12 ms.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from envelope.addresses import Address
from envelope.firewall.flows.connections import FIXED_FOR, Connection, Transport, UdpFlow
from envelope.netlink import (
    CREATE,
    EXCLUSIVE,
    NETLINK_NETFILTER,
    Netlink,
    attribute,
    attributes,
    nested,
)

# linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h
_NEW, _GET, _DELETE, _STATISTICS = 0x100, 0x101, 0x102, 0x105
_HEAD: Final = struct.Struct("!BBH")
_ORIGINAL, _REPLY, _STATUS, _STATE, _TIMEOUT, _FILTER = 1, 2, 3, 4, 7, 25
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCE: Final = {4: 1, 6: 3}
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_BY_NUMBER: Final = 8
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NUMBERS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_WORD: Final = struct.Struct("!I")
# Seen in both directions, and confirmed; and never refreshed.
_UP: Final = 2 | 4 | 8
_FIXED: Final = 1 << 10
# Established, and not measured by its windows, which are not known: as the kernel notes of what it
# meets midway (IP_CT_TCP_FLAG_BE_LIBERAL and _SACK_PERM, both of them set).
_MIDWAY: Final = b"\x0a\x0a"
_TCP_STATE: Final = nested(
    _STATE, nested(1, attribute(1, b"\3"), attribute(4, _MIDWAY), attribute(5, _MIDWAY))
)
# Seconds for which a flow is known without a packet: the kernel's own defaults.
_LASTS: Final = {"tcp": 432000, "udp": 120}


class _End(NamedTuple):
    address: Address
    port: int


class Conntrack:
    """See `envelope.firewall.flows.connections.Tracking`."""

    def __init__(
        self, loose: Path = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
    ) -> None:
        self._kernel = Netlink(NETLINK_NETFILTER)
        self._loose = loose

    def loose(self) -> bool:
        """See `Tracking`."""
        with suppress(OSError):
            # Loads tracking where it has not been used yet, and with it the setting.
            self._kernel.ask(_STATISTICS, _HEAD.pack(socket.AF_UNSPEC, 0, 0))
        return self._loose.read_text().strip() != "0"

    def set_loose(self, loose: bool) -> None:
        """See `Tracking`."""
        self._loose.write_text("1" if loose else "0")

    def tell(self, own: Connection) -> bool:
        """See `Tracking`."""
        near, far = _End(own.local, own.local_port), _End(own.remote, own.remote_port)
        entry = _entry(own.transport, near, far, _UP, _LASTS[own.transport])
        try:
            self._kernel.do(_NEW, entry, CREATE | EXCLUSIVE)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            # Tracking knows more of a UDP flow than the socket does.
            if own.transport == "udp" or self._began(own.transport, near, far):
                return False
            self._replace(own.transport, near, far, entry)
        return True

    def udp_flows(self, version: int) -> Iterator[UdpFlow]:
        """See `Tracking`."""
        number = attribute(_NUMBER, bytes((_NUMBERS["udp"],)))
        # Kernels before 5.8 know no such filter, and list everything.
        asking = _HEAD.pack(_FAMILIES[version], 0, 0) + nested(
            _ORIGINAL, nested(_PROTOCOL, number)
        ) + nested(_FILTER, attribute(1, struct.pack("=I", _BY_NUMBER)))
        for message in self._kernel.dump(_GET, asking):
            flow = read_flow(message)
            if flow is not None:
                yield flow

    def fix(self, flow: UdpFlow, turned: bool) -> None:
        """See `Tracking`."""
        source, target = _End(flow.source, flow.source_port), _End(flow.target, flow.target_port)
        # Up, so that it is not among the first to be dropped when the table is full.
        entry = _entry("udp", source, target, _UP | _FIXED, FIXED_FOR)
        if turned:
            self._replace("udp", target, source, entry)
            return
        try:
            self._kernel.do(_NEW, entry)
        except OSError as error:
            # EPERM is what the kernel says of one that is fixed already.
            if error.errno not in (errno.EPERM, errno.ENOENT):
                raise

    def close(self) -> None:
        """See `Tracking`."""
        self._kernel.close()

    def _began(self, transport: Transport, near: _End, far: _End) -> bool:
        asking = _head(near) + _tuple(_ORIGINAL, transport, near, far)
        original = attributes(self._kernel.ask(_GET, asking), _HEAD.size)[_ORIGINAL]
        source = attributes(attributes(original)[_ADDRESSES])[_SOURCE[near.address.version]]
        return source == near.address.packed

    def _replace(self, transport: Transport, near: _End, far: _End, entry: bytes) -> None:
        with suppress(OSError):
            self._kernel.do(_DELETE, _head(near) + _tuple(_ORIGINAL, transport, near, far))
        self._kernel.do(_NEW, entry, CREATE | EXCLUSIVE)


def _head(end: _End) -> bytes:
    return _HEAD.pack(_FAMILIES[end.address.version], 0, 0)


def _entry(transport: Transport, source: _End, target: _End, status: int, lasts: int) -> bytes:
    return b"".join((
        _head(source),
        _tuple(_ORIGINAL, transport, source, target), _tuple(_REPLY, transport, target, source),
        # The timeout goes first: a flow that is fixed has one for good.
        attribute(_TIMEOUT, _WORD.pack(lasts)), attribute(_STATUS, _WORD.pack(status)),
        _TCP_STATE if transport == "tcp" else b"",
    ))


def _tuple(kind: int, transport: Transport, source: _End, target: _End) -> bytes:
    number = _SOURCE[source.address.version]
    return nested(
        kind,
        nested(_ADDRESSES, attribute(number, source.address.packed),
               attribute(number + 1, target.address.packed)),
        nested(_PROTOCOL, attribute(_NUMBER, bytes((_NUMBERS[transport],))),
               attribute(_SOURCE_PORT, source.port.to_bytes(2, "big")),
               attribute(_TARGET_PORT, target.port.to_bytes(2, "big"))),
    )


def read_flow(message: bytes) -> UdpFlow | None:
    """The UDP flow in a message of ctnetlink; None if it is none, or is translated. Pure."""
    version = 4 if message[0] == socket.AF_INET else 6
    known = attributes(message, _HEAD.size)
    number, source, target, source_port, target_port = _read_tuple(known[_ORIGINAL], version)
    back = _read_tuple(known[_REPLY], version)
    if number != bytes((_NUMBERS["udp"],)) or back[1:] != (
        target, source, target_port, source_port
    ):
        return None
    return UdpFlow(
        ip_address(source), int.from_bytes(source_port, "big"),
        ip_address(target), int.from_bytes(target_port, "big"),
    )


def _read_tuple(data: bytes, version: int) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    parts = attributes(data)
    addresses, protocol = attributes(parts[_ADDRESSES]), attributes(parts[_PROTOCOL])
    number = _SOURCE[version]
    return (
        protocol[_NUMBER], addresses[number], addresses[number + 1],
        protocol.get(_SOURCE_PORT, b""), protocol.get(_TARGET_PORT, b""),
    )
