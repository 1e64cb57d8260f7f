"""Network devices, as the kernel knows them (rtnetlink(7)).

A device is known by its index, which stays as long as the device is in its network namespace. It
has one name, which its packets bear and which may change, and perhaps others (ip-link(8),
`property`). With a master (a bridge, bond, team or VRF), the packets that it receives bear the
master's name. Netlink is asked, because /sys may show the devices of another namespace.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from envelope.netlink import NETLINK_ROUTE, Events, Netlink, attribute, attributes
from envelope.text import printable

# linux/rtnetlink.h and linux/if_link.h
_NEWLINK: Final = 16
_GETLINK: Final = 18
_LINK_GROUP: Final = 1
_IFNAME: Final = 3
_MASTER: Final = 10
_LINKINFO: Final = 18
_INFO_KIND: Final = 1
_ALT_IFNAME: Final = 53
# Bytes of a device's own name, the zero at its end included.
_NAME_SIZE: Final = 16
# struct ifinfomsg: family, type, index, flags, change.
_LINK: Final = struct.Struct("=BxHiII")
# Messages about a bridge's ports have a family of their own.
_UNSPECIFIED: Final = 0


@dataclass(frozen=True, slots=True)
class Device:
    """One device; `master` is the index of its master or 0, `kind` what it is ("bridge"), if told.
    """

    index: int
    name: str
    master: int = 0
    kind: str = ""

    def __str__(self) -> str:
        return printable(f"the {self.kind} {self.name}" if self.kind else self.name)


# A device by its index, or by any of its names; None when there is none.
Finder: TypeAlias = Callable[[int | str], Device | None]


def find(which: int | str) -> Device | None:
    """See `Finder`; raise `OSError` when the kernel does not tell."""
    index, name = (which, b"") if isinstance(which, int) else (0, _name_attribute(which))
    kernel = Netlink(NETLINK_ROUTE)
    try:
        body = kernel.ask(_GETLINK, _LINK.pack(_UNSPECIFIED, 0, index, 0, 0) + name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    finally:
        kernel.close()
    return read_device(body)


def _name_attribute(name: str) -> bytes:
    # Under the type of the name itself, the kernel looks for alternative names as well, but it
    # takes longer ones only under their own type, which Linux before 5.5 does not know.
    text = name.encode() + b"\0"
    return attribute(_IFNAME if len(text) <= _NAME_SIZE else _ALT_IFNAME, text)


def read_device(body: bytes) -> Device | None:
    """The device that a message is about; None when it does not say all. Pure."""
    if len(body) < _LINK.size:
        return None
    family, _, index, _, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    if family != _UNSPECIFIED or _IFNAME not in found:
        return None
    kind = attributes(found.get(_LINKINFO, b"")).get(_INFO_KIND, b"")
    return Device(
        index, _text(found[_IFNAME]),
        int.from_bytes(found.get(_MASTER, b""), sys.byteorder), _text(kind),
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def link_events() -> Events:
    """What the kernel tells about devices that come, go and change; see `heard`."""
    return Events(NETLINK_ROUTE, _LINK_GROUP)


def heard(kind: int, body: bytes) -> Device | None:
    """The device that has come or changed; None for other messages. Pure."""
    return read_device(body) if kind == _NEWLINK else None
