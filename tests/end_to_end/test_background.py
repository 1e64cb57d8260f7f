"""A start in the background: what the shell hears of it, and when."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.harness import PATIENCE, Rig

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("rig", ["nft"], indirect=True)]

TWISTD = Path(sys.executable).with_name("twistd")
# Its own id, and then what it is told to run: that one keeps it.
NAMED = 'echo $$ > shell && exec "$@"'


class Started:
    """A twistd without `-n`: the process that was typed, and the daemon that it leaves behind."""

    def __init__(self, rig: Rig, *options: str, pidfile: str = "pid") -> None:
        self._folder = rig.folder
        # The daemon inherits the writing end, and nothing that it runs does: so its end is seen.
        self._life, held = os.pipe()
        try:
            self._process = rig.lab.host.popen(
                ["sh", "-c", NAMED, "sh", sys.executable, TWISTD, f"--pidfile={pidfile}",
                 "--logfile=log", "envelope", *options],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=rig.folder,
                pass_fds=[held],
            )
        finally:
            os.close(held)

    def ended(self) -> tuple[int, str, str]:
        """Wait for what was typed: its status, and what it printed, standard error last."""
        printed, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, printed, errors

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        os.kill(int((self._folder / "pid").read_text()), number)

    def gone(self) -> None:
        """Wait for the daemon's end."""
        assert os.read(self._life, 1) == b""

    def close(self) -> None:
        """Wait for nothing any more; what still runs ends with its host."""
        self._process.kill()
        self._process.communicate()
        os.close(self._life)


@pytest.fixture
def start(rig):
    """Starts a twistd with these options, in the background."""
    # Whoever runs the tests may have us ignore this one (nohup), and then our children do.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    made: list[Started] = []

    def one(*options: str, **how: str) -> Started:
        made.append(Started(rig, *options, **how))
        return made[-1]

    yield one
    for each in made:
        each.close()
    signal.signal(signal.SIGHUP, before)


def script(path: Path, line: str, real: str) -> None:
    """A tool that does one thing before it becomes the real one."""
    path.write_text(f'#!/bin/sh\n{line}\nexec {real} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def tool(rig):
    """Makes iptables' tools, of which the one that writes rules does `line` first."""

    def make(line: str) -> list[str]:
        for part in ("", "-save", "-restore"):
            script(rig.folder / f"iptables{part}", line if part == "-restore" else "",
                   f"/usr/sbin/iptables-nft{part}")
        return [*rig.options(), f"--iptables={rig.folder / 'iptables'}"]

    return make


def test_the_command_ends_once_clients_can_come(rig, start) -> None:
    """With status 0 and without a word; the service lives on, and its stop leaves nothing."""
    before = rig.saved()
    started = start(*rig.options())
    assert started.ended() == (0, "", "")
    assert re.search(r"\bready$", started.log, re.MULTILINE)
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    started.signal(signal.SIGTERM)
    assert client.event()["code"] == 1001
    started.gone()
    assert not (rig.folder / "pid").exists()
    assert rig.saved() == before


def test_a_port_in_use_is_one_line_and_status_1(rig, start) -> None:
    """Nothing is left behind, so that the same command works once the port is free."""
    before = rig.saved()
    busy = rig.twistd(*rig.options("--firewall=none", "--admin=none"))
    busy.until(r"\bready$")
    started = start(*rig.options())
    status, printed, errors = started.ended()
    assert (status, printed) == (1, "")
    assert re.fullmatch(r"envelope: cannot listen on .*8880: address already in use\n", errors)
    assert errors.removeprefix("envelope: ") in started.log
    assert not (rig.folder / "pid").exists()
    started.gone()
    assert rig.saved() == before
    assert busy.stop() == 0
    started = start(*rig.options())
    assert started.ended() == (0, "", "")
    started.signal(signal.SIGINT)
    started.gone()


def test_a_tool_that_fails_is_one_whole_line(rig, start, tool) -> None:
    """However long the line is."""
    before = rig.saved()
    complaint = 'echo "iptables-restore: no rules today, $(printf %0150d 7) reasons" >&2'
    started = start(*tool(f"{complaint}; exit 3"))
    assert started.ended() == (
        1, "", f"envelope: ipv4: iptables-restore: no rules today, {7:0150} reasons\n")
    assert not (rig.folder / "pid").exists()
    started.gone()
    assert rig.saved() == before


def test_what_is_wrong_in_the_options_and_files_is_told_as_ever(rig, start) -> None:
    """Before anything goes into the background."""
    for option in ("--nonsense", "--verify-key=/nonexistent", "--iptables=/nonexistent"):
        started = start(*rig.options(option))
        status, printed, errors = started.ended()
        assert (status, printed) == (1, "")
        assert re.fullmatch(r"envelope: .*\n", errors)
        assert not (rig.folder / "pid").exists()
        started.gone()


def test_a_daemon_that_is_killed_during_its_start_keeps_nobody_waiting(rig, start, tool) -> None:
    """Its own tool kills it; the next start makes up for what is left."""
    before = rig.saved()
    started = start(*tool("kill -9 $PPID"))
    assert started.ended() == (
        1, "", "envelope: the service ended before it was ready; its log says what it did\n")
    started.gone()
    # twistd removes a dead one's by itself, but not before somebody has reaped the process.
    (rig.folder / "pid").unlink()
    started = start(*rig.options())
    assert started.ended() == (0, "", "")
    started.signal(signal.SIGTERM)
    started.gone()
    assert rig.saved() == before


def test_a_daemon_that_is_stopped_during_its_start_is_not_ready(rig, start, tool) -> None:
    """It takes everything back, and whoever waits hears of it."""
    before = rig.saved()
    started = start(*tool("kill -TERM $PPID"))
    assert started.ended() == (
        1, "", "envelope: the service ended before it was ready; its log says what it did\n")
    started.gone()
    assert not (rig.folder / "pid").exists()
    assert rig.saved() == before


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_start_that_nobody_waits_for_any_more_is_given_up(rig, start, tool, name: str) -> None:
    """As when Ctrl-C is pressed at it: without a traceback, and the rules are as before."""
    before = rig.saved()
    started = start(*tool(f"kill -{name} $(cat {rig.folder / 'shell'})"))
    assert started.ended() == (-getattr(signal, f"SIG{name}"), "", "")
    started.gone()
    assert "given up" in started.log
    assert "Traceback" not in started.log
    assert not (rig.folder / "pid").exists()
    assert rig.saved() == before


def test_a_pid_file_that_cannot_be_written_ends_it_with_twistds_own_word(rig, start) -> None:
    """What is twistd's to tell it tells as ever."""
    started = start(*rig.options(), pidfile="nowhere/pid")
    status, printed, errors = started.ended()
    assert (status, printed) == (1, "")
    assert errors.startswith("An error has occurred: ")
    assert "envelope:" not in errors
    started.gone()
