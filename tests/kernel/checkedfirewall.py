"""A firewall whose answers are checked against packets at the moment they arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from envelope.addresses import Network, PortRange
from envelope.firewall import GrantId, IFirewall, RulesInForce, Traffic

T = TypeVar("T")


class CheckedFirewall:
    """Passes every call on to `firewall`, and collects its false answers in `false_answers`.

    `passes(network, end)` tells whether packets of a network get through now, or None if that
    cannot be judged. An answer is not checked once another call for the same network was made.
    """

    def __init__(
        self, firewall: IFirewall, passes: Callable[[Network, float], bool | None]
    ) -> None:
        self._firewall = firewall
        self._passes = passes
        self._asked: Counter[Network] = Counter()
        self._until: dict[Network, float] = {}
        self.false_answers: list[str] = []

    def open(
        self, service_ports: tuple[PortRange, ...], closed_ports: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """See `IFirewall`."""
        return self._firewall.open(service_ports, closed_ports)

    def allow(self, grant: GrantId, until: float) -> Deferred[None]:
        """See `IFirewall`."""
        self._until[grant.network] = until
        compare = self._compare(grant.network, True)
        return self._firewall.allow(grant, until).addCallback(compare)

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        """See `IFirewall`."""
        compare = self._compare(grant.network, False)
        return self._firewall.revoke(grant).addCallback(compare)

    def traffic(self, grant: GrantId) -> Traffic | None:
        """See `IFirewall`."""
        return self._firewall.traffic(grant)

    def read_traffic(self) -> Deferred[None]:
        """See `IFirewall`."""
        return self._firewall.read_traffic()

    def close(self) -> Deferred[None]:
        """See `IFirewall`."""
        return self._firewall.close()

    def warnings(self) -> list[str]:
        """See `IFirewall`."""
        return self._firewall.warnings()

    def problems(self) -> list[str]:
        """See `IFirewall`."""
        return self._firewall.problems()

    def rules(self) -> RulesInForce:
        """See `IFirewall`."""
        return self._firewall.rules()

    def _compare(self, network: Network, should: bool) -> Callable[[T], T]:
        # Counted before the call, because the call may answer an earlier one at once.
        self._asked[network] += 1
        asked = self._asked[network]

        def answered(answer: T) -> T:
            if asked != self._asked[network]:
                return answer
            if self._passes(network, self._until.get(network, 0.0)) not in (should, None):
                said = "let in" if should else "shut out"
                self.false_answers.append(f"{network} is not {said}, and was said to be")
            return answer

        return answered
