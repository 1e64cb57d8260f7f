"""Thousands of services and one server of keys: what all of them do is spread over time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from twisted.logger import Logger

from envelope.credentials.freshness import LONGEST_PAUSE
from envelope.credentials.keys import KeyFileError
from envelope.credentials.reload import LATER, Reload
from tests.support.fleet import NEW, OLD, SERVICES, Fleet, FleetClock, RollingUpdate, fair, flood

# In any one second, where a draw is spread over some 3 s alone.
MOST_AT_ONCE = SERVICES * 0.45


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
    fleet.server.up = False
    during = fleet.run(lasts)
    fleet.server.up = True
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
    fleet.server.up = True
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
    fleet.server.up = False
    fleet.run(3600)
    fleet.server.up = True
    assert max(fleet.run(LONGEST_PAUSE).values()) == SERVICES


def test_a_new_key_reaches_the_fleet_before_it_is_used() -> None:
    """When the issuer waits for as long as an answer is fresh. Then no token is refused for it."""
    fleet = Fleet(fair(), 3600)
    fleet.run(5000)
    fleet.server.publish(OLD, NEW)
    load = fleet.run(3600)
    assert fleet.share_with("new") == 1
    assert max(load.values()) <= 12
    fleet.tokens("new", rate=0.05, seconds=60)
    assert max(fleet.run(60).values(), default=0) <= 12
    fleet.server.publish(NEW)
    fleet.run(3600)
    assert fleet.share_with("old") == 0


@pytest.mark.parametrize(("rate", "share"), [(0.01, 0.65), (0.2, 1.0)])
def test_a_key_that_is_used_at_once_is_fetched_by_those_that_need_it(
    rate: float, share: float
) -> None:
    """A service asks within seconds of its first such token; few are refused for it."""
    fleet = Fleet(fair(), 3600)
    fleet.run(5000)
    fleet.server.publish(OLD, NEW)
    fleet.tokens("new", rate, seconds=120)
    load = fleet.run(124)
    assert fleet.share_with("new") >= share
    assert max(load.values()) <= MOST_AT_ONCE
    assert load.total() <= SERVICES * 1.2


def test_a_flood_of_unknown_kids_costs_the_server_a_bounded_rate() -> None:
    """On every service at once, without an end: soon as even as if they had never met."""
    rates = [(most, mean) for _, most, mean in flood(6)]
    assert all(mean <= SERVICES / 60 for _, mean in rates)
    assert rates[0][0] <= MOST_AT_ONCE
    assert max(most for most, _ in rates[1:]) <= 0.05 * SERVICES
    assert rates[-1][0] <= 2 * SERVICES / 60


def test_a_rolling_update_never_takes_out_more_than_its_share() -> None:
    fleet = Fleet(fair(), services=500)
    fleet.run(5000)
    update = RollingUpdate(fleet, most=50, away=20)
    load = fleet.run(1200)
    assert (update.done, update.away) == (500, 0)
    assert update.most_away == 50
    # A start fetches at once; the starts of a share are as far apart as its stops were.
    assert max(load.values()) <= 20


def test_a_version_that_never_gets_ready_stops_the_rolling_update() -> None:
    fleet = Fleet(fair(), services=500)
    update = RollingUpdate(fleet, most=50, away=20, good=False)
    fleet.run(1200)
    assert (update.done, update.away) == (0, 50)


def test_a_rolling_update_without_the_server_of_keys_stops_at_its_share() -> None:
    """What is started then has no key and is not ready; what runs keeps its keys."""
    fleet = Fleet(fair(), services=500)
    fleet.run(5000)
    fleet.server.up = False
    update = RollingUpdate(fleet, most=50, away=20)
    fleet.run(1200)
    assert (update.done, update.away) == (0, 50)
    assert sum(bool(service.keys) for service in fleet.services) == 450
    fleet.server.up = True
    load = fleet.run(2 * LONGEST_PAUSE)
    assert update.done == 500
    assert max(load.values()) <= 20


class Machine:
    """A machine whose certificate and key are renewed, the one some time after the other."""

    def __init__(self, clock: FleetClock, folder: Path) -> None:
        folder.mkdir()
        self._paths = (folder / "cert", folder / "key")
        self._clock = clock
        self.failures = 0
        self.taken_at: float | None = None
        self.complete_at: float | None = None
        for path in self._paths:
            path.write_text("old")
        self.reload = Reload(  # type: ignore[arg-type]
            clock, "certificate is", self._paths, self._read, int, self._failed, Logger())
        self.reload.start()

    def renew(self, gap: float) -> None:
        """Write one file, and `gap` seconds later the other."""
        first, second = random.Random(gap).sample(self._paths, 2)
        first.write_text("new")
        self._clock.callLater(gap, self._complete, second)

    def _complete(self, path: Path) -> None:
        path.write_text("new")
        self.complete_at = self._clock.now

    def _read(self) -> None:
        cert, key = (path.read_text() for path in self._paths)
        if cert != key:
            raise KeyFileError(self._paths[0], "the key does not belong to the certificate")
        self.taken_at = self._clock.now

    def _failed(self) -> None:
        self.failures += 1


def test_all_certificates_may_be_renewed_in_one_night(tmp_path: Path) -> None:
    """Each machine takes its own soon; none ever uses a certificate with another's key."""
    clock, drawn = FleetClock(), random.Random(5)
    machines = []
    for number in range(150):
        clock.run_until(drawn.random() * 10 + clock.now)
        machines.append(Machine(clock, tmp_path / str(number)))
    for machine in machines:
        clock.callLater(drawn.random() * 600, machine.renew, drawn.choice([0.0, 0.5, 2.0]))
    clock.run_until(clock.now + 600 + 2 * LATER)
    for machine in machines:
        assert machine.taken_at is not None
        assert machine.complete_at is not None
        assert 0 <= machine.taken_at - machine.complete_at <= LATER
        assert machine.failures == 0
        assert machine.reload.warnings() == []
        machine.reload.stop()
