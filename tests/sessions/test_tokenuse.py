"""`--token-use` in the sessions: only an answer of 101 uses a token up."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from envelope.credentials.tokens import Claims, TokenReason
from envelope.firewall import FirewallError
from envelope.protocol import End
from envelope.sessions.admission import Admission
from envelope.sessions.answers import Refused
from envelope.sessions.usedtokens import UsedTokens
from tests.sessions.test_registry import ADDRESS, OTHER, World, result

TOKEN = "ndt one"
SIX = ip_address("2001:db8::7")


def world_of(use: str = "once", **options: object) -> World:
    return World(token_use=use, max_clients=9, **options)


def reason(world: World, address=ADDRESS, token: str = TOKEN) -> TokenReason | None:
    """Why a client's token is refused now; None if it is not."""
    decision = world.sessions.decide(world.request(token), address)
    if isinstance(decision.outcome, Admission):
        return None
    assert decision.outcome.status == 401
    assert isinstance(decision.token, TokenReason)
    assert decision.outcome.token is decision.token
    return decision.token


def test_a_session_uses_its_token_up() -> None:
    world = world_of()
    session = result(world.admit(ADDRESS, TOKEN)[0])
    assert reason(world) is TokenReason.REPLAYED
    session.client_left()
    assert reason(world) is TokenReason.REPLAYED
    assert reason(world, SIX) is None
    assert reason(world, token="ndt two") is None
    assert world.metric(
        "controller_access_token_requests_total", path="/v0/envelope/access", request="rejected",
        reason="replayed",
    ) == 2


def test_the_jti_counts_whatever_the_subject() -> None:
    world = world_of()
    world.admit(ADDRESS, TOKEN)
    assert reason(world, token="monitoring one") is TokenReason.REPLAYED


@pytest.mark.parametrize("use", ["once", "network"])
def test_a_token_without_jti_is_refused(use: str) -> None:
    world = world_of(use)
    assert reason(world, token="ndt") is TokenReason.CLAIMS
    assert World().admit(ADDRESS, "ndt")[1] is not None


@pytest.mark.parametrize(("use", "meanwhile"), [
    ("once", TokenReason.REPLAYED), ("network", None),
])
def test_while_a_grant_is_made_its_token_is_reserved(use: str, meanwhile) -> None:
    """For the network with `network`; a client of the other family may use it."""
    world = world_of(use)
    world.firewall.hold_back = True
    answer, _ = world.admit(ADDRESS, TOKEN)
    assert reason(world) is meanwhile
    assert reason(world, OTHER) is TokenReason.REPLAYED
    assert reason(world, SIX) is None
    world.firewall.release()
    assert result(answer) is not None
    assert reason(world) is meanwhile
    assert reason(world, OTHER) is TokenReason.REPLAYED


@pytest.mark.parametrize("use", ["once", "network"])
def test_a_grant_that_fails_does_not_use_the_token_up(use: str) -> None:
    world = world_of(use)
    world.firewall.refuse = lambda call, _: "broken" if call == "allow" else None
    assert result(world.admit(ADDRESS, TOKEN)[0]).check(FirewallError)
    assert reason(world, OTHER) is None


@pytest.mark.parametrize("use", ["once", "network"])
@pytest.mark.parametrize("how", ["lost", "stopped", "revoked"])
def test_a_session_that_never_opened_does_not_use_the_token_up(use: str, how: str) -> None:
    """Nor may a grant that comes into force late do it."""
    world = world_of(use)
    world.firewall.hold_back = True
    answer, _ = world.admit(ADDRESS, TOKEN)
    answer.addErrback(lambda failure: failure.check(Refused))
    if how == "lost":
        answer.cancel()
    elif how == "stopped":
        world.sessions.end_all(End.SHUTDOWN)
    else:
        world.sessions.revoke_all()
    assert reason(world, OTHER) is None
    world.firewall.release()
    assert reason(world, OTHER) is None
    assert len(world.sessions) == 0


def test_a_refusal_does_not_use_the_token_up() -> None:
    world = world_of(use="once")
    world.sessions.stopping = True
    assert world.sessions.decide(world.request(TOKEN), ADDRESS).outcome.status == 503
    world.sessions.stopping = False
    assert reason(world) is None


def test_a_network_comes_back_while_its_token_is_valid() -> None:
    """The network is the grant's."""
    world = world_of("network", grant_prefix4=24, grant_prefix6=64)
    result(world.admit(ADDRESS, TOKEN)[0]).client_left()
    assert reason(world, OTHER) is None
    assert reason(world, ip_address("203.0.114.7")) is TokenReason.REPLAYED
    result(world.admit(SIX, TOKEN)[0]).client_left()
    assert reason(world, ip_address("2001:db8::8")) is None
    assert reason(world, ip_address("2001:db8:0:1::7")) is TokenReason.REPLAYED


def test_a_used_token_is_refused_whatever_the_wall_clock_says() -> None:
    """It expires in 30 s, and then the clock is set back."""
    world = world_of()
    claims = world.verify(TOKEN, 1_000_000.0)
    world.sessions._verify = lambda _text, _now: claims
    result(world.admit(ADDRESS, TOKEN)[0]).client_left()
    for by in (0.0, -10.0, -3600.0, -1e6):
        world.clock_set_by = by
        world.clock.advance(40)
        assert reason(world) is TokenReason.REPLAYED
    world.sessions._verify = lambda _text, now: Claims(
        "locate", "ndt", (), 1_000_200.0, token_id=b"new")
    assert reason(world) is None


def test_expired_tokens_are_forgotten_when_the_next_client_asks() -> None:
    """So that there is memory for its own."""
    world = world_of()
    world.sessions._tokens = UsedTokens("once", most=1)
    world.admit(ADDRESS, TOKEN)
    assert reason(world, token="ndt two") is TokenReason.REPLAYED
    world.clock.advance(31)
    assert reason(world, token="ndt two") is None
