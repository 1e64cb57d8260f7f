"""What flows ask of a kernel, in memory; see `envelope.firewall.flows.connections`."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

from envelope.addresses import Address, Network
from envelope.firewall.flows.connections import Connection, Transport, UdpFlow

HERE, THERE = ip_address("203.0.113.1"), ip_address("203.0.113.7")


def connection(
    opened: bool | None = None, transport: Transport = "tcp", port: int = 5000,
    remote: Address | str = THERE, local: Address | str = HERE, remote_port: int = 40000,
) -> Connection:
    """A connection of this host's `port`."""
    there = ip_address(str(remote))
    return Connection(transport, there.version == 6, ip_address(str(local)), port, there,
                      remote_port, opened, 0, f"{port} {there} {remote_port}".encode())


class MemorySockets:
    """Sockets by hand: `open` are those with a peer, `served` the ports of the others."""

    def __init__(self) -> None:
        self.open: list[Connection] = []
        self.served: dict[Transport, set[int]] = {"tcp": set(), "udp": set()}
        self.destroyed: list[Connection] = []
        self.indestructible = ""
        self.devices: dict[Address, str] = {}
        self.lists = 0
        # What `again` says next of who opened a socket; as before when it is empty.
        self.later: list[bool | None] = []
        # What every list of connections raises.
        self.broken: Exception | None = None

    def prepare(self) -> None:
        """See `SocketTable`."""

    def connections(
        self, transport: Transport, networks: Sequence[Network] = ()
    ) -> Iterator[Connection]:
        """See `SocketTable`."""
        if self.broken is not None:
            raise self.broken
        self.lists += transport == "tcp"
        return iter([
            each for each in self.open if each.transport == transport
            and (not networks or any(each.remote in network for network in networks))
        ])

    def again(self, seen: Connection) -> Connection | None:
        """See `SocketTable`."""
        if seen not in self.open:
            return None
        return replace(seen, opened=self.later.pop(0)) if self.later else seen

    def served_ports(self, transport: Transport) -> set[int]:
        """See `SocketTable`."""
        return self.served[transport]

    def destroy(self, connection: Connection) -> None:
        """See `SocketTable`."""
        if connection in self.open:
            self.open.remove(connection)
            self.destroyed.append(connection)

    def why_indestructible(self) -> str:
        """See `SocketTable`."""
        return self.indestructible

    def device_towards(self, remote: Address, local: Address, bound_to: int = 0) -> str:
        """See `SocketTable`."""
        return "lab2" if bound_to else self.devices.get(remote, "eth0")

    def ephemeral_ports(self) -> range:
        """See `SocketTable`."""
        return range(32768, 61000)

    def close(self) -> None:
        """See `SocketTable`."""
        self.broken = OSError(errno.EBADF, "Bad file descriptor")


class MemoryTracking:
    """Tracking by hand: `told` is what it was told, `flows` the UDP flows that it knows."""

    def __init__(self, is_loose: bool = True, fixed: bool = False) -> None:
        self.is_loose = is_loose
        self.fixed = fixed
        self.told: list[Connection] = []
        self.full = 1 << 20
        self.flows: list[UdpFlow] = []
        self.held: list[tuple[UdpFlow, bool]] = []

    def loose(self) -> bool:
        """See `Tracking`."""
        return self.is_loose

    def set_loose(self, loose: bool) -> None:
        """See `Tracking`."""
        if self.fixed:
            raise OSError(errno.EROFS, "Read-only file system")
        self.is_loose = loose

    def tell(self, own: Connection) -> bool:
        """See `Tracking`."""
        if own in self.told:
            return False
        if len(self.told) >= self.full:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        self.told.append(own)
        return True

    def udp_flows(self, version: int) -> Iterator[UdpFlow]:
        """See `Tracking`."""
        return iter([flow for flow in self.flows if flow.source.version == version])

    def fix(self, flow: UdpFlow, turned: bool) -> None:
        """See `Tracking`."""
        self.held.append((flow, turned))

    def close(self) -> None:
        """See `Tracking`."""
