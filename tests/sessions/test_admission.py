"""Admission: the contract's checks, in their order."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from envelope.protocol import ACCESS_PATH, SUBPROTOCOL
from envelope.sessions import admission as a
from envelope.sessions import answers
from envelope.sessions.slots import TakenSlots

NOW = 1000.0
CLAIMS = Claims("locate", "ndt", ("m",), NOW + 60)
EXPECTED = a.Expectations({"ndt": 0, "monitoring": 0}, True, 60.0)
GOOD = a.AccessRequest("GET", ACCESS_PATH, "token", None, SUBPROTOCOL)


def crowd(sessions: int, monitoring: int = 0) -> TakenSlots:
    """Sessions without a visitor, and those of monitoring among them."""
    taken = TakenSlots()
    for number in range(sessions):
        taken.enter(None, None, number < monitoring)
    return taken


def verdict(request=GOOD, claims=CLAIMS, expected=EXPECTED, load=None):
    return a.decide(request, lambda _t, _n: claims, expected, load or a.Load(), NOW)


# Each row fails its own check and every later one: the first that fails must answer.
WRONG = [
    ("path", {"path": "/"}, {}, {}, 404),
    ("token", {"token": None}, {}, {}, 401),
    ("rate", {}, {}, {"over_rate": True}, 503),
    ("method", {"method": "POST"}, {}, {}, 405),
    ("subject", {}, {"subject": "other"}, {}, 400),
    ("expiry", {}, {"expires": None}, {}, 400),
    ("upgrade", {"upgrade_fault": answers.NOT_AN_UPGRADE}, {}, {}, 426),
    ("stopping", {}, {}, {"stopping": True}, 503),
    ("room", {}, {}, {"taken": crowd(1)}, 503),
]


@pytest.mark.parametrize("first", range(len(WRONG)))
def test_the_first_check_that_fails_decides_the_answer(first) -> None:
    request: dict = {}
    claims: dict = {}
    load: dict = {}
    for _, of_request, of_claims, of_load, _ in WRONG[first:]:
        request |= of_request
        claims |= of_claims
        load |= of_load
    outcome = verdict(
        dataclasses.replace(GOOD, **request), dataclasses.replace(CLAIMS, **claims),
        load=a.Load(**load),
    ).outcome
    assert isinstance(outcome, answers.Refusal)
    assert outcome.status == WRONG[first][4]


def test_a_good_request_is_admitted_with_its_duration_and_sub_protocol() -> None:
    outcome = verdict().outcome
    assert outcome == a.Admission(60.0, SUBPROTOCOL, False, 0, a.Bearer("ndt", None, None, {}))


@given(expires=st.none() | st.floats(0, 1e12), timeout=st.floats(0, 1e6),
       longest=st.none() | st.floats(0, 1e6))
def test_the_deadline(expires, timeout, longest) -> None:
    """The later of `exp` and now + timeout, but not later than now + max_duration."""
    expected = a.Expectations({"monitoring": 0}, True, timeout, longest)
    deadline = a.deadline_of(expires, expected, NOW)
    if longest is not None:
        assert deadline <= NOW + longest
    else:
        assert deadline >= NOW + timeout
        assert expires is None or deadline >= expires


def test_a_grant_without_time_is_refused() -> None:
    """`--max-duration` can be 0."""
    outcome = verdict(expected=dataclasses.replace(EXPECTED, max_duration=0.0)).outcome
    assert outcome is answers.PAST_EXPIRATION


def test_monitoring_needs_no_subject_and_no_rate_and_has_its_own_slots() -> None:
    """It watches the service while others are refused."""
    monitoring = dataclasses.replace(CLAIMS, subject="monitoring")
    load = a.Load(taken=crowd(1), monitoring_slots=1, over_rate=True)
    decision = verdict(claims=monitoring, load=load)
    assert isinstance(decision.outcome, a.Admission)
    assert decision.token is a.TokenPass.VALID
    full = verdict(claims=monitoring, load=dataclasses.replace(load, taken=crowd(2, 1)))
    assert full.outcome is answers.FULL


@pytest.mark.parametrize(("sessions", "monitoring", "client", "monitor"), [
    (0, 0, True, True), (1, 1, True, True), (1, 0, False, True), (2, 1, False, False),
    (2, 2, False, False), (3, 1, False, False),
])
def test_monitoring_uses_its_own_slots_first(sessions, monitoring, client, monitor) -> None:
    """One slot for clients and one kept: neither kind takes the other's."""
    load = a.Load(taken=crowd(sessions, monitoring), max_clients=1, monitoring_slots=1)
    assert (load.has_room(False), load.has_room(True)) == (client, monitor)


@pytest.mark.parametrize("token", [None, ""])
def test_optional_tokens(token) -> None:
    """A token that is sent must be valid all the same."""
    relaxed = dataclasses.replace(EXPECTED, token_required=False)
    request = dataclasses.replace(GOOD, token=token)
    decision = verdict(request, expected=relaxed)
    assert decision.outcome == a.Admission(60.0, SUBPROTOCOL)
    assert decision.token is a.TokenPass.NOT_SENT
    bad = verdict(claims=TokenRefusal(TokenReason.EXPIRED), expected=relaxed)
    assert bad.outcome.status == 401
    assert bad.token is TokenReason.EXPIRED


def test_401_has_a_challenge() -> None:
    """RFC 6750 section 3: it names no error if no token was sent."""
    missing = answers.unauthorised(TokenRefusal(TokenReason.MISSING))
    invalid = answers.unauthorised(TokenRefusal(TokenReason.SIGNATURE))
    assert "error" not in dict(missing.headers)["WWW-Authenticate"]
    assert "invalid_token" in dict(invalid.headers)["WWW-Authenticate"]
