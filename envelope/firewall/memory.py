"""A firewall in memory: for a service that manages no rules (`--firewall=none`).

It keeps the promises of `IFirewall` on a dictionary; every call is answered at once.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from envelope.addresses import Network, PortRange
from envelope.firewall import RulesInForce


class MemoryFirewall:
    """Remembers what a kernel would hold.

    `open_networks` are the networks that are allowed now, each with the end that `allow` was given;
    `is_open` tells whether the baseline is in force.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.open_networks: dict[Network, float] = {}

    def open(
        self,
        service_ports: tuple[PortRange, ...],  # noqa: ARG002
        closed_ports: tuple[PortRange, ...] = (),  # noqa: ARG002
    ) -> Deferred[None]:
        """See `IFirewall.open`."""
        self.is_open = True
        return succeed(None)

    def allow(self, network: Network, end: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        self.open_networks[network] = end
        return succeed(None)

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        self.open_networks.pop(network, None)
        return succeed(None)

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        self.open_networks.clear()
        self.is_open = False
        return succeed(None)

    def warnings(self) -> list[str]:
        """See `IFirewall.warnings`."""
        return []

    def problems(self) -> list[str]:
        """See `IFirewall.problems`."""
        return []

    def rules(self) -> RulesInForce:
        """See `IFirewall.rules`; there are none."""
        return RulesInForce()
