"""What a service manager is told, in which order, and what a busy one costs."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from envelope.runtime.journal import is_journal, with_priorities
from envelope.runtime.servicemanager import (
    RETRY_AFTER,
    STATUS_PERIOD,
    ServiceManager,
    notify_address,
    watchdog_period,
)


class Manager:
    """systemd's end of the socket at `address`, and a service that tells it."""

    def __init__(self, address: str, **environ: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        self.clock = Clock()
        self.status = "sessions: 0"
        self.service = ServiceManager(
            self.clock, {"NOTIFY_SOCKET": address, **environ}, lambda: self.status
        )

    def heard(self) -> list[str]:
        """The messages since the last call."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self.service.close()
        self.socket.close()
        assert not self.clock.getDelayedCalls()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@envelope-test-{secrets.token_hex(8)}"
    manager = Manager(
        str(tmp_path / "notify") if request.param == "path" else abstract, WATCHDOG_USEC="4000000"
    )
    yield manager
    manager.close()


def test_the_life_of_a_service(manager: Manager) -> None:
    """The reactor's own timer gives the signs of life, twice as often as they are awaited."""
    manager.service.reloaded(lambda: None)  # before it is ready
    assert manager.heard() == []
    manager.service.ready()
    assert manager.heard() == ["READY=1", "STATUS=sessions: 0", "WATCHDOG=1"]
    manager.clock.advance(STATUS_PERIOD)
    assert manager.heard() == []
    manager.status = "sessions: 1"
    manager.clock.advance(STATUS_PERIOD)
    assert manager.heard() == ["WATCHDOG=1", "STATUS=sessions: 1"]
    before = time.monotonic_ns() // 1000
    said: list[str] = []
    manager.service.reloaded(lambda: said.extend(manager.heard()))
    assert manager.heard() == ["READY=1"]
    word, moment = said[0].split("\n")
    assert word == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    with pytest.raises(ZeroDivisionError):
        manager.service.reloaded(lambda: 1 // 0)
    assert manager.heard()[1:] == ["READY=1"]
    manager.service.stopping()
    assert manager.heard() == ["STOPPING=1\nSTATUS=stopping"]
    manager.clock.advance(2.0)
    assert manager.heard() == ["WATCHDOG=1"]
    manager.service.reloaded(lambda: None)
    assert manager.heard() == []


def test_a_busy_manager_holds_nothing_up_and_misses_nothing_that_counts(manager: Manager) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                filler.sendto(b"x", manager.socket.getsockname())
    manager.service.ready()
    for _ in range(100):
        manager.clock.advance(2.0)
    manager.service.stopping()
    assert set(manager.heard()) == {"x"}
    manager.clock.advance(RETRY_AFTER)
    assert manager.heard() == ["READY=1", "STOPPING=1\nSTATUS=stopping"]


def test_a_manager_that_is_gone(manager: Manager) -> None:
    manager.service.ready()
    manager.socket.close()
    manager.clock.advance(2.0)
    manager.service.stopping()
    manager.socket = socket.socket(socket.AF_UNIX)


@pytest.mark.parametrize("address", ["", "@", "/", "run/notify", "vsock:2:1"])
def test_without_a_manager(address: str) -> None:
    assert notify_address({"NOTIFY_SOCKET": address}) is None
    clock, reloads = Clock(), []
    service = ServiceManager(clock, {"WATCHDOG_USEC": "10"}, str)
    service.ready()
    service.reloaded(lambda: reloads.append(1))
    service.stopping()
    assert not clock.getDelayedCalls()
    assert reloads == [1]
    service.close()


@pytest.mark.parametrize(("environ", "period"), [
    ({}, None), ({"WATCHDOG_USEC": "30000000"}, 15.0), ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": "soon"}, None), ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, 1.0),
    ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, None),
    ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": ""}, None),
])
def test_the_watchdogs_period(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ, 7) == period


def test_which_stream_is_the_journal(tmp_path: Path) -> None:
    with open(tmp_path / "journal", "w") as journal, open(tmp_path / "other", "w") as other:
        status = os.fstat(journal.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(environ, journal.fileno())
        assert is_journal(environ, other.fileno(), journal.fileno())
        assert not is_journal(environ, other.fileno())
        assert not is_journal({}, journal.fileno())
    assert not is_journal(environ, 9999)


def test_each_line_has_its_events_priority() -> None:
    def text(event: LogEvent, addresses: str) -> str | None:
        assert addresses == "none"
        return event["text"]

    def told(event: LogEvent) -> str | None:
        return with_priorities(text)(event, "none")

    assert told({"log_level": LogLevel.warn, "text": "one\n"}) == "<4>one\n"
    assert told({"log_level": LogLevel.error, "text": "one\n\ttwo\n"}) == "<3>one\n<3>\ttwo\n"
    assert told({"text": "one\n"}) == "<6>one\n"
    assert told({"text": None}) is None
