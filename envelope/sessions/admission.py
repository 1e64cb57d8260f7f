"""May this request come in, and until when? Pure: a request, claims, load and the time go in.

The order of the checks is part of the contract with clients (docs/answers.md); the first that
fails answers. Nothing here knows sockets, kernels or clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from envelope.credentials.tokens import Claims, TokenRefusal
from envelope.protocol import ACCESS_PATH, MONITORING, SUBPROTOCOL


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 101: what the client reads, and how it is counted.

    `reason` is the `status` label of `envelope_requests_total`, or empty for answers that only
    `controller_access_token_requests_total` counts. `text` never repeats what the client sent.
    """

    status: int
    reason: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


NOT_FOUND = Refusal(404, "not-found", "There is nothing at this path.")
OVER_RATE = Refusal(
    503, "", "The network is busy. Try again later.", (("Retry-After", "10"),)
)
WRONG_METHOD = Refusal(405, "wrong-method", "Only GET is answered here.", (("Allow", "GET"),))
MISSING_CLAIM = Refusal(
    400, "missing claim when tokens required", "The access token carries no expiry."
)
WRONG_SUBJECT = Refusal(
    400, "wrong claim subject", "The access token is meant for another service."
)
PAST_EXPIRATION = Refusal(
    400, "already past claim expiration", "The access token has no time left."
)
STOPPING = Refusal(
    503, "draining", "The service is stopping. Try another one.", (("Retry-After", "60"),)
)
FULL = Refusal(
    503, "max concurrent reached", "All places are taken. Try again later.",
    (("Retry-After", "10"),),
)
FIREWALL_FAILED = Refusal(
    500, "iptables-grant-failure", "The firewall could not be opened. Try another server."
)
NO_ADDRESS = Refusal(
    400, "websocket-setup-failure",
    "The proxy in between did not say where the client is, so the firewall cannot be opened.",
)
_VERSION = (("Sec-WebSocket-Version", "13"),)
NOT_AN_UPGRADE = Refusal(
    426, "websocket-setup-failure", "Only WebSocket connections are answered here.",
    (("Upgrade", "websocket"), *_VERSION),
)
WRONG_VERSION = Refusal(
    426, "websocket-setup-failure", "Only version 13 of WebSocket is spoken here.",
    (("Upgrade", "websocket"), *_VERSION),
)
BAD_UPGRADE = Refusal(
    400, "websocket-setup-failure", "The WebSocket handshake is malformed.", _VERSION
)
WRONG_SUBPROTOCOL = Refusal(
    400, "websocket-setup-failure",
    f"None of the offered sub-protocols is {SUBPROTOCOL}.", _VERSION,
)


def unauthorised(refusal: TokenRefusal) -> Refusal:
    """The answer to a missing or invalid token (RFC 6750 section 3)."""
    challenge = 'Bearer realm="envelope"'
    if refusal.reason == "missing":
        text = "An access token is required: access_token=..."
    else:
        challenge += ', error="invalid_token"'
        text = "The access token is not valid here."
    return Refusal(401, "", text, (("WWW-Authenticate", challenge),))


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """What one HTTP request asks for, already parsed.

    `token` is the first `access_token` of the query, None when absent, empty when sent empty.
    `upgrade_fault` is the answer to a handshake that is not a proper WebSocket one, else None.
    `subprotocol` is the one to return, None when the client offered none.
    """

    method: str
    path: str
    token: str | None
    upgrade_fault: Refusal | None
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a token must say, and how long a grant may last (seconds)."""

    subject: str | None
    token_required: bool
    timeout: float
    max_duration: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the service is at this moment."""

    stopping: bool = False
    sessions: int = 0
    max_clients: int = 1
    monitoring_slots: int = 0
    over_rate: bool = False

    def has_room(self, monitoring: bool) -> bool:
        """Whether one more session fits; monitoring may use the slots kept for it."""
        room = self.max_clients + (self.monitoring_slots if monitoring else 0)
        return self.sessions < room


@dataclass(frozen=True, slots=True)
class Admission:
    """The request may come in.

    `duration` is how long from now, `deadline` the same moment in seconds since the epoch.
    `subject` is empty when no token was needed.
    """

    duration: float
    deadline: float
    subject: str
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, with what the token check said (`token_reason` is its metric label)."""

    outcome: Admission | Refusal
    token_reason: str = field(default="unenforced-path")
    token_accepted: bool = field(default=True)
    monitoring: bool = False


def decide(
    request: AccessRequest,
    verify: Callable[[str, float], Claims | TokenRefusal],
    expected: Expectations,
    load: Load,
    now: float,
) -> Decision:
    """Go through the contract's table in its order; `now` is seconds since the epoch."""
    if request.path != ACCESS_PATH:
        return Decision(NOT_FOUND)
    claims: Claims | None = None
    reason = "empty"
    if request.token:
        verdict = verify(request.token, now)
        if isinstance(verdict, TokenRefusal):
            return Decision(unauthorised(verdict), verdict.reason, token_accepted=False)
        claims, reason = verdict, "locate"
    elif expected.token_required:
        missing = TokenRefusal("missing")
        return Decision(unauthorised(missing), missing.reason, token_accepted=False)
    monitoring = claims is not None and claims.subject == MONITORING
    outcome = _after_token(request, claims, monitoring, expected, load, now)
    return Decision(outcome, reason, monitoring=monitoring)


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
    if claims is not None:
        if not monitoring and expected.subject is not None and claims.subject != expected.subject:
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
    # The expected text and not the token's own, so that a thousand sessions share it.
    subject = (MONITORING if monitoring else expected.subject or claims.subject) if claims else ""
    return Admission(deadline - now, deadline, subject or "", request.subprotocol)


def deadline_of(expires: float | None, expected: Expectations, now: float) -> float:
    """The later of `expires` and now + timeout, but not later than now + max_duration."""
    deadline = now + expected.timeout
    if expires is not None:
        deadline = max(deadline, expires)
    if expected.max_duration is not None:
        deadline = min(deadline, now + expected.max_duration)
    return deadline
