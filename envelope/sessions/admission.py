"""Decides whether a request is admitted, and for how long. Pure; the time is an argument.

The order of the checks is part of the contract with clients (docs/answers.md); the first that
fails decides the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from envelope.addresses import Address, AddressFamily, family_of
from envelope.config.subjects import service_for
from envelope.credentials.claimsforlog import text_for_log
from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from envelope.protocol import ACCESS_PATH, MONITORING
from envelope.sessions.answers import (
    FULL,
    MISSING_CLAIM,
    NOT_FOUND,
    OVER_RATE,
    PAST_EXPIRATION,
    STOPPING,
    WRONG_METHOD,
    WRONG_SUBJECT,
    Refusal,
    unauthorised,
)
from envelope.sessions.slots import TakenSlots, Visitor, visitor_of
from envelope.sessions.usedtokens import Use, UsedTokens


class TokenPass(StrEnum):
    """Why the token check let a request pass.

    Label `reason` of `controller_access_token_requests_total`, beside `TokenReason`.
    """

    VALID = "locate"
    NOT_SENT = "empty"


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
    """The service at the time of a request: who is in, and which tokens are used up."""

    stopping: bool = False
    taken: TakenSlots = field(default_factory=TakenSlots)
    max_clients: int = 1
    monitoring_slots: int = 0
    over_rate: bool = False
    tokens: UsedTokens = field(default_factory=UsedTokens)

    def has_room(
        self, monitoring: bool, visitor: Visitor | None = None, family: AddressFamily | None = None
    ) -> bool:
        """Whether the visitor shares a slot that is taken, or one is free.

        Monitoring uses the slots kept for it first, then the others.
        """
        if not self.taken.needs_slot(visitor, family):
            return True
        return (monitoring and self.taken.monitoring < self.monitoring_slots) or (
            self.taken.beyond(self.monitoring_slots) < self.max_clients
        )


@dataclass(frozen=True, slots=True)
class Bearer:
    """What the token of an admitted client says of it.

    `visitor` is None for a token without a `jti`. All else may be logged: `subject` is None if
    it may not, and `claims` are those of `--log-claim`.
    """

    subject: str | None
    visitor: Visitor | None
    jti: str | None
    claims: Mapping[str, str | int | float]

    @classmethod
    def of(cls, claims: Claims) -> Bearer:
        """What is kept of the claims of an admitted client's token."""
        subject = text_for_log(claims.subject)
        # Thousands of sessions share a few subjects.
        shared = None if subject is None else sys.intern(subject)
        return cls(shared, _visitor(claims), claims.jti, claims.for_log)


def _visitor(claims: Claims | None) -> Visitor | None:
    if claims is None or claims.token_id is None:
        return None
    return visitor_of(claims.token_id, claims.subject)


@dataclass(frozen=True, slots=True)
class Admission:
    """The request is admitted to a service, for `duration` seconds; `monitoring`: for that.

    `bearer` is None for a client without a token, `use` also where tokens are not used up.
    """

    duration: float
    subprotocol: str | None = None
    monitoring: bool = False
    service: int = 0
    bearer: Bearer | None = None
    use: Use | None = None


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
    address: Address | None = None,
) -> Decision:
    """Decide about a `request` of the client at `address` at `now` (seconds since the epoch)."""
    if request.path != ACCESS_PATH:
        return Decision(NOT_FOUND)
    claims: Claims | None = None
    use: Use | None = None
    token = TokenPass.NOT_SENT
    if request.token:
        verdict = verify(request.token, now)
        if isinstance(verdict, TokenRefusal):
            return _unauthorised(verdict.reason)
        claims, token = verdict, TokenPass.VALID
        if load.tokens.needed:
            if claims.token_id is None:
                return _unauthorised(TokenReason.CLAIMS)
            if claims.expires is not None:
                use = load.tokens.use_of(claims.token_id, claims.expires, address)
                if load.tokens.refuses(use):
                    return _unauthorised(TokenReason.REPLAYED)
    elif expected.token_required:
        return _unauthorised(TokenReason.MISSING)
    monitoring = claims is not None and claims.subject == MONITORING
    outcome = _after_token(request, claims, monitoring, expected, load, now, address)
    if use is not None and isinstance(outcome, Admission):
        outcome = replace(outcome, use=use)
    return Decision(outcome, token)


def _unauthorised(reason: TokenReason) -> Decision:
    return Decision(unauthorised(TokenRefusal(reason)), reason)


def _after_token(
    request: AccessRequest,
    claims: Claims | None,
    monitoring: bool,
    expected: Expectations,
    load: Load,
    now: float,
    address: Address | None,
) -> Admission | Refusal:
    if load.over_rate and not monitoring:
        return OVER_RATE
    if request.method != "GET":
        return WRONG_METHOD
    service = 0
    if claims is not None:
        found = service_for(expected.services, claims.subject)
        if found is None:
            return WRONG_SUBJECT
        if claims.expires is None:
            return MISSING_CLAIM
        service = found
    if request.upgrade_fault is not None:
        return request.upgrade_fault
    if load.stopping:
        return STOPPING
    if not load.has_room(monitoring, _visitor(claims), family_of(address)):
        return FULL
    deadline = deadline_of(claims.expires if claims else None, expected, now)
    if deadline <= now:
        return PAST_EXPIRATION
    bearer = None if claims is None else Bearer.of(claims)
    return Admission(deadline - now, request.subprotocol, monitoring, service, bearer)


def deadline_of(expires: float | None, expected: Expectations, now: float) -> float:
    """The later of `expires` and now + timeout, but not later than now + max_duration."""
    deadline = now + expected.timeout
    if expires is not None:
        deadline = max(deadline, expires)
    if expected.max_duration is not None:
        deadline = min(deadline, now + expected.max_duration)
    return deadline
