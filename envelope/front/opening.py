"""How a connection begins: one request is read, judged, and answered by the gate.

It is of no use any more once a session has come of it, or a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.firewall import FirewallError
from envelope.front.handshake import HeadReader, Malformed, understand
from envelope.sessions.admission import FIREWALL_FAILED, Refusal, Status
from envelope.sessions.gate import ISession, Refused

if TYPE_CHECKING:
    from envelope.front.connection import Connection

_log = Logger(namespace="envelope.connection")


class Opening:
    """Tells its connection what came of the request: `refuse`, `let_in`, `give_up` or `abort`."""

    __slots__ = ("_asked", "_connection", "_early", "_factory", "_head")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._factory = connection.factory
        limits = self._factory.limits
        self._head: HeadReader | None = HeadReader(limits.head_bytes, limits.head_lines)
        self._early = b""
        self._asked: Deferred[ISession] | None = None

    @property
    def silent(self) -> bool:
        """Whether no whole request has come yet."""
        return self._head is not None

    def feed(self, data: bytes) -> None:
        """Read the request, or keep what comes early; behind a refusal nobody reads."""
        if self._head is not None:
            self._read(self._head, data)
        elif self._asked is not None:
            self._early += data
            self._bound_early()

    def lost(self) -> None:
        """The client is gone: take back what was asked for."""
        self._head = None
        asked, self._asked = self._asked, None
        if asked is not None:
            self._factory.gate.count(Status.SETUP_FAILED)
            asked.cancel()

    def _read(self, head: HeadReader, data: bytes) -> None:
        try:
            complete = head.feed(data)
        except Malformed as malformed:
            self._factory.dropped("malformed")
            self._refuse(malformed.refusal)
            return
        if complete is None:
            return
        self._head = None
        request, self._early = complete
        handshake = understand(request)
        address = self._connection.address
        outcome = self._factory.gate.decide(handshake.request, address).outcome
        if isinstance(outcome, Refusal):
            self._refuse(outcome, handshake.request.method)
            return
        self._factory.settle(self._connection)
        self._asked = asked = self._factory.gate.admit(address, outcome, self._connection)
        asked.addCallbacks(
            self._admitted, self._not_admitted, callbackArgs=(handshake.key, outcome.subprotocol)
        )
        asked.addErrback(self._went_wrong)
        self._bound_early()

    def _bound_early(self) -> None:
        if self._asked is not None and len(self._early) > self._factory.limits.early_bytes:
            self._early = b""
            self._connection.give_up("early-data")

    def _admitted(self, session: ISession, key: str, subprotocol: str | None) -> None:
        if self._asked is None:
            session.client_left()
            return
        self._asked = None
        early, self._early = self._early, b""
        self._connection.let_in(session, key, subprotocol, early)

    def _not_admitted(self, failure: Failure) -> None:
        if self._asked is None:
            # The client has left, and nothing is left to answer.
            failure.trap(CancelledError, FirewallError, Refused)
            return
        self._asked = None
        if isinstance(failure.value, Refused):
            self._refuse(failure.value.refusal)
            return
        if not failure.check(FirewallError):
            _log.failure("the gate broke", failure)
        self._refuse(FIREWALL_FAILED)

    def _went_wrong(self, failure: Failure) -> None:
        _log.failure("the handshake broke", failure)
        self._connection.abort()

    def _refuse(self, refusal: Refusal, method: str = "GET") -> None:
        self._head = None
        self._early = b""
        self._connection.refuse(refusal, method)
