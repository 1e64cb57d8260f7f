"""twistd without `-n`: when the command ends, with which exit status and output."""

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
# Writes the daemon's process id, then becomes the real tool.
NAMED = 'echo $$ > shell && exec "$@"'


class Started:
    """A twistd without `-n`: the command that was run, and the daemon that it leaves behind."""

    def __init__(self, rig: Rig, *options: str, pidfile: str = "pid") -> None:
        self._folder = rig.folder
        # The daemon inherits the pipe's writing end and its children do not, so the pipe's end is
        # the daemon's end.
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
        """Wait for the command; returns its exit status, standard output and standard error."""
        printed, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, printed, errors

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        os.kill(int((self._folder / "pid").read_text()), number)

    def gone(self) -> None:
        """Wait until the daemon has ended."""
        assert os.read(self._life, 1) == b""

    def close(self) -> None:
        """Kill the command and close the pipe; a daemon that still runs ends with its host."""
        self._process.kill()
        self._process.communicate()
        os.close(self._life)


@pytest.fixture
def start(rig):
    """A function that starts twistd with these options in the background."""
    # Under nohup the tests ignore this signal, and children inherit that.
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
    """Write a tool that runs a line of shell and then becomes the real one."""
    path.write_text(f'#!/bin/sh\n{line}\nexec {real} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def tool(rig):
    """A function that writes iptables' tools; the one that changes rules runs `line` first."""

    def make(line: str) -> list[str]:
        for part in ("", "-save", "-restore"):
            script(rig.folder / f"iptables{part}", line if part == "-restore" else "",
                   f"/usr/sbin/iptables-nft{part}")
        return [*rig.options(), f"--iptables={rig.folder / 'iptables'}"]

    return make


def test_the_command_ends_once_the_service_listens(rig, start) -> None:
    """With status 0 and no output; the daemon runs on, and its stop restores the rules."""
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
    """Nothing is left, so the same command works once the port is free."""
    before = rig.saved()
    busy = rig.twistd(*rig.options("--firewall=none", "--admin=none", "--status=none"))
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


def test_a_failing_tool_is_reported_in_one_whole_line(rig, start, tool) -> None:
    """The line is complete, however long it is."""
    before = rig.saved()
    complaint = 'echo "iptables-restore: no rules today, $(printf %0150d 7) reasons" >&2'
    started = start(*tool(f"{complaint}; exit 3"))
    assert started.ended() == (
        1, "", f"envelope: ipv4: iptables-restore: no rules today, {7:0150} reasons\n")
    assert not (rig.folder / "pid").exists()
    started.gone()
    assert rig.saved() == before


def test_wrong_options_and_files_are_reported_before_the_fork(rig, start) -> None:
    """As in the foreground, in one line."""
    for option in ("--nonsense", "--verify-key=/nonexistent", "--iptables=/nonexistent"):
        started = start(*rig.options(option))
        status, printed, errors = started.ended()
        assert (status, printed) == (1, "")
        assert re.fullmatch(r"envelope: .*\n", errors)
        assert not (rig.folder / "pid").exists()
        started.gone()


def test_the_command_ends_when_the_daemon_is_killed_during_its_start(rig, start, tool) -> None:
    """Its own tool kills it; the next start clears what is left."""
    before = rig.saved()
    started = start(*tool("kill -9 $PPID"))
    assert started.ended() == (
        1, "", "envelope: the service ended before it was ready; its log says what it did\n")
    started.gone()
    # twistd removes a dead daemon's pid file by itself, but only once the process was reaped.
    (rig.folder / "pid").unlink()
    started = start(*rig.options())
    assert started.ended() == (0, "", "")
    started.signal(signal.SIGTERM)
    started.gone()
    assert rig.saved() == before


def test_the_command_fails_when_the_daemon_is_stopped_during_its_start(rig, start, tool) -> None:
    """The daemon takes its rules back, and the command reports the stop."""
    before = rig.saved()
    started = start(*tool("kill -TERM $PPID"))
    assert started.ended() == (
        1, "", "envelope: the service ended before it was ready; its log says what it did\n")
    started.gone()
    assert not (rig.folder / "pid").exists()
    assert rig.saved() == before


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_start_is_given_up_when_the_waiting_command_is_ended(rig, start, tool, name: str) -> None:
    """As by Ctrl-C: there is no traceback, and the rules are as before."""
    before = rig.saved()
    started = start(*tool(f"kill -{name} $(cat {rig.folder / 'shell'})"))
    assert started.ended() == (-getattr(signal, f"SIG{name}"), "", "")
    started.gone()
    assert "given up" in started.log
    assert "Traceback" not in started.log
    assert not (rig.folder / "pid").exists()
    assert rig.saved() == before


def test_a_pid_file_that_cannot_be_written_is_one_line(rig, start) -> None:
    """Before anything goes into the background."""
    started = start(*rig.options(), pidfile="nowhere/pid")
    status, printed, errors = started.ended()
    assert (status, printed) == (1, "")
    assert errors == (
        f"envelope: cannot write the pid file {rig.folder}/nowhere/pid: No such file or directory "
        "(--pidfile= starts without one)\n")
    started.gone()
