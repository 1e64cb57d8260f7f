"""A client of the state machine, and what clients need."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from envelope.firewall import FirewallError
from envelope.sessions.admission import Admission
from envelope.sessions.registry import Sessions
from tests.kernel.modelservices import Grants, Guarded


class Client:
    """One client from its request to its end, and the connection that its session closes.

    `service` is the number of the service that it is let in to.
    `lasts` and `deadline` are seconds, the deadline on the service's reactor. `state` is asking,
    in, refused, gone (left before the answer), leaving, or out.
    """

    def __init__(self, address: str, lasts: float, service: int) -> None:
        self.address = address
        self.service = service
        self.network = str(ip_network(address))
        self.lasts = lasts
        self.deadline = 0.0
        self.state = "asking"

    def ask(self, sessions: Sessions, now: float) -> None:
        self.deadline = now + self.lasts
        admission = Admission(self.lasts, service=self.service)
        self.sessions = sessions
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
            self.sessions.revoke_sessions([self.session.data.session_id])

    def close(self, code: int, reason: str) -> None:
        self.state = "out"

    def abort(self) -> None:
        self.state = "out"


def grants_of(clients: Iterable[Client], ahead: float) -> dict[int, Grants]:
    """The grants that these clients need, by address family.

    The wall clock is `ahead` seconds before that of the deadlines.
    """
    wanted: dict[int, Grants] = {4: {}, 6: {}}
    for client in clients:
        grants, grant = wanted[6 if ":" in client.network else 4], (client.service, client.network)
        grants[grant] = max(client.deadline + ahead, grants.get(grant, 0.0))
    return wanted


def opened_by(clients: Iterable[Client], guarded: Guarded) -> dict[tuple[str, int], float]:
    """The addresses and ports that these clients' sessions open, with the latest deadline."""
    opened: dict[tuple[str, int], float] = {}
    for client in clients:
        for port in guarded.opens[client.service]:
            place = (client.address, port)
            opened[place] = max(client.deadline, opened.get(place, 0.0))
    return opened
