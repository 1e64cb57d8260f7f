"""A firewall in memory: for a service that manages no rules (`--firewall=none`).

It keeps the promises of `IFirewall` on a dictionary; every call is answered at once.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from envelope.addresses import PortRange
from envelope.firewall import GrantId, RulesInForce, Traffic


class MemoryFirewall:
    """Remembers what a kernel would hold.

    `grants` are those that are allowed now, each with the end that `allow` was given; `is_open`
    tells whether the baseline is in force.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.grants: dict[GrantId, float] = {}

    def open(
        self,
        service_ports: tuple[PortRange, ...],  # noqa: ARG002
        closed_ports: tuple[PortRange, ...] = (),  # noqa: ARG002
    ) -> Deferred[None]:
        """See `IFirewall.open`."""
        self.is_open = True
        return succeed(None)

    def allow(self, grant: GrantId, end: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        self.grants[grant] = end
        return succeed(None)

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        """See `IFirewall.revoke`; no packets are counted."""
        self.grants.pop(grant, None)
        return succeed(None)

    def traffic(self, grant: GrantId) -> Traffic | None:  # noqa: ARG002
        """See `IFirewall.traffic`."""
        return None

    def read_traffic(self) -> Deferred[None]:
        """See `IFirewall.read_traffic`."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        self.grants.clear()
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
