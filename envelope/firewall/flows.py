"""Connections that the host itself opened before the rules came.

A kernel that has not been tracking connections takes the first packet it sees of one for its
beginning. If that packet comes from outside, the host's own connection looks like a stranger's,
and would be refused from the first packet on. So those connections get a rule each, by address
and port, for as long as the service runs (in a chain of flows); clients cannot use them, since the
kernel has a socket at that exact place already.

The sockets are read from /proc/net/tcp, tcp6, udp and udp6 (proc(5)).
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from envelope.addresses import Address
from envelope.firewall.policy import Layout

_LISTENING: Final = "0A"
# A machine with more connections than this has long been tracking them.
MOST_FLOWS: Final = 512


@dataclass(frozen=True, slots=True)
class Flow:
    """One connected socket of this host."""

    protocol: str
    local: Address
    local_port: int
    remote: Address
    remote_port: int

    @property
    def as_iptables(self) -> str:
        """The rule that lets this flow's packets in, in iptables-save's form."""
        bits = self.local.max_prefixlen
        return (
            f"-s {self.remote}/{bits} -d {self.local}/{bits} -p {self.protocol} "
            f"-m {self.protocol} --sport {self.remote_port} --dport {self.local_port} -j ACCEPT"
        )

    @property
    def as_nft(self) -> str:
        """The same for a table of family inet, in nft's form."""
        ip = "ip" if self.local.version == 4 else "ip6"
        return (
            f"{ip} saddr {self.remote} {ip} daddr {self.local} {self.protocol} "
            f"sport {self.remote_port} {self.protocol} dport {self.local_port} accept"
        )


def _endpoint(text: str) -> tuple[Address, int]:
    digits, _, port = text.partition(":")
    words = struct.pack(f"={len(digits) // 8}I", *(
        int(digits[i:i + 8], 16) for i in range(0, len(digits), 8)
    ))
    if len(words) == 4:
        return IPv4Address(socket.inet_ntop(socket.AF_INET, words)), int(port, 16)
    address = IPv6Address(words)
    return address.ipv4_mapped or address, int(port, 16)


def own_flows(tables: dict[str, str]) -> list[Flow]:
    """The flows that the host opened, out of the text of /proc/net's tables by protocol.

    A connected socket whose port nobody listens on was opened from here; pure.
    """
    listening: set[tuple[str, int]] = set()
    flows: list[Flow] = []
    for name, text in tables.items():
        protocol = name.removesuffix("6")
        for line in text.splitlines()[1:]:
            fields = line.split()
            local, local_port = _endpoint(fields[1])
            remote, remote_port = _endpoint(fields[2])
            if fields[3] == _LISTENING or (protocol == "udp" and remote_port == 0):
                listening.add((protocol, local_port))
            elif remote_port:
                flows.append(Flow(protocol, local, local_port, remote, remote_port))
    return [
        flow for flow in flows
        if (flow.protocol, flow.local_port) not in listening
        and not flow.remote.is_loopback and flow.local.version == flow.remote.version
    ]


def carried_flows(
    layout: Layout, version: int, proc: Path = Path("/proc/net")
) -> tuple[Flow, ...]:
    """The flows of an address family that the host has open now, at most `MOST_FLOWS`."""
    if layout.baseline != "service" or sys.platform != "linux":
        return ()
    tables = {
        name: (proc / name).read_text()
        for name in ("tcp", "tcp6", "udp", "udp6") if (proc / name).exists()
    }
    flows = {flow for flow in own_flows(tables) if flow.local.version == version}
    return tuple(sorted(flows, key=lambda flow: flow.as_iptables))[:MOST_FLOWS]
