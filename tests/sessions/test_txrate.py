"""What a device sends, and refusing clients while it sends too much."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from envelope.devices import Device
from envelope.metrics import new_registry
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.txrate import (
    CALM,
    PERIOD,
    QUICK_PERIOD,
    DeviceCounts,
    TransmitRate,
    bits_per_second,
    bytes_sent,
    smoothed,
)
from tests.credentials.test_jwks_url import Running
from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, make_key, sign
from tests.end_to_end.harness import BARE_PYTHON
from tests.support.environment import need_own_network
from tests.support.loopbackservice import twistd

HEAD = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs\n"
LINE = "{:>6}: 111 1 0 0 0 0 0 0 {} 2 0 0 0 0 0 0\n"


def devices(**sent: int) -> str:
    return HEAD + "".join(LINE.format(name, count) for name, count in sent.items())


def test_the_kernels_own_table() -> None:
    counts = DeviceCounts()
    before = bytes_sent(counts(), "lo")
    assert before is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.sendto(bytes(1000), sender.getsockname())
    after = bytes_sent(counts(), "lo")
    assert after is not None
    assert after >= before + 1000
    counts.close()


def test_the_column_of_one_device() -> None:
    """Among devices whose names begin alike, and without a space behind the colon (old kernels)."""
    text = devices(eth0=5, eth01=7) + "wide0:1 1 0 0 0 0 0 0 9 2 0 0 0 0 0 0\n"
    assert [bytes_sent(text, name) for name in ("eth0", "eth01", "wide0", "eth")] == [5, 7, 9, None]
    assert bytes_sent("", "eth0") is None


@pytest.mark.parametrize(
    ("before", "after", "seconds", "rate"),
    [(0, 125, 1.0, 1000.0), (1000, 1250, 2.0, 1000.0), (1000, 0, 1.0, 0.0), (0, 9, 0.0, 0.0)],
)
def test_rates(before: int, after: int, seconds: float, rate: float) -> None:
    assert bits_per_second(before, after, seconds) == rate


class RateUnderTest:
    """A device that sends what it is told, a limit of 1000 bits per second."""

    def __init__(self, limit: float | None = 1000.0) -> None:
        self.clock = Clock()
        self.registry = new_registry()
        self.sent: int | None = 0
        self.said: list[str | None] = []
        metrics = SessionMetrics(self.registry)
        self.rate = TransmitRate("net1", limit, self.clock, metrics, self.read)

    def read(self) -> str:
        return devices() if self.sent is None else devices(net1=self.sent)

    def hear(self, event: LogEvent) -> None:
        self.said.append(formatEvent(event))

    def sends(self, count: int) -> bool:
        """A tenth of a second in which it sends so many bytes; whether that is too much."""
        assert self.sent is not None
        self.sent += count
        self.clock.advance(QUICK_PERIOD)
        return self.rate.over()

    def measured(self) -> float | None:
        return self.registry.get_sample_value("envelope_tx_bits_per_second")


@pytest.fixture
def subject() -> Iterator[RateUnderTest]:
    subject = RateUnderTest()
    globalLogPublisher.addObserver(subject.hear)
    yield subject
    globalLogPublisher.removeObserver(subject.hear)
    subject.rate.stop()
    assert subject.clock.getDelayedCalls() == []


def test_the_rate_rises_at_once_and_falls_slowly(subject: RateUnderTest) -> None:
    """The limit itself is allowed; bytes from before the start do not count."""
    subject.sent = 10**12
    subject.rate.start()
    assert not subject.rate.over()
    assert not subject.sends(12)
    assert subject.measured() == pytest.approx(960)
    assert subject.sends(14)
    assert subject.measured() == pytest.approx(1120)
    assert [subject.sends(0) for _ in range(4)] == [True, True, False, False]
    assert subject.measured() == pytest.approx(1120 * 0.95**4)
    assert subject.sends(1000)
    assert subject.measured() == pytest.approx(80_000)


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_what_is_compared_lies_between_the_old_and_the_new_rate(before: float, now: float) -> None:
    after = smoothed(before, now)
    assert after >= now
    assert min(before, now) * 0.999999 <= after <= max(before, now) * 1.000001


def test_the_device_is_measured_under_its_new_name() -> None:
    """Also when another device takes its old one; made anew, it is found by its name again."""
    clock, registry, counts = Clock(), new_registry(), {"net1": 0}
    there = {2: "net1"}

    def find(which: int | str) -> Device | None:
        found = (Device(index, name) for index, name in there.items() if which in (index, name))
        return next(found, None)

    rate = TransmitRate("net1", 1000.0, clock, SessionMetrics(registry),
                        lambda: devices(**counts), find)
    rate.start()
    there = {2: "wan0", 3: "net1"}
    counts = {"wan0": 250, "net1": 9}
    clock.advance(1)
    assert registry.get_sample_value("envelope_tx_bits_per_second") == 2000
    there = {4: "net1"}
    for sent in (20, 270):
        counts = {"net1": sent}
        clock.advance(1)
    assert registry.get_sample_value("envelope_tx_bits_per_second") == 2000
    there, counts = {}, {}
    clock.advance(1)
    assert "net1 does not exist" in rate.warnings()[0]
    rate.stop()


def test_a_rate_near_the_limit_does_not_fill_the_log(subject: RateUnderTest) -> None:
    subject.rate.start()
    for _ in range(100):
        subject.sends(13)
        for _ in range(5):
            subject.sends(0)
    assert subject.said == ["net1 sends more than --tx-max-rate: refusing new clients"]
    for _ in range(round(CALM / QUICK_PERIOD)):
        subject.sends(0)
    assert subject.said[1:] == ["net1 sends less than --tx-max-rate again: admitting clients"]


def test_a_missing_device_limits_nothing_and_is_a_warning(subject: RateUnderTest) -> None:
    subject.rate.start()
    assert subject.sends(9999)
    gone = subject.sent
    subject.sent = None
    subject.clock.advance(QUICK_PERIOD)
    subject.clock.advance(QUICK_PERIOD)
    assert not subject.rate.over()
    assert subject.said[1:] == [
        "the device net1 does not exist: its transmit rate cannot be measured"
    ]
    assert subject.rate.warnings() == subject.said[1:]
    subject.sent = gone
    subject.clock.advance(QUICK_PERIOD)
    assert (subject.measured(), subject.rate.warnings()) == (0, [])
    assert subject.sends(9999)


def test_without_a_limit_it_is_only_measured() -> None:
    subject = RateUnderTest(limit=None)
    subject.rate.start()
    for sent in (10**9, 10**9 + 1):
        subject.sent = sent
        subject.clock.advance(PERIOD)
        assert not subject.rate.over()
    assert subject.measured() == 8
    subject.rate.stop()


# Some 200 Mbit/s. The pause is the sender's pace: without it, the flood would take a whole
# processor from the service that has to measure it.
FLOOD = (
    "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "s.connect(('127.0.0.2', 9))\n"
    "while True:\n"
    "    for _ in range(10):\n"
    "        try:\n            s.send(bytes(50_000))\n        except ConnectionRefusedError:\n"
    "            pass\n"
    "    time.sleep(0.02)\n"
)


@pytest.mark.process
def test_clients_are_refused_while_the_device_sends_too_much(tmp_path: Path) -> None:
    """The real service; monitoring is admitted, and a bad token is still 401."""
    need_own_network()
    key = make_key(tmp_path)
    client, monitor = sign(key), sign(key, sub="monitoring")
    who = (f"--machine={MACHINE}", f"--subject={SUBJECT}", "--verify-key=key.pub")
    with twistd(tmp_path, *who, "--tx-device=lo", "--tx-max-rate=2M") as service:
        running = Running(service)
        assert running.knock(client) == 426
        flood = subprocess.Popen([*BARE_PYTHON, "-c", FLOOD])
        try:
            service.until("lo sends more than --tx-max-rate")
            assert [running.knock(token) for token in (client, monitor, "x.y.z")] == [503, 426, 401]
            assert running.metric("envelope_tx_bits_per_second") > 2e6
        finally:
            flood.kill()
            flood.wait()
        service.until("lo sends less than --tx-max-rate again")
        assert running.knock(client) == 426
        counted = "controller_access_txcontroller_requests_total"
        assert running.metric(f'{counted}{{protocol="http",request="rejected"}}') == 1
        assert running.metric(f'{counted}{{protocol="http",request="accepted"}}') == 3
        assert service.stop() == 0
