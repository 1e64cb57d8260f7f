"""The grants that sessions hold, and what these let in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed

from envelope.firewall import FirewallError, GrantId, IFirewall, Traffic
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.session import SessionData
from envelope.sessions.sharing import SharedGrants

# Seconds between two readings for those who watch.
READ_APART: Final = 2.0


class HeldGrants:
    """Asks the firewall for the grants of sessions; `now` returns reactor seconds."""

    def __init__(
        self, firewall: IFirewall, metrics: SessionMetrics, now: Callable[[], float]
    ) -> None:
        self._firewall = firewall
        self._metrics = metrics
        self._now = now
        self._shared = SharedGrants()
        self._read_at = -READ_APART

    def ask(self, data: SessionData) -> Deferred[None]:
        """Let the session's network in; fails with `FirewallError`. See `IFirewall.allow`."""
        grant = data.grant
        if grant is None:
            return succeed(None)
        deadline = data.asked_at + data.admission.duration
        return self._firewall.allow(grant, self._shared.add(data.session_id, grant, deadline))

    def leave(self, data: SessionData) -> Deferred[None]:
        """Leave the session's grant; fires once it is revoked, or at once if others share it.

        The session's `traffic` is then what the grant has let in.
        """
        if data.network is None:
            return succeed(None)
        data.shared = self._shared.is_shared(data.session_id)
        grant, end = self._shared.remove(data.session_id)
        if end is None:
            asked_at = self._now()
            return self._firewall.revoke(grant).addCallback(self._left, data, asked_at)
        self.refresh()
        data.traffic = self._firewall.traffic(grant)
        # The grant goes on for other sessions, with their latest deadline. The session need not
        # wait for that, and a failure is tried again by the firewall.
        shortened = self._firewall.allow(grant, end)
        shortened.addErrback(lambda failure: failure.trap(FirewallError) and None)
        return succeed(None)

    def _left(self, traffic: Traffic | None, data: SessionData, asked_at: float) -> None:
        data.traffic = traffic
        if data.end is not None:
            self._metrics.revoked(self._now() - asked_at)
        if traffic is not None:
            # The session is the last of those that shared the grant.
            self._metrics.received(data.family, traffic.packets, traffic.bytes)

    def traffic(self, grant: GrantId | None) -> Traffic | None:
        """What a grant has let in as of the last reading; see `IFirewall.traffic`."""
        return None if grant is None else self._firewall.traffic(grant)

    def read(self) -> Deferred[None]:
        """Read what grants have let in; see `IFirewall.read_traffic`."""
        self._read_at = self._now()
        return self._firewall.read_traffic()

    def refresh(self) -> None:
        """Begin a reading, unless one has begun just before; few grants are read at once."""
        if self._now() - self._read_at >= READ_APART:
            self.read()
