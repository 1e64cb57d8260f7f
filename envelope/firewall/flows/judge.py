"""Whether this host opened a connection, or a peer did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from envelope.addresses import Address
from envelope.firewall.flows.connections import Connection, SocketTable, Transport

# The kernel reads a socket's counters one by one. If a byte is sent in between, they may tell the
# opposite (measured: once in 10,000 readings while single bytes are sent). So two readings in a row
# have to agree, among so many at most.
_READINGS: Final = 4


def is_own(connection: Connection, served: Collection[int], ephemeral: range) -> bool:
    """Whether this host opened a connection. Pure.

    Where the socket does not tell, it did if the kernel chose its port and nobody serves it.
    `served` are the ports that are served with the same transport.
    """
    if connection.opened is not None:
        return connection.opened
    return connection.local_port in ephemeral and connection.local_port not in served


class Judge:
    """Judges one transport's connections through `devices`; every call may raise `OSError`."""

    def __init__(
        self, sockets: SocketTable, devices: Collection[str], transport: Transport
    ) -> None:
        self._sockets = sockets
        self._devices = devices
        self.served = sockets.served_ports(transport)
        self.ephemeral = sockets.ephemeral_ports()

    def is_own(self, connection: Connection) -> bool | None:
        """Whether this host opened it; None when it is gone, or does not go through a device."""
        if not self.is_guarded(connection.local, connection.remote, connection.bound_to):
            return None
        seen = connection if connection.transport == "udp" else self._settled(connection)
        return None if seen is None else is_own(seen, self.served, self.ephemeral)

    def _settled(self, connection: Connection) -> Connection | None:
        before = connection.opened
        for _ in range(_READINGS - 1):
            seen = self._sockets.again(connection)
            if seen is None or (seen.opened is not None and seen.opened is before):
                return seen
            before = seen.opened
        return replace(connection, opened=None)

    def is_guarded(self, local: Address, remote: Address, bound_to: int = 0) -> bool:
        """Whether packets from `remote` to `local` come in through one of the devices.

        They do if answers leave by one; without a route it is assumed.
        """
        device = self._sockets.device_towards(remote, local, bound_to)
        return not remote.is_loopback and (not device or device in self._devices)
