"""The opening handshake of one connection: read a request, ask the gate, report the outcome."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.addresses import Address
from envelope.firewall import FirewallError
from envelope.front.eviction import DropReason
from envelope.front.handshake import HeadReader, parse_handshake
from envelope.front.limits import Limits
from envelope.sessions.answers import FIREWALL_FAILED, Refusal, Refused, Status
from envelope.sessions.gate import ICarrier, IGate, ISession

_log = Logger(namespace="envelope.connection")


class IRequester(ICarrier, Protocol):
    """The connection that a request arrives on, as its `Opening` uses it."""

    @property
    def address(self) -> Address | None:
        """The client's address, None if it is not known."""

    def accepted(self) -> None:
        """The request is accepted: the connection counts as a session from now on."""

    def switch(self, session: ISession, key: str, subprotocol: str | None, early: bytes) -> None:
        """Answer with 101 and hand the connection to `session`; `early`: bytes after the head."""

    def refuse(self, refusal: Refusal, method: str) -> None:
        """Answer a request of this method with a refusal, and disconnect."""

    def count_drop(self, reason: DropReason) -> None:
        """Count a connection that is dropped, or answered without asking the gate."""

    def drop(self, reason: DropReason) -> None:
        """Drop the connection without an answer, and count it."""


class Opening:
    """Reads one request and reports to `requester` what came of it; then it has no more use."""

    __slots__ = ("_admitting", "_early", "_gate", "_head", "_limits", "_requester")

    def __init__(self, requester: IRequester, gate: IGate, limits: Limits) -> None:
        self._requester = requester
        self._gate = gate
        self._limits = limits
        self._head: HeadReader | None = HeadReader(limits.head_bytes, limits.head_lines)
        self._early = b""
        self._admitting: Deferred[ISession] | None = None

    @property
    def waiting(self) -> bool:
        """Whether the whole request has not arrived yet."""
        return self._head is not None

    def feed(self, data: bytes) -> None:
        """Take bytes from the client: of the request's head, or early ones; else ignore them."""
        if self._head is not None:
            self._read(self._head, data)
        elif self._admitting is not None:
            self._early += data
            self._limit_early()

    def connection_lost(self) -> None:
        """Cancel what the gate was asked for."""
        self._head = None
        admitting, self._admitting = self._admitting, None
        if admitting is not None:
            self._gate.count(Status.SETUP_FAILED)
            admitting.cancel()

    def _read(self, head: HeadReader, data: bytes) -> None:
        try:
            complete = head.feed(data)
        except Refused as refused:
            self._requester.count_drop(DropReason.MALFORMED)
            self._refuse(refused.refusal)
            return
        if complete is None:
            return
        self._head = None
        request, self._early = complete
        handshake = parse_handshake(request)
        address = self._requester.address
        outcome = self._gate.decide(handshake.request, address).outcome
        if isinstance(outcome, Refusal):
            self._refuse(outcome, handshake.request.method)
            return
        self._requester.accepted()
        self._admitting = admitting = self._gate.admit(address, outcome, self._requester)
        admitting.addCallbacks(
            self._admitted, self._not_admitted, callbackArgs=(handshake.key, outcome.subprotocol)
        )
        admitting.addErrback(self._failed)
        self._limit_early()

    def _limit_early(self) -> None:
        if self._admitting is not None and len(self._early) > self._limits.early_bytes:
            self._early = b""
            self._requester.drop(DropReason.EARLY_DATA)

    def _admitted(self, session: ISession, key: str, subprotocol: str | None) -> None:
        if self._admitting is None:
            session.client_left()
            return
        self._admitting = None
        early, self._early = self._early, b""
        self._requester.switch(session, key, subprotocol, early)

    def _not_admitted(self, failure: Failure) -> None:
        if self._admitting is None:
            # The connection is lost: there is nothing to answer.
            failure.trap(CancelledError, FirewallError, Refused)
            return
        self._admitting = None
        if isinstance(failure.value, Refused):
            self._refuse(failure.value.refusal)
            return
        if not failure.check(FirewallError):
            _log.failure("unexpected error of the gate", failure)
        self._refuse(FIREWALL_FAILED)

    def _failed(self, failure: Failure) -> None:
        _log.failure("unexpected error in an opening handshake", failure)
        self._requester.abort()

    def _refuse(self, refusal: Refusal, method: str = "GET") -> None:
        self._head = None
        self._early = b""
        self._requester.refuse(refusal, method)
