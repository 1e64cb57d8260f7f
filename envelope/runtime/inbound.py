"""The SSH login that a start is typed in, and the TCP connections to this host.

sshd puts SSH_CONNECTION into the environment of the login, but sudo and others take it away again.
The processes above ours still have it. All is read from proc(5).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, Literal

from envelope.addresses import Address

_LOGIN: Final = "SSH_CONNECTION"
_ESTABLISHED: Final = "01"
_LISTENING: Final = "0A"
# The state of a UDP socket that is connected to nobody: that of a closed TCP one.
_UNCONNECTED: Final = "07"
_EVERYWHERE: Final = (IPv4Address(0), IPv6Address(0))


def ssh_connection(environ: Mapping[str, str], proc: Path = Path("/proc")) -> str | None:
    """The value of SSH_CONNECTION here, or else in the nearest parent that has it.

    A variable that is set here counts even if it is empty: so an operator overrules the parents.
    Parents that cannot be read are skipped, and so are those in another network, whose login does
    not come in through ours.
    """
    if _LOGIN in environ:
        return environ[_LOGIN]
    parent = os.getppid()
    while parent:
        process = proc / str(parent)
        with suppress(OSError):
            if os.readlink(process / "ns/net") == os.readlink(proc / "self/ns/net"):
                for entry in (process / "environ").read_bytes().split(b"\0"):
                    name, _, value = entry.partition(b"=")
                    if name == _LOGIN.encode() and value:
                        return value.decode("ascii", "replace")
        try:
            status = (process / "status").read_text()
        except OSError:
            return None
        parent = int(status.partition("\nPPid:")[2].split()[0])
    return None


def inbound_connections(tables: Iterable[str]) -> list[tuple[Address, int]]:
    """The local address and port of each TCP connection that came in, with one entry for each.

    `tables` are the texts of /proc/net/tcp and tcp6. A connection came in if something listens
    where it ends; pure.
    """
    rows = [line.split()[1:4] for table in tables for line in table.splitlines()[1:]]
    sockets = [(state, *_endpoint(local)) for local, _, state in rows]
    listening = {(address, port) for state, address, port in sockets if state == _LISTENING}
    return [
        (address, port) for state, address, port in sockets
        if state == _ESTABLISHED
        and any((each, port) in listening for each in (address, *_EVERYWHERE))
    ]


def serving_ports(proc: Path = Path("/proc/self/net")) -> list[tuple[Literal["tcp", "udp"], int]]:
    """The ports that others can reach a socket at, each once; those of loopback are left out."""
    found: dict[tuple[Literal["tcp", "udp"], int], None] = {}
    protocols: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
    for protocol in protocols:
        for name in (protocol, f"{protocol}6"):
            with suppress(OSError):
                for line in (proc / name).read_text().splitlines()[1:]:
                    local, _, state = line.split()[1:4]
                    address, port = _endpoint(local)
                    serving = _LISTENING if protocol == "tcp" else _UNCONNECTED
                    if state == serving and not address.is_loopback:
                        found[protocol, port] = None
    return list(found)


def read_tables(proc: Path = Path("/proc/self/net")) -> list[str]:
    """The texts of this network's tables of TCP sockets, without those that cannot be read."""
    tables = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            tables.append((proc / name).read_text())
    return tables


def _endpoint(text: str) -> tuple[Address, int]:
    # Words of 32 bits in the machine's byte order.
    digits, _, port = text.partition(":")
    packed = b"".join(
        struct.pack("=I", int(digits[start:start + 8], 16)) for start in range(0, len(digits), 8))
    if len(packed) == 4:
        return IPv4Address(socket.inet_ntop(socket.AF_INET, packed)), int(port, 16)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address, int(port, 16)
