"""A trial that works, fails, dies or hangs, as `envelope check` finds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import pytest_twisted
from twisted.internet import reactor

from envelope.preflight.examination import try_firewall
from envelope.preflight.findings import Finding, Level, ok

pytestmark = pytest.mark.process

SECONDS = 10.0


async def found(script: str, patience: float = SECONDS) -> list[Finding]:
    """What is found by a trial that is this script."""
    return await try_firewall(
        reactor, ["--device=lo"], {"HERE": "yes"}, ("/bin/sh", "-c", script, "sh"), patience)


@pytest_twisted.ensureDeferred
async def test_its_findings_are_taken_over() -> None:
    script = """printf '[["ok", "%s", ""]]' "$1 $2 $HERE" """
    assert await found(script) == [ok(f"{os.getpid()} --device=lo yes")]


def test_a_trial_whose_check_ended_before_it_could_ask_for_that_ends_too() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "envelope.preflight.trial",
                           str(os.getppid()), "--no-such-option"], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("script", "why", "patience"), [
    ("echo broken >&2; exit 1", "sh: broken", SECONDS),
    ("kill -9 $$", "signal 9", SECONDS),
    ("exec sleep 60", "sh did not answer within 0.3 s", 0.3),
    ("echo half; echo broken >&2", "broken", SECONDS),
    ("exit 0", "it ended without a result", SECONDS),
])
async def test_one_that_does_not_tell_is_a_warning(script: str, why: str, patience: float) -> None:
    only, = await found(script, patience)
    assert (only.level, why in only.what) == (Level.WARN, True), only


@pytest_twisted.ensureDeferred
async def test_the_program_is_the_trial() -> None:
    only, = await try_firewall(reactor, ["--no-such-option"], {})
    assert (only.level, "no-such-option" in only.what) == (Level.WARN, True), only
