"""What the front asks of the sessions, and what they may do with its connections.

`envelope.front.factory` is on one side, `envelope.sessions.registry` on the other; neither needs to
know the other.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface

from envelope.addresses import Address
from envelope.sessions.admission import AccessRequest, Admission, Decision, Refusal, Status


class Refused(Exception):
    """The gate changed its mind after its decision; `refusal` is the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class ISession(Interface):
    """What a connection tells of its client; each may come late, and is then ignored."""

    def client_left() -> None:
        """Say that the connection is gone."""

    def client_closed() -> Deferred[None]:
        """Say that the client takes its leave; fires once the grant is gone."""

    def data_received() -> None:
        """Say that a data message has begun."""


class ICarrier(Interface):
    """What a session may do with its connection."""

    def close(code: int, reason: str) -> None:
        """Send a close frame (the grant is gone by then), await the peer's briefly, hang up."""

    def abort() -> None:
        """Hang up at once."""


class IGate(Interface):
    """Who may come in."""

    def decide(
        request: AccessRequest, address: Address | None
    ) -> Decision:
        """Decide on a well-formed request, and count the decision; called once for each."""

    def admit(
        address: Address | None, admission: Admission, carrier: ICarrier
    ) -> Deferred[ISession]:
        """Take a slot and open the firewall; fires with the session once the rule is in force.

        Fails with `FirewallError` or `Refused`, then counted and nothing left open. Cancelling
        says that the client has left meanwhile.
        """

    def count(status: Status) -> None:
        """Count a handshake that was let in but came to nothing."""
