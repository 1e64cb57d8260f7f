"""Fixtures for every test; the first fails a test that leaves anything behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import settings

from envelope.lab import LabUnavailable, NetLab, search_env
from tests.support.environment import need
from tests.support.leakdetector import LeakDetector, LoggedFailures

# How long an example takes says more about the machine than about what is tested.
settings.register_profile("envelope", deadline=None)
settings.load_profile("envelope")

# A test with one of these fixtures judges what is logged by itself.
_LOOKS_ITSELF = {"logged", "caplog"}


@pytest.fixture
def logged_failures() -> Iterator[LoggedFailures]:
    """What Twisted's log was told went wrong; a test that provokes it calls `flush`."""
    with LoggedFailures() as logged:
        yield logged


@pytest.fixture(autouse=True)
def nothing_leaks(
    request: pytest.FixtureRequest, logged_failures: LoggedFailures
) -> Iterator[None]:
    """No timer, socket, pipe, child process or logged failure outlives its test."""
    watch = LeakDetector(logged_failures)
    yield
    if _LOOKS_ITSELF & set(request.fixturenames):
        logged_failures.flush()
    _tell_leaks(watch)


@pytest.fixture(autouse=True, scope="module")
def nothing_leaks_from_a_module() -> Iterator[None]:
    """The same of what several tests share."""
    watch = LeakDetector(LoggedFailures())
    yield
    _tell_leaks(watch)


def _tell_leaks(watch: LeakDetector) -> None:
    if leaks := watch.wait_for_none():
        watch.end_what_is_left()
        pytest.fail("left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture
def lab() -> Iterator[NetLab]:
    """A host and a client of this test's own (some 30 ms)."""
    lab = NetLab()
    try:
        lab.__enter__()
    except LabUnavailable as reason:
        need(str(reason))
    with lab:
        yield lab


def _rules() -> list[str]:
    """Rules, own chains and strict policies in the network that was made for the tests."""
    if os.environ.get("ENVELOPE_TEST_NAMESPACE") != "1":
        return []  # looking is not for free: it makes iptables-legacy's tables
    text = ""
    for tool in ("iptables-nft-save", "iptables-legacy-save"):
        for name in (tool, f"ip6{tool[2:]}"):
            with suppress(OSError):
                done = subprocess.run([name, "-t", "filter"], capture_output=True, text=True,
                                      env=search_env())
                text += done.stdout
    tables: list[str] = []
    with suppress(OSError):
        # iptables-nft makes none of this family.
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
    """Fail a run that leaves rules in the network that it ran in."""
    if (now := _rules()) != session.stash[_BEFORE]:
        print("\nThe tests left these firewall rules behind:", *now, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
