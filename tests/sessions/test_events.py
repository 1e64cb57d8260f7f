"""A session's events: one id through all of them, and nothing that could harm the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from envelope.credentials.tokens import Claims
from envelope.runtime.jsonlog import as_json
from envelope.sessions.usedtokens import UsedTokens
from tests.sessions.test_registry import ADDRESS, World, result

CLAIMS = Claims(
    "locate", "ndt", (), 1_000_030.0, token_id=b"one", jti='a "b"', for_log={"kind": "x y", "n": 2},
)
SAID = '; subject="ndt" jti="a \\"b\\"" kind="x y" n=2'


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    """The events of sessions."""
    heard: list[LogEvent] = []

    def hear(event: LogEvent) -> None:
        if event["log_namespace"] == "envelope.sessions":
            heard.append(event)

    globalLogPublisher.addObserver(hear)
    yield heard
    globalLogPublisher.removeObserver(hear)


def world_of(claims: Claims = CLAIMS) -> World:
    world = World(max_clients=3)
    world.sessions._verify = lambda _text, _now: claims
    return world


def told(event: LogEvent) -> dict[str, Any]:
    return dict(json.loads(as_json(event) or ""))


def test_from_its_opening_to_its_end(log: list[LogEvent]) -> None:
    """Text for people; the fields have stable names."""
    world = world_of()
    session = result(world.admit(ADDRESS, "token")[0])
    world.clock.advance(1.5)
    session.client_left()
    opened, ended = map(told, log)
    name = opened["id"]
    assert opened["message"] == f"session {name} from 203.0.113.7 opened for 60 s{SAID}"
    assert ended["message"].startswith(f"session {name} from 203.0.113.7 ended after 1.5 s: lost")
    assert ended["message"].endswith(SAID)
    common = {
        "id": name, "address": "203.0.113.7", "subject": "ndt", "jti": 'a "b"',
        "claims": {"kind": "x y", "n": 2},
    }
    assert opened | {"seconds": 60.0, **common} == opened
    assert ended | {"seconds": 1.5, "end": "lost", "shared": False, **common} == ended
    assert {"packets", "bytes", "exact"} <= ended.keys()


def test_a_session_that_does_not_open_has_an_event_too(log: list[LogEvent]) -> None:
    """Its grant fails, or it ends before."""
    world = world_of()
    world.firewall.refuse = lambda call, _: "broken" if call == "allow" else None
    result(world.admit(ADDRESS, "token")[0])
    world.firewall.refuse = lambda *_: None
    world.firewall.hold_back = True
    answer, _ = world.admit(ADDRESS, "token")
    answer.addErrback(lambda _: None)
    answer.cancel()
    failed, given_up = map(told, log)
    assert failed["message"].endswith(f"203.0.113.7: a grant failed: broken{SAID}")
    assert (failed["level"], failed["error"]) == ("error", "broken")
    assert given_up["message"].endswith(f"203.0.113.7 ended before it opened: lost{SAID}")
    assert given_up["end"] == "lost"
    assert len({failed["id"], given_up["id"]}) == 2


def test_without_a_token_nothing_is_said_of_one(log: list[LogEvent]) -> None:
    world = World()
    world.admit(None)
    opened = told(log[0])
    assert opened["message"] == f"session {opened['id']} from - opened for 60 s"
    assert (opened["subject"], opened["jti"], opened["claims"]) == (None, None, {})


@pytest.mark.parametrize("subject", ["a\nb", "\x1b[2J", "\u202eabc", "x" * 8000, "\ud800"])
def test_a_subject_that_could_harm_the_log_is_not_in_it(
    log: list[LogEvent], subject: str
) -> None:
    world = world_of(Claims("locate", subject, (), 1_000_030.0))
    world.admit(ip_address("2001:db8::7"), "token")
    view, = world.sessions.views()
    assert (view.subject, told(log[0])["subject"]) == (None, None)
    assert (formatEvent(log[0]) or "").endswith("opened for 60 s")


def test_tokens_that_are_refused_for_want_of_memory_are_said_once(log: list[LogEvent]) -> None:
    world = World(token_use="once", max_clients=9)
    world.sessions._tokens = UsedTokens("once", most=1)
    for token in ("ndt a", "ndt b", "ndt c"):
        world.admit(ADDRESS, token)
    told_so = [event for event in log if "used tokens are remembered" in (formatEvent(event) or "")]
    assert [event["number"] for event in told_so] == [1]
