"""The watch over what tests leave behind finds what it is there for."""

from __future__ import annotations

import socket
import subprocess

import pytest
from twisted.internet import reactor
from twisted.logger import Logger

from tests.leaks import LoggedFailures, Watch


@pytest.fixture
def watch() -> Watch:
    return Watch(LoggedFailures())


def test_nothing_is_left_behind(watch) -> None:
    assert watch.look() == []


def test_a_timer(watch) -> None:
    call = reactor.callLater(60, print)
    assert len(watch.look()) == 1
    call.cancel()
    assert watch.look() == []


def test_a_socket(watch) -> None:
    with socket.socket():
        (leak,) = watch.look()
        assert "socket:" in leak


def test_a_child(watch) -> None:
    child = subprocess.Popen(["sh", "-c", "echo; read -r _"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    child.stdout.readline()
    assert any("read -r _" in leak for leak in watch.look())
    child.communicate()
    assert watch.look() == []


def test_a_logged_failure() -> None:
    with LoggedFailures() as logged:
        watch = Watch(logged)
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            Logger().failure("told")
        assert watch.look() == ["logged: division by zero"]
        assert logged.flush(KeyError) == []
        assert len(logged.flush(ZeroDivisionError)) == 1
        assert watch.look() == []
    assert len(logged.failures) == 0


@pytest.fixture(autouse=True)
def expected(logged_failures):
    yield
    logged_failures.flush(ZeroDivisionError)
