"""What a service tells its operators, collected from its parts."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from envelope.admin.status import Status
from envelope.config import Config
from envelope.firewall.memory import MemoryFirewall
from envelope.metrics import new_registry
from envelope.sessions.admission import TokenPass
from envelope.sessions.answers import Status as Outcome
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.view import Slots


class Parts:
    """The parts of a service that `Status` asks; each tells what a test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock_set_by = 0.0
        self.state = "running"
        self.slots = Slots(0, 1)
        self.is_over = False
        self.bits_per_second = 1000.0
        self.metrics = SessionMetrics(new_registry())
        self.read = 0
        self.reading: Deferred[None] = Deferred()
        self.status = Status(
            Config(), lambda: self.state, self, self.metrics, MemoryFirewall(), self, self,
            lambda: 1_000_000.0 + self.clock_set_by + self.clock.seconds(), self.clock.seconds,
        )

    def read_traffic(self) -> Deferred[None]:
        self.read += 1
        return self.reading

    def views(self) -> list[object]:
        return []

    def over(self) -> bool:
        return self.is_over

    def problems(self) -> list[str]:
        return ["no keys"] if self.state == "starting" else []

    def warnings(self) -> list[str]:
        return ["look here"]

    def keys_in_use(self) -> list[object]:
        return []

    def certificate_in_use(self) -> None:
        return None


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_reasons_come_from_every_part(parts: Parts) -> None:
    assert parts.status.reasons() == []
    parts.state = "starting"
    assert parts.status.reasons() == ["starting", "no keys"]
    assert parts.status.warnings() == ["look here", "look here"]


def test_a_balancer_sends_nobody_who_would_be_refused(parts: Parts) -> None:
    assert parts.status.reasons_for_balancers() == []
    parts.slots, parts.is_over = Slots(1, 1), True
    assert parts.status.reasons_for_balancers() == [
        "no slot is free", "the device sends more than --tx-max-rate",
    ]
    assert parts.status.reasons() == []


def test_the_object_is_as_of_now(parts: Parts) -> None:
    parts.clock.advance(5)
    told = parts.status.as_object()
    assert (told["uptime"], told["now"]) == (5.0, 1_000_005.0)
    assert told["tx_bits_per_second"] == 1000


def test_a_step_of_the_wall_clock_leaves_the_age(parts: Parts) -> None:
    """A host without a clock of its own starts in 1970, until NTP sets it."""
    parts.clock.advance(5)
    parts.clock_set_by = 1e9
    told = parts.status.as_object()
    assert (told["uptime"], told["now"]) == (5.0, 1_001_000_005.0)


def test_a_reading_is_waited_for(parts: Parts) -> None:
    told = Deferred.fromCoroutine(parts.status.read())
    assert (parts.read, told.called) == (1, False)
    parts.reading.callback(None)
    assert told.result["slots"] == {"used": 0, "total": 1}


def test_the_history_counts_what_happens_between_samples(parts: Parts) -> None:
    parts.metrics.request(Outcome.FULL)
    parts.status.start(parts.clock)
    parts.metrics.request(Outcome.FULL)
    parts.metrics.request(Outcome.SUCCESS)
    parts.metrics.token(TokenPass.VALID)
    parts.metrics.rate_check(False)
    parts.metrics.granted(0.002)
    parts.clock.advance(5)
    parts.clock.advance(5)
    history = parts.status.as_object()["history"]
    assert history["refusals"] == {
        "max concurrent reached": [2, 0], "over transmit rate": [1, 0],
    }
    assert history["grant_seconds_p50"] == [0.002, None]
    assert history["tx_bits_per_second"] == [1000, 1000]
    assert parts.status.as_object()["refusals"]["max concurrent reached"] == 2
    parts.status.stop()
    assert parts.clock.getDelayedCalls() == []
    parts.status.stop()
