"""Devices in a network namespace of our own: a cable (veth(4)) whose one end is the guarded device.

Made over netlink (rtnetlink(7)), because iproute2 is not installed everywhere.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Final

from envelope.addresses import Address
from envelope.netlink import CREATE, EXCLUSIVE, NETLINK_ROUTE, Netlink, attribute, nested
from envelope.preflight.packets import CLIENT_MAC, HOST_MAC

# linux/rtnetlink.h, linux/if_link.h, linux/veth.h, linux/neighbour.h
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 20, 24, 28
_MAC, _NAME, _LINK_INFO, _INFO_KIND, _INFO_DATA, _PEER = 1, 3, 18, 1, 2, 1
_UP: Final = 1
_NO_DUPLICATE_DETECTION: Final = 0x02
_MAIN_TABLE, _STATIC, _LINK_SCOPE, _UNICAST = 254, 4, 253, 1
_PERMANENT: Final = 0x80
# struct ifinfomsg: family, type, index, flags, change.
_LINK: Final = struct.Struct("=BxHiII")

PEER: Final = "envelope-peer"


class Wire:
    """Makes devices and addresses; every call raises `OSError` where that is not allowed."""

    def __init__(self) -> None:
        self._kernel = Netlink(NETLINK_ROUTE)
        self._up("lo")

    def close(self) -> None:
        """Close the socket to the kernel; the devices stay."""
        self._kernel.close()

    def _up(self, name: str) -> None:
        index = socket.if_nametoindex(name)
        self._kernel.do(_NEW_LINK, _LINK.pack(0, 0, index, _UP, _UP))

    def cable(self, device: str) -> None:
        """Make `device`, whose other end is `PEER`, a client's."""
        self._veth(_end(device, HOST_MAC), _end(PEER, CLIENT_MAC))
        self._up(device)
        self._up(PEER)

    def others(self, names: Iterable[str]) -> None:
        """Make devices that lead nowhere, so that rules which name them can be loaded."""
        for number, name in enumerate(names):
            # The kernel would choose veth0 for the other end, which may be one of `names`.
            self._veth(_end(name), _end(f"env-peer{number}"))

    def _veth(self, one: bytes, other: bytes) -> None:
        info = nested(_LINK_INFO, attribute(_INFO_KIND, b"veth"),
                      nested(_INFO_DATA, attribute(_PEER, other)))
        self._kernel.do(_NEW_LINK, one + info, CREATE | EXCLUSIVE)

    def address(self, device: str, address: Address) -> None:
        """Give `device` an address of its own, without a network around it."""
        body = struct.pack("=BBBBI", _family(address.version), 8 * len(address.packed),
                           _NO_DUPLICATE_DETECTION, 0, socket.if_nametoindex(device))
        self._kernel.do(
            _NEW_ADDRESS, body + attribute(1, address.packed) + attribute(2, address.packed),
            CREATE,
        )

    def default_route(self, device: str, version: int) -> None:
        """Lead the default route of a family over `device`."""
        route = struct.pack("=8BI", _family(version), 0, 0, 0, _MAIN_TABLE, _STATIC, _LINK_SCOPE,
                            _UNICAST, 0)
        index = struct.pack("=I", socket.if_nametoindex(device))
        self._kernel.do(_NEW_ROUTE, route + attribute(4, index), CREATE)

    def neighbour(self, device: str, client: Address) -> None:
        """Tell the kernel that `client` is at the other end of the cable."""
        body = struct.pack("=BxxxiHBB", _family(client.version), socket.if_nametoindex(device),
                           _PERMANENT, 0, _UNICAST)
        self._kernel.do(
            _NEW_NEIGHBOUR, body + attribute(1, client.packed) + attribute(2, CLIENT_MAC), CREATE)


def _end(name: str, mac: bytes = b"") -> bytes:
    """One end of a cable; without `mac` the kernel chooses one."""
    named = _LINK.pack(0, 0, 0, 0, 0) + attribute(_NAME, name.encode() + b"\0")
    return named + (attribute(_MAC, mac) if mac else b"")


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6
