"""The firewall's twin in memory: for services without tokens, and for tests.

It keeps the promises of `IFirewall` on a dictionary; a test can make its next calls fail or wait.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from envelope.addresses import Network, PortRange
from envelope.firewall import FirewallError, IFirewall


@implementer(IFirewall)
class MemoryFirewall:
    """Remembers what a kernel would hold.

    `open_networks` is what is let in now, `is_open` whether the baseline is in force. With
    `hold_back` set, answers wait in `waiting` until `release` is called.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.service_ports: tuple[PortRange, ...] = ()
        self.open_networks: dict[Network, float] = {}
        self.refuse: Callable[[str, Network | None], str | None] = lambda _call, _network: None
        self.hold_back = False
        self.waiting: list[tuple[Deferred[None], Callable[[], None]]] = []

    def open(self, service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """See `IFirewall.open`."""
        def apply() -> None:
            self.is_open, self.service_ports = True, service_ports

        return self._answer("open", None, apply)

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        return self._answer("allow", network, lambda: self.open_networks.update({network: until}))

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        return self._answer("revoke", network, lambda: self._forget(network))

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        def apply() -> None:
            self.open_networks.clear()
            self.is_open = False

        return self._answer("close", None, apply)

    def problems(self) -> list[str]:
        """See `IFirewall.problems`."""
        return []

    def release(self) -> None:
        """Let every waiting call go through, in the order they were made."""
        waiting, self.waiting = self.waiting, []
        for answer, apply in waiting:
            apply()
            answer.callback(None)

    def _forget(self, network: Network) -> None:
        self.open_networks.pop(network, None)

    def _answer(
        self, call: str, network: Network | None, apply: Callable[[], None]
    ) -> Deferred[None]:
        refusal = self.refuse(call, network)
        if refusal is not None:
            return fail(FirewallError(refusal))
        if self.hold_back:
            answer: Deferred[None] = Deferred()
            self.waiting.append((answer, apply))
            return answer
        apply()
        return succeed(None)
