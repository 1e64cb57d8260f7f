"""The answers other than 101, and how each is counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from envelope.credentials.tokens import TokenReason, TokenRefusal
from envelope.protocol import SUBPROTOCOL


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


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 101: HTTP status, how it is counted, text, and more headers.

    `token` is what the check of the token said, if that is why.

    `counted` is None for an answer that `envelope_requests_total` does not count. `text` never
    repeats anything that the client sent.
    """

    status: int
    counted: Status | None
    text: str
    headers: tuple[tuple[str, str], ...] = ()
    token: TokenReason | None = None


class Refused(Exception):
    """A request is refused; `refusal` is the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


NOT_FOUND: Final = Refusal(404, Status.NOT_FOUND, "There is nothing at this path.")
OVER_RATE: Final = Refusal(
    503, None, "The network is busy. Try again later.", (("Retry-After", "10"),)
)
WRONG_METHOD: Final = Refusal(
    405, Status.WRONG_METHOD, "Only GET is answered here.", (("Allow", "GET"),)
)
MISSING_CLAIM: Final = Refusal(
    400, Status.MISSING_CLAIM, "The access token has no expiry."
)
WRONG_SUBJECT: Final = Refusal(
    400, Status.WRONG_SUBJECT, "The access token is meant for another service."
)
PAST_EXPIRATION: Final = Refusal(
    400, Status.PAST_EXPIRATION, "The access token has no time left."
)
STOPPING: Final = Refusal(
    503, Status.STOPPING, "The service is stopping. Try another one.", (("Retry-After", "60"),)
)
FULL: Final = Refusal(
    503, Status.FULL, "All slots are taken. Try again later.",
    (("Retry-After", "10"),),
)
REVOKED: Final = Refusal(
    503, Status.SETUP_FAILED, "An operator has ended this request. Try another server.",
)
FIREWALL_FAILED: Final = Refusal(
    500, Status.GRANT_FAILED, "The firewall could not be opened. Try another server."
)
NO_ADDRESS: Final = Refusal(
    400, Status.SETUP_FAILED,
    "The connection does not show the client's address, so the firewall cannot be opened.",
)
_VERSION: Final = (("Sec-WebSocket-Version", "13"),)
NOT_AN_UPGRADE: Final = Refusal(
    426, Status.SETUP_FAILED, "Only WebSocket connections are accepted here.",
    (("Upgrade", "websocket"), *_VERSION),
)
WRONG_VERSION: Final = Refusal(
    426, Status.SETUP_FAILED, "Only version 13 of WebSocket is supported.",
    (("Upgrade", "websocket"), *_VERSION),
)
BAD_UPGRADE: Final = Refusal(
    400, Status.SETUP_FAILED, "The WebSocket handshake is malformed.", _VERSION
)
WRONG_SUBPROTOCOL: Final = Refusal(
    400, Status.SETUP_FAILED,
    f"None of the offered sub-protocols is {SUBPROTOCOL}.", _VERSION,
)


def unauthorised(refusal: TokenRefusal) -> Refusal:
    """The answer to a missing or invalid token (RFC 6750 section 3)."""
    challenge = 'Bearer realm="envelope"'
    if refusal.reason is TokenReason.MISSING:
        text = "An access token is required: access_token=..."
    elif refusal.reason is TokenReason.REPLAYED:
        challenge += ', error="invalid_token"'
        text = "The access token has been used already."
    else:
        challenge += ', error="invalid_token"'
        text = "The access token is not valid here."
    return Refusal(401, None, text, (("WWW-Authenticate", challenge),), refusal.reason)
