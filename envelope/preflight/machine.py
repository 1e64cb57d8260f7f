"""What a start needs of the machine besides its firewall: device, clock, descriptors, IPv6."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from envelope import devices
from envelope.config import Config
from envelope.netlink import NETLINK_ROUTE, Netlink, attributes
from envelope.preflight.findings import Finding, fail, ok, warn
from envelope.preflight.login import drops
from envelope.runtime import descriptors

# linux/rtnetlink.h
_GETROUTE: Final = 26
_OUTGOING_DEVICE, _SEVERAL = 4, 9
_UNICAST: Final = 1
_CLONED: Final = 0x200
# struct rtmsg: family, length of destination, of source, tos, table, protocol, scope, type, flags.
_ROUTE: Final = struct.Struct("=8BI")
# struct rtnexthop: length, flags, hops, index of the device. Its attributes follow.
_HOP: Final = struct.Struct("=HBBi")
# The head of struct timex (adjtimex(2)): modes, offset, freq, maxerror, esterror, status. The whole
# has 208 bytes where a long has 64 bits.
_TIMEX: Final = struct.Struct("@I4li")
_TIMEX_SIZE: Final = 256
_UNSYNCHRONISED: Final = 0x40


def read_clock_status() -> int:
    """The kernel's status of its clock, `time_status` in adjtimex(2); raise `OSError`."""
    buffer = ctypes.create_string_buffer(_TIMEX_SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(_TIMEX.unpack_from(buffer)[-1])


def find_clock(
    config: Config, _: Mapping[str, str], status: Callable[[], int] = read_clock_status
) -> list[Finding]:
    """Warn when no program keeps the clock right: a token's times are compared with it."""
    if not config.token_required:
        return []
    try:
        synchronised = not status() & _UNSYNCHRONISED
    except OSError as error:
        return [warn(f"the kernel does not tell whether the clock is right: {error.strerror}",
                     "see to it that the host runs NTP")]
    if synchronised:
        return [ok("the clock is synchronised")]
    return [warn("the clock is not synchronised, and tokens are refused when it is wrong",
                 "run NTP (timedatectl set-ntp true)")]


def find_open_files(config: Config, _: Mapping[str, str]) -> list[Finding]:
    """Fail when too few files may be open; otherwise as many may be from now on."""
    try:
        descriptors.ensure(config)
    except descriptors.TooFewDescriptors as error:
        what, do = str(error).split(": ", 1)
        return [fail(what, do)]
    return [ok(f"{descriptors.needed(config)} files may be open")]


def default_routes() -> set[int]:
    """The indices of the devices that default routes lead to, of both families; raise `OSError`."""
    kernel = Netlink(NETLINK_ROUTE)
    try:
        # The first field of the request is the family: 0 asks for every one.
        routes = list(kernel.dump(_GETROUTE, _ROUTE.pack(*[0] * 9)))
    finally:
        kernel.close()
    return {index for body in routes for index in read_default_route(body)}


def read_default_route(body: bytes) -> set[int]:
    """The indices of the devices that a route leads to; none if it is no default route. Pure."""
    _, length, _, _, _, _, _, kind, flags = _ROUTE.unpack_from(body)
    if length or kind != _UNICAST or flags & _CLONED:
        return set()
    found = attributes(body, _ROUTE.size)
    indices = {int.from_bytes(found.get(_OUTGOING_DEVICE, b""), sys.byteorder)}
    hops = found.get(_SEVERAL, b"")
    while len(hops) >= _HOP.size:
        size, _, _, index = _HOP.unpack_from(hops)
        indices.add(index)
        # Padded to 4 bytes (RTNH_ALIGN).
        hops = hops[max(size + 3 & ~3, _HOP.size):]
    return indices - {0}


def judge_device(device: str, carriers: Iterable[str]) -> Finding:
    """Warn when none of `carriers`, the devices of default routes, is the guarded `device`. Pure.
    """
    names = sorted(carriers)
    if device in names:
        return ok(f"{device} is there under this name, has no master, and carries the default "
                  "route")
    if names:
        return warn(f"the default route leads over {' and '.join(names)}, and not over {device}: "
                    "strangers who come in over another device are not refused",
                    f"say --device={names[0]} if that is the public device")
    return warn(f"there is no default route, so {device} may not be the public device",
                "make sure of it: ip route")


def find_device(config: Config, _: Mapping[str, str]) -> list[Finding]:
    """Warn when the guarded device does not carry the default route."""
    # Reading the options has refused a device that does not exist or that has a master.
    if not drops(config):
        return []
    try:
        found = [devices.find(index) for index in default_routes()]
    except OSError as error:
        return [warn(f"the kernel does not tell its routes: {error.strerror}",
                     f"make sure that {config.device} is the public device: ip route")]
    return [judge_device(config.device, [each.name for each in found if each is not None])]


def find_ipv6(
    config: Config, _: Mapping[str, str], proc: Path = Path("/proc")
) -> list[Finding]:
    """Warn when this network speaks no IPv6."""
    if config.firewall == "none":
        return []
    if ipv6_is_on(config.device, proc):
        return [ok("IPv6 is on")]
    return [warn("IPv6 is off here: clients cannot come over it, and measure IPv4 alone",
                 "turn it on, or leave it if that is meant")]


def ipv6_is_on(device: str, proc: Path = Path("/proc")) -> bool:
    """Whether the kernel speaks IPv6, and over `device`."""
    try:
        off = (proc / "sys/net/ipv6/conf" / device / "disable_ipv6").read_text().strip()
    except OSError:
        return (proc / "net/if_inet6").exists()
    return off != "1"
