"""Warnings before the certificate in use expires."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from envelope.credentials.certificate import WatchedCertificate
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.tls import ServerTLS
from envelope.credentials.validity import Validity
from tests.support.certificates import Authority
from tests.support.loopbackservice import port_of, twistd

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, 12, tzinfo=UTC)
GOOD = Validity(BEGIN, END)
DAY = 86_400.0


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (BEGIN - timedelta(seconds=1),
         "the certificate is not valid before 2026-01-01 00:00:00 UTC: clients refuse it"),
        (BEGIN, None),
        (END - timedelta(days=14), None),
        (END - timedelta(days=13, hours=23),
         "the certificate expires in 13 days, at 2026-04-01 12:00:00 UTC"),
        (END - timedelta(days=1),
         "the certificate expires in 24 hours, at 2026-04-01 12:00:00 UTC"),
        (END, "the certificate expires in 0 hours, at 2026-04-01 12:00:00 UTC"),
        (END + timedelta(seconds=1),
         "the certificate expired at 2026-04-01 12:00:00 UTC: clients refuse it"),
    ],
)
def test_the_warning_by_date(now: datetime, line: str | None) -> None:
    assert GOOD.trouble(now) == line


@given(st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)))
def test_the_next_check_comes_within_a_day_and_just_after_each_date(now: datetime) -> None:
    """A graver warning is late by a second at most."""
    wait = GOOD.next_change(now)
    assert timedelta(0) < wait <= timedelta(days=1)
    for edge in (BEGIN, END):
        if now < edge:
            assert wait <= edge - now + timedelta(seconds=1)
    if now <= END < now + timedelta(days=1) - timedelta(seconds=1):
        assert "expired" in str(GOOD.trouble(now + wait))


class Watched:
    """A watched certificate with a clock of its own, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.folder = folder
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.said: list[tuple[str, str | None]] = []
        self.began = datetime.now(UTC).timestamp()

    def wall(self) -> float:
        return self.began + self.clock.seconds()

    def watch(self, alone: bool = False, **dates: float) -> WatchedCertificate:
        tls = ServerTLS.load(*self.authority.issue("a.example", alone=alone, **dates))
        return WatchedCertificate(tls, self.clock, self.wall, CredentialMetrics(self.registry))

    def hear(self, event: LogEvent) -> None:
        self.said.append((event["log_level"].name, formatEvent(event)))

    def take(self) -> list[tuple[str, str | None]]:
        said, self.said = self.said, []
        return said


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    globalLogPublisher.addObserver(watched.hear)
    yield watched
    globalLogPublisher.removeObserver(watched.hear)


def test_the_expiry_is_logged_at_the_start_and_exported(watched: Watched) -> None:
    assert watched.registry.get_sample_value("envelope_tls_not_after_seconds") is None
    certificate = watched.watch(ends=60)
    certificate.start()
    (line,) = watched.take()
    assert line[0] == "info"
    assert str(line[1]).startswith("the certificate is valid until 20")
    value = watched.registry.get_sample_value("envelope_tls_not_after_seconds")
    assert value == certificate.tls.validity.not_after.timestamp()
    assert certificate.warnings() == []
    certificate.stop()
    assert watched.clock.getDelayedCalls() == []


def test_a_warning_is_logged_on_each_of_the_last_14_days_and_at_the_end(watched: Watched) -> None:
    certificate = watched.watch(ends=15.5)
    certificate.start()
    watched.take()
    days = []
    for _ in range(18):
        watched.clock.advance(DAY)
        days.append(watched.take())
    assert days[0] == []
    assert all(len(day) >= 1 and day[0][0] == "warn" for day in days[1:])
    assert "expires in 13 days" in str(days[1])
    assert "expired at" in str(days[15])
    assert certificate.warnings()
    certificate.stop()


@pytest.mark.parametrize("dates", [{"begins": 1.0}, {"begins": -9.0, "ends": -1.0}])
def test_a_certificate_that_clients_refuse_is_logged_at_the_start(
    watched: Watched, dates: dict[str, float]
) -> None:
    certificate = watched.watch(**dates)
    certificate.start()
    (_, line) = watched.take()
    assert line[0] == "warn"
    assert str(line[1]).endswith("clients refuse it")
    certificate.stop()


def test_a_single_certificate_that_an_authority_signed_is_a_warning(watched: Watched) -> None:
    """In the log and in the list, until the whole chain is there."""
    certificate = watched.watch(alone=True)
    certificate.start()
    (_, line) = watched.take()
    assert line[0] == "warn"
    assert str(line[1]).startswith(f"{watched.folder / 'leaf.pem'} holds one certificate, and not ")
    assert certificate.warnings() == [line[1]]
    watched.authority.issue("a.example")
    certificate.reload()
    assert [level for level, _ in watched.take()] == ["info", "info"]
    assert certificate.warnings() == []
    certificate.stop()


def test_a_renewed_certificate_ends_the_warnings_a_bad_one_does_not(watched: Watched) -> None:
    certificate = watched.watch(ends=3)
    certificate.start()
    watched.take()
    (watched.folder / "leaf.pem").write_text("half a certi")
    certificate.reload()
    said = watched.take()
    assert said[0][0] == "error"
    assert "kept the old certificate: " in str(said[0][1])
    assert "expires in" in str(said[2])
    watched.authority.issue("a.example", ends=50)
    certificate.reload()
    assert [level for level, _ in watched.take()] == ["info", "info"]
    assert certificate.warnings() == []
    # The next check of the dates, and of the files.
    assert len(watched.clock.getDelayedCalls()) == 2
    certificate.stop()


def test_a_reload_before_the_start_starts_no_timer(watched: Watched) -> None:
    """SIGHUP can arrive at any moment."""
    certificate = watched.watch()
    certificate.reload()
    assert watched.clock.getDelayedCalls() == []


@pytest.mark.process
def test_an_expired_certificate_is_reported_and_keeps_the_service_ready(
    tmp_path: Path,
) -> None:
    """In the log, `/readyz` and `/metrics`, until SIGHUP finds a good one."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost", begins=-9, ends=-1)
    with twistd(
        tmp_path, "--token-required=false", f"--cert={cert}", f"--key={key}"
    ) as service:
        admin = port_of(service, "metrics and health on")
        service.until(r"\[envelope.certificate#warn\] the certificate expired at")
        service.until("ready$")

        def get(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}") as answer:
                assert answer.status == 200
                return str(answer.read().decode())

        ready = json.loads(get("/readyz"))
        assert ready["ready"]
        assert "expired" in ready["warnings"][0]
        assert "envelope_tls_not_after_seconds 1." in get("/metrics")
        authority.issue("localhost")
        service.process.send_signal(signal.SIGHUP)
        service.until("the certificate is valid until")
        assert json.loads(get("/readyz")) == {"ready": True}
        assert service.stop() == 0


@pytest.mark.process
def test_a_new_key_that_comes_after_sighup_is_taken_with_its_certificate(tmp_path: Path) -> None:
    """Until then the old pair is served, and `/readyz` says why."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost", ends=30)
    new_cert, new_key = authority.issue("localhost", ends=60, stem="new")
    with twistd(
        tmp_path, "--token-required=false", f"--cert={cert}", f"--key={key}"
    ) as service:
        admin = port_of(service, "metrics and health on")
        service.until("ready$")

        def warnings() -> list[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz") as answer:
                return list(json.loads(answer.read()).get("warnings", []))

        new_cert.replace(cert)
        service.process.send_signal(signal.SIGHUP)
        service.until("kept the old certificate: .* is not the key of the first certificate")
        assert warnings() == [
            f"the old certificate still in use: {key} is not the key of the first certificate in "
            f"{cert}"
        ]
        new_key.replace(key)
        service.until("read the certificate again")
        assert warnings() == []
        authority.issue("localhost", ends=5)
        service.until("read the certificate again")
        assert "expires in" in warnings()[0]
        assert service.stop() == 0
