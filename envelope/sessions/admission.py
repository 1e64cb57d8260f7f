"""Decides whether a request is admitted, and for how long. Pure; the time is an argument.

The order of the checks is part of the contract with clients (docs/answers.md); the first that
fails decides the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from envelope.config.subjects import service_for
from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from envelope.protocol import ACCESS_PATH, MONITORING, SUBPROTOCOL


class Status(StrEnum):
    """How a request ended: label `status` of `envelope_requests_total`."""

    SUCCESS = "success"
    WRONG_METHOD = "wrong-method"
    MISSING_CLAIM = "missing claim when tokens required"
    WRONG_SUBJECT = "wrong claim subject"
    PAST_EXPIRATION = "already past claim expiration"
    FULL = "max concurrent reached"
    GRANT_FAILED = "iptables-grant-failure"
    SETUP_FAILED = "websocket-setup-failure"
    STOPPING = "draining"
    NOT_FOUND = "not-found"


class TokenPass(StrEnum):
    """Why the token check let a request pass.

    Label `reason` of `controller_access_token_requests_total`, beside `TokenReason`.
    """

    VALID = "locate"
    NOT_SENT = "empty"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 101: HTTP status, how it is counted, text, and more headers.

    `counted` is None for an answer that `envelope_requests_total` does not count. `text` never
    repeats anything that the client sent.
    """

    status: int
    counted: Status | None
    text: str
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request is refused; `refusal` is the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


NOT_FOUND = Refusal(404, Status.NOT_FOUND, "There is nothing at this path.")
OVER_RATE = Refusal(
    503, None, "The network is busy. Try again later.", (("Retry-After", "10"),)
)
WRONG_METHOD = Refusal(405, Status.WRONG_METHOD, "Only GET is answered here.", (("Allow", "GET"),))
MISSING_CLAIM = Refusal(
    400, Status.MISSING_CLAIM, "The access token has no expiry."
)
WRONG_SUBJECT = Refusal(
    400, Status.WRONG_SUBJECT, "The access token is meant for another service."
)
PAST_EXPIRATION = Refusal(
    400, Status.PAST_EXPIRATION, "The access token has no time left."
)
STOPPING = Refusal(
    503, Status.STOPPING, "The service is stopping. Try another one.", (("Retry-After", "60"),)
)
FULL = Refusal(
    503, Status.FULL, "All slots are taken. Try again later.",
    (("Retry-After", "10"),),
)
FIREWALL_FAILED = Refusal(
    500, Status.GRANT_FAILED, "The firewall could not be opened. Try another server."
)
NO_ADDRESS = Refusal(
    400, Status.SETUP_FAILED,
    "The connection does not show the client's address, so the firewall cannot be opened.",
)
_VERSION = (("Sec-WebSocket-Version", "13"),)
NOT_AN_UPGRADE = Refusal(
    426, Status.SETUP_FAILED, "Only WebSocket connections are accepted here.",
    (("Upgrade", "websocket"), *_VERSION),
)
WRONG_VERSION = Refusal(
    426, Status.SETUP_FAILED, "Only version 13 of WebSocket is supported.",
    (("Upgrade", "websocket"), *_VERSION),
)
BAD_UPGRADE = Refusal(
    400, Status.SETUP_FAILED, "The WebSocket handshake is malformed.", _VERSION
)
WRONG_SUBPROTOCOL = Refusal(
    400, Status.SETUP_FAILED,
    f"None of the offered sub-protocols is {SUBPROTOCOL}.", _VERSION,
)


def unauthorised(refusal: TokenRefusal) -> Refusal:
    """The answer to a missing or invalid token (RFC 6750 section 3)."""
    challenge = 'Bearer realm="envelope"'
    if refusal.reason is TokenReason.MISSING:
        text = "An access token is required: access_token=..."
    else:
        challenge += ', error="invalid_token"'
        text = "The access token is not valid here."
    return Refusal(401, None, text, (("WWW-Authenticate", challenge),))


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """One HTTP request, parsed.

    `token` is the first `access_token` in the query: None if absent, empty if sent empty.
    `upgrade_fault` is the answer if the WebSocket handshake is invalid, else None.
    `subprotocol` is the one to return, None if the client offered none.
    """

    method: str
    path: str
    token: str | None
    upgrade_fault: Refusal | None
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a request must fulfil, and the least and the most time (seconds) of a grant.

    `services` has the number of each subject's service (`envelope.config.subjects`).
    """

    services: Mapping[str, int]
    token_required: bool
    timeout: float
    max_duration: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """The service at the time of a request; `monitoring` are those sessions among `sessions`."""

    stopping: bool = False
    sessions: int = 0
    monitoring: int = 0
    max_clients: int = 1
    monitoring_slots: int = 0
    over_rate: bool = False

    def has_room(self, monitoring: bool) -> bool:
        """Whether a slot is free. Monitoring uses the slots kept for it first, then the others."""
        kept = self.monitoring_slots
        if monitoring and self.monitoring < kept:
            return True
        return self.sessions - min(self.monitoring, kept) < self.max_clients


@dataclass(frozen=True, slots=True)
class Admission:
    """The request is admitted to a service, for `duration` seconds; `monitoring`: for that."""

    duration: float
    subprotocol: str | None = None
    monitoring: bool = False
    service: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, and the result of the token check (None: not checked, the path is wrong)."""

    outcome: Admission | Refusal
    token: TokenPass | TokenReason | None = None


def decide(
    request: AccessRequest,
    verify: Callable[[str, float], Claims | TokenRefusal],
    expected: Expectations,
    load: Load,
    now: float,
) -> Decision:
    """Decide about `request` at `now` (seconds since the epoch)."""
    if request.path != ACCESS_PATH:
        return Decision(NOT_FOUND)
    claims: Claims | None = None
    token = TokenPass.NOT_SENT
    if request.token:
        verdict = verify(request.token, now)
        if isinstance(verdict, TokenRefusal):
            return Decision(unauthorised(verdict), verdict.reason)
        claims, token = verdict, TokenPass.VALID
    elif expected.token_required:
        missing = TokenRefusal(TokenReason.MISSING)
        return Decision(unauthorised(missing), missing.reason)
    monitoring = claims is not None and claims.subject == MONITORING
    return Decision(_after_token(request, claims, monitoring, expected, load, now), token)


def _after_token(
    request: AccessRequest,
    claims: Claims | None,
    monitoring: bool,
    expected: Expectations,
    load: Load,
    now: float,
) -> Admission | Refusal:
    if load.over_rate and not monitoring:
        return OVER_RATE
    if request.method != "GET":
        return WRONG_METHOD
    service: int | None = 0
    if claims is not None:
        service = service_for(expected.services, claims.subject)
        if service is None:
            return WRONG_SUBJECT
        if claims.expires is None:
            return MISSING_CLAIM
    if request.upgrade_fault is not None:
        return request.upgrade_fault
    if load.stopping:
        return STOPPING
    if not load.has_room(monitoring):
        return FULL
    deadline = deadline_of(claims.expires if claims else None, expected, now)
    if deadline <= now:
        return PAST_EXPIRATION
    return Admission(deadline - now, request.subprotocol, monitoring, service or 0)


def deadline_of(expires: float | None, expected: Expectations, now: float) -> float:
    """The later of `expires` and now + timeout, but not later than now + max_duration."""
    deadline = now + expected.timeout
    if expires is not None:
        deadline = max(deadline, expires)
    if expected.max_duration is not None:
        deadline = min(deadline, now + expected.max_duration)
    return deadline
