"""Keys from a URL: when they are fetched, which are kept, and what is logged. No network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jwcrypto import jwk
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from envelope.credentials.freshness import (
    DEFAULT_LIFETIME,
    LEAST_BETWEEN,
    LONGEST_PAUSE,
    SHORTEST,
)
from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.publishedkeys import MOST_LINES
from envelope.credentials.remotekeys import RemoteKeys
from tests.support.leakdetector import LoggedFailures

ORIGIN = "https://keys.example/jwks"
KEYS = {
    kid: jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid).export_public(as_dict=True)
    for kid in ("a", "b")
}


class FakeFetcher:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Reply]] = []
        self.cancelled = 0

    def fetch(self) -> Deferred[Reply]:
        self.asked.append(Deferred(self._cancel))
        return self.asked[-1]

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class MovingClock(Clock):
    """A clock that moves on with each look at it, and, as a reactor, refuses negative delays."""

    def seconds(self) -> float:
        self.rightNow += 1e-6
        return self.rightNow

    def callLater(self, when: float, *call: Any, **named: Any) -> Any:
        assert when >= 0
        return super().callLater(when, *call, **named)


class Subject:
    """The keys under test, on a clock of their own."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.fetcher = FakeFetcher()
        self.registry = CollectorRegistry()
        self.said: list[str] = []
        self.chance = 1.0
        self.changes = 0
        self.ready = 0
        self.remote = RemoteKeys(
            self.fetcher, ORIGIN, self.clock, lambda: 1e9 + self.clock.seconds(),
            CredentialMetrics(self.registry), self.change, lambda: self.chance,
        )

    def change(self) -> None:
        self.changes += 1

    def hear(self, event: LogEvent) -> None:
        self.said.append(f"{event['log_level'].name}: {formatEvent(event)}")

    def start(self) -> None:
        self.remote.start().addCallback(self.was_started)

    def was_started(self, _: None) -> None:
        self.ready += 1

    def answer(self, *kids: str, **headers: str) -> None:
        content = json.dumps({"keys": [KEYS[kid] for kid in kids]}).encode()
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        self.fetcher.asked[-1].callback(Reply(content, named))

    def fail(self, outcome: FetchOutcome = FetchOutcome.TIMEOUT, text: str = "too slow") -> None:
        self.fetcher.asked[-1].errback(FetchFailed(outcome, text))

    @property
    def kids(self) -> str:
        return "".join(key.kid for key in self.remote.keys)

    @property
    def fetches(self) -> int:
        return len(self.fetcher.asked)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"envelope_jwks_{name}", labels)


@pytest.fixture
def subject() -> Iterator[Subject]:
    subject = Subject()
    globalLogPublisher.addObserver(subject.hear)
    yield subject
    globalLogPublisher.removeObserver(subject.hear)
    subject.remote.stop()
    assert subject.clock.getDelayedCalls() == []


def test_the_start_fetches_and_waits_for_the_keys(subject: Subject) -> None:
    subject.start()
    assert (subject.fetches, subject.ready) == (1, 0)
    assert subject.remote.trouble() == [f"the keys of {ORIGIN}: they have not been fetched yet"]
    subject.answer("a", "b")
    assert (subject.kids, subject.changes, subject.ready) == ("ab", 1, 1)
    assert subject.remote.trouble() == []
    assert subject.said[-1] == f"info: the keys of {ORIGIN} are now: a, b"
    assert subject.value("fetches_total", outcome="ok") == 1
    assert subject.value("keys") == 2
    assert subject.value("last_success_timestamp_seconds") == 1e9


def test_the_start_goes_on_when_there_is_no_answer(subject: Subject) -> None:
    subject.start()
    subject.fail("unreachable", "connection refused")
    assert (subject.kids, subject.ready) == ("", 1)
    assert subject.remote.trouble() == [f"the keys of {ORIGIN}: connection refused"]
    assert subject.said[-1] == (
        f"warn: could not fetch the keys of {ORIGIN}: connection refused; 0 kept, again in 5 s"
    )
    assert subject.value("fetches_total", outcome="unreachable") == 1


def test_the_next_fetch_comes_when_the_answer_is_stale(subject: Subject) -> None:
    subject.start()
    subject.answer("a", cache_control="max-age=300")
    subject.clock.advance(299)
    assert subject.fetches == 1
    subject.clock.advance(1)
    assert subject.fetches == 2
    subject.answer("a")
    assert subject.changes == 1
    subject.clock.advance(DEFAULT_LIFETIME - 1)
    assert subject.fetches == 2
    subject.clock.advance(1)
    assert subject.fetches == 3


def test_the_same_answer_is_not_checked_again(subject: Subject) -> None:
    """Checking keys takes time. It is checked again if another answer came between."""
    seen = []
    subject.start()
    for kids in ("a", "a", "b", "a"):
        subject.answer(kids, cache_control="max-age=100")
        seen.append(subject.remote.keys[0])
        subject.clock.advance(100)
    assert seen[0] is seen[1]
    assert seen[0] is not seen[3]
    assert subject.changes == 3


def test_a_withdrawn_key_is_gone(subject: Subject) -> None:
    subject.start()
    subject.answer("a", "b", cache_control="max-age=100")
    subject.clock.advance(100)
    subject.answer("b")
    assert (subject.kids, subject.changes) == ("b", 2)


def test_another_key_under_an_old_kid_is_a_change(subject: Subject) -> None:
    subject.start()
    subject.answer("a", cache_control="max-age=100")
    subject.clock.advance(100)
    other = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="a").export_public(as_dict=True)
    subject.fetcher.asked[-1].callback(Reply(json.dumps(other).encode()))
    assert (subject.kids, subject.changes) == ("a", 2)


def test_a_failure_keeps_the_keys_and_each_further_one_doubles_the_pause(subject: Subject) -> None:
    subject.start()
    subject.answer("a", cache_control="max-age=100")
    subject.clock.advance(100)
    waits = []
    for _ in range(10):
        subject.fail()
        before = subject.clock.seconds()
        asked = subject.fetches
        while subject.fetches == asked:
            subject.clock.advance(1)
        waits.append(subject.clock.seconds() - before)
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == LONGEST_PAUSE
    assert (subject.kids, subject.changes) == ("a", 1)
    assert subject.remote.trouble() == [f"the keys of {ORIGIN}: too slow"]
    subject.answer("a", "b")
    assert subject.remote.trouble() == []
    assert subject.kids == "ab"
    assert subject.value("fetches_total", outcome="timeout") == 10


@pytest.mark.parametrize("content", [b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "x"}]}'])
def test_an_answer_without_keys_is_a_failure(subject: Subject, content: bytes) -> None:
    subject.start()
    subject.answer("a", cache_control="max-age=100")
    subject.clock.advance(100)
    subject.fetcher.asked[-1].callback(Reply(content))
    assert subject.kids == "a"
    assert subject.value("fetches_total", outcome="malformed") == 1
    subject.clock.advance(5)
    assert subject.fetches == 3


def test_an_unknown_kid_causes_a_fetch_at_most_once_a_minute(subject: Subject) -> None:
    """However many such tokens come; an early one causes a fetch at the minute's end."""
    subject.chance = 0.0
    subject.start()
    subject.answer("a")
    subject.clock.advance(LEAST_BETWEEN + 1)
    for _ in range(100):
        subject.remote.unknown_kid()
    assert subject.fetches == 1
    subject.clock.advance(0)
    assert subject.fetches == 2
    subject.remote.unknown_kid()
    subject.answer("a", "b")
    subject.remote.unknown_kid()
    subject.clock.advance(LEAST_BETWEEN - 1)
    assert subject.fetches == 2
    subject.clock.advance(1)
    assert subject.fetches == 3


def test_a_fetch_for_an_unknown_kid_is_delayed_by_one_draw(subject: Subject) -> None:
    """The earliest of many draws would be no spread any more; each fetch has a new one."""
    subject.start()
    subject.answer("a")
    subject.clock.advance(LEAST_BETWEEN + 1)
    for chance in (0.5, 0.9, 0.0, 0.0):
        subject.chance = chance
        subject.remote.unknown_kid()
    subject.clock.advance(1.4)
    assert subject.fetches == 1
    subject.clock.advance(0.1)
    assert subject.fetches == 2
    subject.answer("a")
    subject.clock.advance(LEAST_BETWEEN + 1)
    subject.remote.unknown_kid()
    subject.clock.advance(0)
    assert subject.fetches == 3


def test_the_fetch_of_the_start_is_not_delayed(subject: Subject) -> None:
    subject.start()
    assert subject.fetches == 1


def test_an_unknown_kid_never_delays_a_fetch(subject: Subject) -> None:
    subject.start()
    subject.fail()
    subject.remote.unknown_kid()
    subject.clock.advance(5)
    assert subject.fetches == 2


def test_the_operator_can_ask_for_a_fetch_at_once(subject: Subject) -> None:
    """Never two fetches at a time, and none before the start or after the stop."""
    subject.remote.refetch()
    assert subject.fetches == 0
    subject.start()
    subject.answer("a")
    subject.remote.refetch()
    assert subject.fetches == 2
    subject.answer("a")
    subject.remote.stop()
    subject.remote.refetch()
    subject.remote.unknown_kid()
    assert subject.fetches == 2


def test_a_fetch_asked_for_during_another_one_follows_it(subject: Subject) -> None:
    """Once, however often it was asked for: the first one may have begun too early."""
    subject.start()
    subject.remote.refetch()
    subject.remote.refetch()
    assert subject.fetches == 1
    subject.fail()
    subject.clock.advance(0)
    assert subject.fetches == 2
    subject.answer("a")
    subject.clock.advance(SHORTEST)
    assert subject.fetches == 2


def test_a_fetch_that_follows_another_starts_although_time_passes() -> None:
    subject = Subject(MovingClock())
    subject.start()
    subject.remote.refetch()
    subject.fail()
    subject.clock.advance(0.001)
    assert subject.fetches == 2
    subject.remote.stop()


def test_a_stop_cancels_the_fetch_and_a_start_that_waits_for_it(subject: Subject) -> None:
    subject.start()
    subject.remote.stop()
    assert (subject.fetcher.cancelled, subject.ready) == (1, 1)
    assert not [line for line in subject.said if line.startswith("warn")]
    assert sum(subject.value("fetches_total", outcome=each) or 0 for each in FetchOutcome) == 0


def test_keys_that_are_passed_over_are_logged_once(subject: Subject) -> None:
    """Not again at each fetch, and at most ten of them."""
    bad = [{"kty": "oct", "kid": f"bad{number}"} for number in range(MOST_LINES + 5)]
    content = json.dumps({"keys": [KEYS["a"], *bad]}).encode()
    subject.start()
    for _ in range(3):
        subject.fetcher.asked[-1].callback(Reply(content, (("cache-control", "max-age=100"),)))
        subject.clock.advance(100)
    warned = [line for line in subject.said if line.startswith("warn")]
    assert len(warned) == MOST_LINES + 1
    assert warned[0].startswith(f"warn: passed over in {ORIGIN}: key 'bad0': a symmetric key")
    assert warned[-1] == "warn: passed over 5 more"


def test_an_unexpected_exception_is_logged_and_the_fetch_tried_again(
    subject: Subject, logged_failures: LoggedFailures
) -> None:
    subject.start()
    subject.fetcher.asked[-1].errback(RuntimeError("broken"))
    assert len(logged_failures.flush(RuntimeError)) == 1
    subject.clock.advance(5)
    subject.answer("a")
    assert subject.kids == "a"


def test_outcomes_come_from_a_fixed_list() -> None:
    with pytest.raises(KeyError):
        CredentialMetrics(CollectorRegistry()).fetch_failed("a server's words")
