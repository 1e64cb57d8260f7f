"""A firewall in memory whose answers a test decides: it fails calls, or holds them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

from envelope.addresses import PortRange
from envelope.firewall import FirewallError, GrantId, Traffic
from envelope.firewall.memory import MemoryFirewall


class ScriptedFirewall(MemoryFirewall):
    """Answers at once, as `MemoryFirewall` does, unless a test says otherwise.

    `refuse` is called with a method's name and its grant (None for `open` and `close`); the call
    fails with the text that it returns, if any. While `hold_back` is true, calls wait until
    `release`, which asks `refuse` again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[str, GrantId | None], str | None] = lambda _call, _grant: None
        self.hold_back = False
        self._waiting: list[
            tuple[Deferred[Any], str, GrantId | None, Callable[[], Deferred[Any]]]
        ] = []

    def open(
        self, service_ports: tuple[PortRange, ...], closed_ports: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        return self._answer(
            "open", None, lambda: MemoryFirewall.open(self, service_ports, closed_ports))

    def allow(self, grant: GrantId, end: float) -> Deferred[None]:
        return self._answer("allow", grant, lambda: MemoryFirewall.allow(self, grant, end))

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        return self._answer("revoke", grant, lambda: MemoryFirewall.revoke(self, grant))

    def close(self) -> Deferred[None]:
        return self._answer("close", None, lambda: MemoryFirewall.close(self))

    def release(self) -> None:
        """Do all calls that were held back, in the order in which they were made."""
        waiting, self._waiting = self._waiting, []
        for answer, method, grant, do in waiting:
            refusal = self.refuse(method, grant)
            (do() if refusal is None else fail(FirewallError(refusal))).chainDeferred(answer)

    def _answer(
        self, method: str, grant: GrantId | None, do: Callable[[], Deferred[Any]]
    ) -> Deferred[Any]:
        refusal = self.refuse(method, grant)
        if refusal is not None:
            return fail(FirewallError(refusal))
        if not self.hold_back:
            return do()
        answer: Deferred[Any] = Deferred()
        self._waiting.append((answer, method, grant, do))
        return answer
