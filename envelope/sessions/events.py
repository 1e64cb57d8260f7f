"""What the log says of a session: that it opened, got no grant, or ended, also before it opened.

Each event has the same fields, and `id` is the session's from the first to the last. What a token
says is quoted in the text, and there only if it is short and printable
(`envelope.credentials.claimsforlog`).
"""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.logger import Logger

from envelope.protocol import End
from envelope.sessions.session import SessionData
from envelope.sessions.usedtokens import UsedTokens

_log = Logger(namespace="envelope.sessions")

# One encoder: `json.dumps` makes one for each call, which takes three times as long.
_quoted: Final = json.JSONEncoder(ensure_ascii=False).encode


def log_opened(data: SessionData) -> None:
    """The session is open; `seconds` is how long it may last."""
    _log.info(
        "session {id} from {address} opened for {seconds:.0f} s{log_token}",
        event="session-opened", seconds=data.admission.duration, **_who(data),
    )


def log_failed(data: SessionData, error: str) -> None:
    """The session's grant could not be made."""
    _log.error(
        "session {id} from {address}: a grant failed: {error}{log_token}",
        event="session-failed", error=error, **_who(data),
    )


def log_given_up(data: SessionData, end: End) -> None:
    """The session ends before its grant is in force, so its client gets no 101."""
    _log.info(
        "session {id} from {address} ended before it opened: {end}{log_token}",
        event="session-given-up", end=end, **_who(data),
    )


def log_ended(data: SessionData, seconds: float, end: End) -> None:
    """The session ended, `seconds` after it opened.

    `packets` and `bytes` are what its grant had let in, None where that is not known; `exact` says
    whether that is all, `shared` whether other sessions of its network had the grant too.
    """
    traffic = data.traffic
    _log.info(
        "session {id} from {address} ended after {seconds:.1f} s: {end}{log_let_in}{log_token}",
        event="session-ended", seconds=seconds, end=end,
        packets=None if traffic is None else traffic.packets,
        bytes=None if traffic is None else traffic.bytes,
        exact=traffic is not None and traffic.exact, shared=data.shared,
        log_let_in=_let_in(data), **_who(data),
    )


def _let_in(data: SessionData) -> str:
    traffic = data.traffic
    if traffic is None:
        return ""
    least = "" if traffic.exact else "at least "
    network = " for all sessions of its network" if data.shared else ""
    return f", {least}{traffic.packets} packets ({traffic.bytes} bytes) let in{network}"


def log_full(tokens: UsedTokens, told: bool) -> bool:
    """Warn, unless `told`, that tokens are refused for want of memory; return whether it is so."""
    if tokens.full and not told:
        _log.warn(
            "{number} used tokens are remembered, which is the most: refusing tokens that were not "
            "used yet", event="tokens-full", number=len(tokens),
        )
    return tokens.full


def _who(data: SessionData) -> dict[str, Any]:
    bearer = data.admission.bearer
    subject = None if bearer is None else bearer.subject
    jti = None if bearer is None else bearer.jti
    claims = {} if bearer is None else dict(bearer.claims)
    said = {"subject": subject, "jti": jti, **claims}
    # A field whose name begins with log_ is not among those of --log-format=json.
    token = "".join(
        f" {name}={_quoted(value)}"
        for name, value in said.items() if value is not None
    )
    return {
        "id": data.session_id,
        "address": "-" if data.address is None else str(data.address),
        "subject": subject,
        "jti": jti,
        "claims": claims,
        "log_token": f";{token}" if token else "",
    }
