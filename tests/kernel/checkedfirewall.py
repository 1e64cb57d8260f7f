"""A firewall whose answers are checked against packets at the moment they arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TypeVar

from twisted.internet.defer import Deferred

from envelope.addresses import PortRange
from envelope.firewall import GrantId, IFirewall, RulesInForce, Traffic

T = TypeVar("T")


class CheckedFirewall:
    """Passes every call on to `firewall`, and collects its false answers in `false_answers`.

    `passes(grant, others, end)` sends packets to the ports of a grant, without those that the other
    grants open, and returns what was found: True for let in, False for refused; nothing if that
    cannot be judged. An answer is not checked once another call for the same grant was made.
    """

    def __init__(
        self,
        firewall: IFirewall,
        passes: Callable[[GrantId, Collection[GrantId], float], set[bool]],
    ) -> None:
        self._firewall = firewall
        self._passes = passes
        self._asked: Counter[GrantId] = Counter()
        # The ends of the grants that may be in force: asked for, and not said to be revoked.
        self._until: dict[GrantId, float] = {}
        self.false_answers: list[str] = []

    def open(
        self, service_ports: tuple[PortRange, ...], closed_ports: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """See `IFirewall`."""
        return self._firewall.open(service_ports, closed_ports)

    def allow(self, grant: GrantId, until: float) -> Deferred[None]:
        """See `IFirewall`."""
        self._until[grant] = until
        compare = self._compare(grant, True)
        return self._firewall.allow(grant, until).addCallback(compare)

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        """See `IFirewall`."""
        compare = self._compare(grant, False)
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

    def _compare(self, grant: GrantId, should: bool) -> Callable[[T], T]:
        # Counted before the call, because the call may answer an earlier one at once.
        self._asked[grant] += 1
        asked = self._asked[grant]

        def answered(answer: T) -> T:
            if asked != self._asked[grant]:
                return answer
            until = self._until.get(grant, 0.0)
            if not should:
                self._until.pop(grant, None)
            # What the network's other grants open is open after the end of this one.
            others = () if should else [
                each for each in self._until if each.network == grant.network
            ]
            if (not should) in self._passes(grant, others, until):
                said = "let in" if should else "shut out"
                self.false_answers.append(f"{grant} is not {said}, and was said to be")
            return answer

        return answered
