"""The leak detector finds what tests leave behind, and blames the right test."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.logger import Logger

from tests.support.leakdetector import LeakDetector, LoggedFailures


@pytest.fixture
def watch() -> LeakDetector:
    return LeakDetector(LoggedFailures())


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


@pytest.mark.process
def test_a_failure_is_told_though_the_run_stops_at_it(tmp_path) -> None:
    """Where a module's end is watched too: by then, pytest captures nothing any more."""
    module = tmp_path / "test_failing.py"
    module.write_text(
        "from tests.conftest import nothing_leaks_from_a_module\n"
        "def test_that_fails():\n    assert False\ndef test_that_is_left_out():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(module)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "left behind" not in done.stdout


@pytest.mark.process
def test_a_child(watch) -> None:
    child = subprocess.Popen(["sh", "-c", "echo; read -r _"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    child.stdout.readline()
    assert any("read -r _" in leak for leak in watch.look())
    child.communicate()
    assert watch.look() == []


def test_a_logged_failure() -> None:
    with LoggedFailures() as logged:
        watch = LeakDetector(logged)
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


PLANTED = """
import gc, socket, subprocess
import pytest

pytestmark = pytest.mark.process

def started():
    made = subprocess.Popen(["sh", "-c", "echo; read -r _"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    made.stdout.readline()
    return made

class Cycle:
    def __init__(self, thing):
        self.me, self.thing = self, thing

@pytest.fixture(scope="module")
def shared():
    yield
    shared.kept = socket.socket()

def test_a_failure_that_leaves_a_child_and_its_pipes(shared):
    child = started()
    assert child is None

def test_a_pipe_whose_child_is_gone():
    Cycle.kept = started()
    Cycle.kept.kill()
    Cycle.kept.wait()

def test_garbage():
    child = started()
    child.kill()
    child.wait()
    Cycle(child)

def test_which_finds_nothing_of_the_others():
    del Cycle.kept
    gc.collect()
"""


@pytest.mark.process
def test_what_is_left_behind_fails_the_test_that_leaves_it_and_no_other(tmp_path: Path) -> None:
    """Planted leaks in a run of its own: held by a traceback, by a global, by a cycle."""
    (tmp_path / "test_planted.py").write_text(PLANTED)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", root / "setup.cfg", "--rootdir", root,
         "-p", "tests.conftest", tmp_path / "test_planted.py"],
        cwd=root, capture_output=True, text=True, timeout=120,
    )
    # With CI set, pytest repeats whole messages in its summary.
    messages, _, summary = done.stdout.partition("short test summary info")
    told = re.findall(r"^(ERROR|FAILED) \S*::test_(\w+)", summary, re.MULTILINE)
    assert sorted(told) == [
        ("ERROR", "a_failure_that_leaves_a_child_and_its_pipes"),
        ("ERROR", "a_pipe_whose_child_is_gone"),
        ("ERROR", "garbage"),
        ("ERROR", "which_finds_nothing_of_the_others"),
        ("FAILED", "a_failure_that_leaves_a_child_and_its_pipes"),
    ], done.stdout
    # The last test's error is about the module's fixture, which ends with it.
    assert len(re.findall(r"^left behind:", messages, re.MULTILINE)) == 3
    assert len(re.findall(r"^  descriptor \d+: socket:", messages, re.MULTILINE)) == 1
