"""A firewall whose answers are held against packets in the moment that they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.internet.defer import Deferred

from envelope.addresses import Network, PortRange
from envelope.firewall import IFirewall


class CheckedFirewall:
    """Passes everything on to `firewall`, and keeps what it said that was not so.

    `passes` tells whether packets of a network come through now; None where that says nothing.
    An answer is of no interest once something else is asked for the same network.
    """

    def __init__(
        self, firewall: IFirewall, passes: Callable[[Network, float], bool | None]
    ) -> None:
        self._firewall = firewall
        self._passes = passes
        self._asked: Counter[Network] = Counter()
        self._until: dict[Network, float] = {}
        self.lies: list[str] = []

    def open(self, service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """See `IFirewall`."""
        return self._firewall.open(service_ports)

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall`."""
        self._until[network] = until
        compare = self._compare(network, True)
        return self._firewall.allow(network, until).addCallback(compare)

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall`."""
        compare = self._compare(network, False)
        return self._firewall.revoke(network).addCallback(compare)

    def close(self) -> Deferred[None]:
        """See `IFirewall`."""
        return self._firewall.close()

    def problems(self) -> list[str]:
        """See `IFirewall`."""
        return self._firewall.problems()

    def _compare(self, network: Network, should: bool) -> Callable[[None], None]:
        # Counted before anything is asked: what was asked before may be answered at that.
        self._asked[network] += 1
        asked = self._asked[network]

        def answered(_: None) -> None:
            if asked != self._asked[network]:
                return
            if self._passes(network, self._until.get(network, 0.0)) not in (should, None):
                said = "let in" if should else "shut out"
                self.lies.append(f"{network} is not {said}, and was said to be")

        return answered
