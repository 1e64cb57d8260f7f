"""A fleet: thousands of services, simulated with the code that decides when they do what.

`python -m tests.support.fleet` prints the curves of docs/fleet.md.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from jwcrypto import jwk
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed

from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.remotekeys import RemoteKeys

SERVICES = 2000


def public_key(kid: str) -> dict[str, Any]:
    """A public key as a JWK."""
    made: dict[str, Any] = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid).export_public(
        as_dict=True)
    return made


OLD, NEW = public_key("old"), public_key("new")


def fair(seed: int = 17) -> Callable[[], float]:
    """Chance, the same in each run."""
    return random.Random(seed).random


class Call:
    """A delayed call, with as much as `Timer` uses of one."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.then: Callable[[], object] | None = then

    def cancel(self) -> None:
        """Do not call."""
        self.then = None


class FleetClock:
    """A clock with thousands of calls; Twisted's own sorts all of them for each new one."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, Call]] = []
        self._number = itertools.count()

    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return self.now

    def callLater(self, delay: float, then: Callable[..., object], *more: object) -> Call:
        """As a reactor's."""
        call = Call(lambda: then(*more))
        heapq.heappush(self._calls, (self.now + delay, next(self._number), call))
        return call

    def run_until(self, end: float) -> None:
        """Do everything that is due before `end`."""
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            then, call.then = call.then, None
            if then is not None:
                then()
        self.now = end


class KeyServer:
    """One server of keys; `load` counts the fetches by the second."""

    def __init__(self, clock: FleetClock, lifetime: int = 3600, up: bool = True) -> None:
        self.clock = clock
        self.up = up
        self.load: Counter[int] = Counter()
        self.publish(OLD)
        self._headers = (("cache-control", f"max-age={lifetime}"),)

    def publish(self, *keys: dict[str, Any]) -> None:
        """Answer with these keys from now on."""
        self._content = json.dumps({"keys": keys}).encode()

    def fetch(self) -> Deferred[Reply]:
        """A service's fetch, answered at once."""
        self.load[int(self.clock.now)] += 1
        if self.up:
            return succeed(Reply(self._content, self._headers))
        return fail(FetchFailed(FetchOutcome.UNREACHABLE, "connection refused"))


class Fleet:
    """Services that start at the same moment, unless `start` is called for each."""

    def __init__(
        self, chance: Callable[[], float], lifetime: int = 3600, up: bool = True,
        services: int = SERVICES,
    ) -> None:
        self.clock = FleetClock()
        self.server = KeyServer(self.clock, lifetime, up)
        self._chance = chance
        self._metrics = CredentialMetrics(CollectorRegistry())
        self.services = [self.start() for _ in range(services)]
        self.first = self.server.load[0]
        self.server.load.clear()

    def start(self) -> RemoteKeys:
        """One more service."""
        clock: Any = self.clock
        service = RemoteKeys(self.server, "https://keys.example/", clock, lambda: 1e9,
                             self._metrics, int, self._chance)
        service.start()
        return service

    def run(self, seconds: float) -> Counter[int]:
        """The fetches of so many seconds."""
        self.server.load.clear()
        self.clock.run_until(self.clock.now + seconds)
        return self.server.load.copy()

    def tokens(self, kid: str, rate: float, seconds: float) -> None:
        """Each service sees `rate` such tokens a second, at random moments, for so long."""
        drawn, ending = random.Random(kid), self.clock.now + seconds

        def arrive(service: RemoteKeys) -> None:
            if kid not in [key.kid for key in service.keys]:
                service.unknown_kid()
            if self.clock.now < ending:
                self.clock.callLater(drawn.expovariate(rate), arrive, service)

        for service in self.services:
            self.clock.callLater(drawn.expovariate(rate), arrive, service)

    def share_with(self, kid: str) -> float:
        """The part of the services that have a key."""
        having = sum(kid in {key.kid for key in service.keys} for service in self.services)
        return having / len(self.services)


class RollingUpdate:
    """What a platform's scheduler does with `maxUnavailable`: it replaces so many at a time.

    A machine that is replaced is away while the old version stops and the new one starts, for
    `away` to 2 * `away` seconds, and counts as available once it is ready: when it has a key and
    the new version is `good`.
    """

    def __init__(self, fleet: Fleet, most: int, away: float, good: bool = True) -> None:
        self.done = 0
        self.most_away = 0
        self._fleet = fleet
        self._most = most
        self._seconds = away
        self._good = good
        self._left = [*range(len(fleet.services))]
        self._away: set[int] = set()
        self._drawn = random.Random(3)
        self._go_on()

    @property
    def away(self) -> int:
        """How many machines cannot be used now."""
        return len(self._away)

    def _go_on(self) -> None:
        while self._left and len(self._away) < self._most:
            machine = self._left.pop(0)
            self._away.add(machine)
            self._fleet.services[machine].stop()
            wait = self._seconds * (1 + self._drawn.random())
            self._fleet.clock.callLater(wait, self._start, machine)
        self.most_away = max(self.most_away, len(self._away))

    def _start(self, machine: int) -> None:
        self._fleet.services[machine] = self._fleet.start()
        self._probe(machine)

    def _probe(self, machine: int) -> None:
        # Every ten seconds, as the readiness probes of deploy/kubernetes.
        if self._good and self._fleet.services[machine].keys:
            self._away.discard(machine)
            self.done += 1
            self._go_on()
        else:
            self._fleet.clock.callLater(10, self._probe, machine)


def rotation(rate: float, lead: float) -> Iterable[tuple[float, int, float]]:
    """A key that is published and used `lead` seconds later, by `rate` tokens a second and service.

    Yields, minute by minute from the first use, the time in seconds, the most fetches in one second
    since the last line, and the part of the services that have the key.
    """
    fleet = Fleet(fair())
    fleet.run(5000)
    fleet.server.publish(OLD, NEW)
    if lead:
        fleet.run(lead)
    fleet.tokens("new", rate, 600)
    for minute in range(6):
        yield 60.0 * minute, max(fleet.run(60).values(), default=0), fleet.share_with("new")


def flood(minutes: int) -> Iterable[tuple[int, int, float]]:
    """Forged tokens on every service, one in 10 s: the minute, the most and the mean a second."""
    fleet = Fleet(fair())
    fleet.run(5000)
    fleet.tokens("forged", 0.1, 60.0 * minutes)
    for minute in range(minutes):
        load = fleet.run(60)
        yield minute, max(load.values(), default=0), load.total() / 60


if __name__ == "__main__":
    for given in ((1.0, 0.0), (0.01, 0.0), (1.0, 3600.0)):
        print("rotation: tokens a second and service, lead in seconds:", *given)
        for line in rotation(*given):
            print("  from {:.0f} s: at most {} a second, {:.1%} have it".format(*line))
    print("flood: minute, most and mean fetches a second")
    for each in flood(15):
        print("  {} {} {:.1f}".format(*each))
