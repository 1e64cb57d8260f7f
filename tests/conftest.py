"""Fixtures for every test, among them one that fails a test which leaves anything behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from envelope.lab import LabUnavailable, NetLab, search_env
from tests.support.environment import need
from tests.support.leakdetector import LeakDetector, LoggedFailures

# How long an example takes depends on the machine more than on what is tested.
settings.register_profile("envelope", deadline=None)
settings.load_profile("envelope")

# Every test in these folders starts child processes, and so does each one with this fixture.
_WITH_CHILDREN = tuple(
    Path(__file__).parent / name for name in ("end_to_end", "interop", "kernel", "lab")
)
_CHILDRENS_FIXTURE = "lab"
_CHILD_EVENTS = {"os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen"}

# A test with one of these fixtures checks by itself what is logged.
_CHECKS_LOG_ITSELF = {"logged", "caplog"}


class ChildStartedError(Exception):
    """A test without the mark `process` tried to start a child process."""


class NoChildren:
    """Forbids child processes while a test runs that is not marked `process`.

    While modules are imported they are allowed: ifaddr starts one.
    """

    def __init__(self) -> None:
        self._in_test = False
        self._tried = False
        sys.addaudithook(self._forbid)

    def _forbid(self, event: str, _: object) -> None:
        if self._in_test and event in _CHILD_EVENTS:
            self._tried = True
            raise ChildStartedError("mark this test with @pytest.mark.process")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Watch one test with its fixtures."""
        self._in_test = item.get_closest_marker("process") is None
        try:
            return (yield)
        finally:
            self._in_test = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, None, None]:
        """Fail a test that tried, even if the code under test caught the error."""
        self._tried = False
        yield
        if self._tried:
            raise ChildStartedError("mark this test with @pytest.mark.process")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--no-children`, which `make check` uses."""
    parser.addoption("--no-children", action="store_true",
                     help="leave out tests marked `process`")


def pytest_configure(config: pytest.Config) -> None:
    """Begin logging, and forbid child processes to tests that are not marked `process`.

    Until logging begins, Twisted keeps the last 200 events, and with them the objects that logged
    them. Those of an earlier test would be freed in the middle of a later one, which may count
    garbage (test_garbage).
    """
    failures = FilteringLogObserver(textFileLogObserver(sys.__stderr__),
                                    [LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)])
    globalLogBeginner.beginLoggingTo([failures], discardBuffer=True, redirectStandardIO=False)
    config.pluginmanager.register(NoChildren())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark whole folders with `process`; with `--no-children`, leave out what is marked."""
    for item in items:
        if (any(item.path.is_relative_to(folder) for folder in _WITH_CHILDREN)
                or _CHILDRENS_FIXTURE in getattr(item, "fixturenames", ())):
            item.add_marker("process")
    if config.getoption("--no-children"):
        left_out = [item for item in items if item.get_closest_marker("process")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("process")]


@pytest.fixture
def logged_failures() -> Iterator[LoggedFailures]:
    """The failures that Twisted's log was given; a test that provokes some calls `flush`."""
    with LoggedFailures() as logged:
        yield logged


@pytest.fixture(autouse=True)
def nothing_leaks(
    request: pytest.FixtureRequest, logged_failures: LoggedFailures
) -> Iterator[None]:
    """No timer, socket, pipe, child process or logged failure outlives its test."""
    watch = LeakDetector(logged_failures)
    yield
    if _CHECKS_LOG_ITSELF & set(request.fixturenames):
        logged_failures.flush()
    _tell_leaks(watch)


@pytest.fixture(autouse=True, scope="module")
def nothing_leaks_from_a_module() -> Iterator[None]:
    """The same for what the tests of a module share."""
    watch = LeakDetector(LoggedFailures())
    yield
    _tell_leaks(watch)


def _tell_leaks(watch: LeakDetector) -> None:
    if leaks := watch.wait_for_none():
        watch.end_what_is_left()
        pytest.fail("left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture
def lab() -> Iterator[NetLab]:
    """A host and a client for this test alone; making them takes some 30 ms."""
    lab = NetLab()
    try:
        lab.__enter__()
    except LabUnavailable as reason:
        need(str(reason))
    with lab:
        yield lab


def _rules() -> list[str]:
    """Rules, own chains and policies other than ACCEPT in the network made for the tests."""
    if os.environ.get("ENVELOPE_TEST_NAMESPACE") != "1":
        return []  # reading has an effect: it makes iptables-legacy's tables
    text = ""
    for tool in ("iptables-nft-save", "iptables-legacy-save"):
        for name in (tool, f"ip6{tool[2:]}"):
            with suppress(OSError):
                done = subprocess.run([name, "-t", "filter"], capture_output=True, text=True,
                                      env=search_env())
                text += done.stdout
    tables: list[str] = []
    with suppress(OSError):
        # iptables-nft makes no table of family inet.
        listed = subprocess.run(["nft", "list", "tables", "inet"], capture_output=True, text=True,
                                env=search_env())
        tables = listed.stdout.splitlines()
    wanted = [line.split(" [")[0] for line in text.splitlines() if line.startswith(("-A", ":"))]
    return tables + [
        line for line in wanted if line.startswith("-A") or not line.endswith(" ACCEPT")
    ]


_BEFORE = pytest.StashKey[list[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember the rules."""
    session.stash[_BEFORE] = _rules()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves rules in its network."""
    if (now := _rules()) != session.stash[_BEFORE]:
        print("\nThe tests left these firewall rules behind:", *now, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
