"""What the front asks of the sessions, and what a session may do with its connection.

`envelope.front` is on one side and `envelope.sessions.registry` on the other. Neither imports the
other.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from envelope.addresses import Address
from envelope.sessions.admission import AccessRequest, Admission, Decision
from envelope.sessions.answers import Status


class ISession(Protocol):
    """What a connection tells the session of its client; a call after the session's end is ignored.
    """

    def client_left(self) -> None:
        """The connection is lost."""

    def client_closed(self) -> Deferred[None]:
        """The client sent a close frame; fires once the grant is revoked."""

    def data_received(self) -> None:
        """A data frame has begun."""


class ICarrier(Protocol):
    """What a session may do with its connection."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, wait briefly for the peer's, and disconnect.

        Called once the grant is revoked.
        """

    def abort(self) -> None:
        """Drop the connection at once."""


class IGate(Protocol):
    """Decides about requests, and opens sessions for those that it accepts."""

    def decide(self, request: AccessRequest, address: Address | None) -> Decision:
        """Decide about a well-formed request, and count the decision; called once for each."""

    def admit(
        self, address: Address | None, admission: Admission, carrier: ICarrier
    ) -> Deferred[ISession]:
        """Take a slot and open the firewall; fires with the session once the grant is in force.

        Fails with `FirewallError` or `Refused`; the failure is then counted, and no slot or grant
        is left. The front cancels when the client is lost meanwhile.
        """

    def count(self, status: Status) -> None:
        """Count a request that was accepted but did not become a session."""
