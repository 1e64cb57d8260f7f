"""A client of the state machine."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from envelope.firewall import FirewallError
from envelope.protocol import End
from envelope.sessions.admission import Admission
from envelope.sessions.registry import Sessions


class Client:
    """One client from its request to its end, and the connection that its session closes.

    `lasts` and `deadline` are seconds, the deadline on the service's reactor. `state` is asking,
    in, refused, gone (left before the answer), leaving, or out.
    """

    def __init__(self, address: str, lasts: float) -> None:
        self.address = address
        self.network = str(ip_network(address))
        self.lasts = lasts
        self.deadline = 0.0
        self.state = "asking"

    def ask(self, sessions: Sessions, now: float) -> None:
        self.deadline = now + self.lasts
        admission = Admission(self.lasts)
        self.answer = sessions.admit(ip_address(self.address), admission, self)
        self.answer.addCallbacks(self._admitted, self._refused)

    def _admitted(self, session: object) -> None:
        self.session = session
        self.state = "in"

    def _refused(self, failure: object) -> None:
        failure.trap(FirewallError)
        self.state = "refused"

    def leave(self, how: str) -> None:
        if self.state == "asking":
            self.state = "gone"
            self.answer.addErrback(lambda _: None)
            self.answer.cancel()
        elif self.state == "in":
            self.state = "leaving"
            {"close": self.session.client_closed, "data": self.session.data_received,
             "vanish": self.session.client_left}[how]()

    def be_revoked(self) -> None:
        """An operator revokes its grant."""
        if self.state == "in":
            self.state = "leaving"
            self.session._machine.end(End.REVOKED)

    def close(self, code: int, reason: str) -> None:
        self.state = "out"

    def abort(self) -> None:
        self.state = "out"
