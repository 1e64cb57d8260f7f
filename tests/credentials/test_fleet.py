"""Thousands of services and one server of keys: what all of them do is spread over time."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from jwcrypto import jwk
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed

from envelope.credentials.freshness import LONGEST_PAUSE
from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.remotekeys import RemoteKeys

SERVICES = 2000
KEY = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="a").export_public(as_dict=True)
CONTENT = json.dumps({"keys": [KEY]}).encode()
# In any one second, where a draw is spread over some 3 s alone.
MOST_AT_ONCE = SERVICES * 0.45


class Call:
    """A delayed call, as far as `Timer` uses one."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.then: Callable[[], object] | None = then

    def cancel(self) -> None:
        self.then = None


class FleetClock:
    """A clock with thousands of calls; Twisted's own sorts all of them for each new one."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, Call]] = []
        self._number = itertools.count()

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, then: Callable[..., object], *more: object) -> Call:
        call = Call(lambda: then(*more))
        heapq.heappush(self._calls, (self.now + delay, next(self._number), call))
        return call

    def run_until(self, end: float) -> None:
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            then, call.then = call.then, None
            if then is not None:
                then()
        self.now = end


class Fleet:
    """Services that start at the same moment; `load` counts their fetches by the second."""

    def __init__(
        self, chance: Callable[[], float], lifetime: int = 3600, up: bool = True
    ) -> None:
        self.clock = FleetClock()
        self.up = up
        self.load: Counter[int] = Counter()
        self.headers = (("cache-control", f"max-age={lifetime}"),)
        metrics = CredentialMetrics(CollectorRegistry())
        clock: Any = self.clock
        self.services = [
            RemoteKeys(self, "https://keys.example/", clock, lambda: 1e9, metrics, int, chance)
            for _ in range(SERVICES)
        ]
        for service in self.services:
            service.start()
        self.first = self.load[0]
        self.load.clear()

    def fetch(self) -> Deferred[Reply]:
        self.load[int(self.clock.now)] += 1
        if self.up:
            return succeed(Reply(CONTENT, self.headers))
        return fail(FetchFailed(FetchOutcome.UNREACHABLE, "connection refused"))

    def run(self, seconds: float) -> Counter[int]:
        """The fetches of so many seconds."""
        self.load.clear()
        self.clock.run_until(self.clock.now + seconds)
        return self.load.copy()


def fair() -> Callable[[], float]:
    return random.Random(17).random


@pytest.mark.parametrize(("lifetime", "most"), [(60, 200), (600, 40), (3600, 12), (86_400, 6)])
def test_a_fleet_that_starts_at_once_does_not_refresh_at_once(lifetime: int, most: int) -> None:
    fleet = Fleet(fair(), lifetime)
    assert fleet.first == SERVICES
    load = fleet.run(3 * lifetime)
    assert load.total() >= 2 * SERVICES
    assert max(load.values()) <= most


@pytest.mark.parametrize("lasts", [60, 600, 7200])
def test_an_outage_does_not_bring_the_fleet_into_step(lasts: float) -> None:
    """Neither while it lasts nor when the server is back; every service has its keys soon."""
    fleet = Fleet(fair(), 300)
    fleet.run(1000)
    fleet.up = False
    during = fleet.run(lasts)
    fleet.up = True
    after = fleet.run(LONGEST_PAUSE)
    assert not any(service.trouble() for service in fleet.services)
    # Without an outage it is 8 a second. The first retries follow within 5 s, so there are more.
    assert max(during.values()) <= 150
    assert max(after.values()) <= 100


def test_a_fleet_that_starts_without_the_server_comes_out_of_step() -> None:
    """All fail in the same second; the retries of the first seconds are the densest."""
    fleet = Fleet(fair(), up=False)
    during = fleet.run(300)
    assert max(during.values()) <= MOST_AT_ONCE
    assert max(during[second] for second in range(100, 300)) <= 100
    fleet.up = True
    assert max(fleet.run(LONGEST_PAUSE).values()) <= 40


def test_tokens_with_a_new_key_do_not_bring_the_fleet_into_step() -> None:
    """Each service sees many such tokens, all in the same second."""
    fleet = Fleet(fair())
    fleet.run(100)
    for _ in range(20):
        for service in fleet.services:
            service.unknown_kid()
    load = fleet.run(5)
    assert load.total() == SERVICES
    assert max(load.values()) <= MOST_AT_ONCE
    assert len(load) >= 3


def test_without_chance_the_whole_fleet_would_fetch_in_one_second() -> None:
    """So the tests above can tell."""
    fleet = Fleet(lambda: 1.0, 300)
    assert max(fleet.run(300).values()) == SERVICES
    fleet.up = False
    fleet.run(3600)
    fleet.up = True
    assert max(fleet.run(LONGEST_PAUSE).values()) == SERVICES
