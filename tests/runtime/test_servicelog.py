"""The log of a real twistd: where it goes, how it is opened again, and that it blocks nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tty
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.logger import LogLevel, formatEventAsClassicLogText

from envelope.runtime.servicelog import as_text
from tests.support.loopbackservice import TWISTD, twistd
from tests.support.polling import wait_until
from tests.support.unprivileged import need_own_mounts

OPEN = ("--token-required=false",)
COMMAND = (sys.executable, TWISTD, "--pidfile=pid")
SERVICE = ("envelope", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--status=none",
           "--firewall=none", *OPEN)
PATIENCE = 60.0


def wait_for(so: Callable[[], object]) -> None:
    """Wait for what the service writes into a file."""
    wait_until(so, "it was not written")


def messages(path: Path, log_format: str) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    if log_format == "json":
        return [json.loads(line)["message"] for line in lines]
    return [line.partition("] ")[2] for line in lines]


@pytest.mark.parametrize("when", [None, 0.0, 1.999, 2.0, 1e9 + 0.5, time.time()])
def test_a_line_is_twisteds_own(when: float | None) -> None:
    """Though the time is formatted once for all lines of a second."""
    event = {"log_namespace": "envelope", "log_level": LogLevel.warn, "log_time": when,
             "log_format": "{some} text", "some": "a"}
    assert as_text(event) == formatEventAsClassicLogText(event)
    assert as_text({**event, "log_format": ""}) is None


@pytest.mark.process
@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_sigusr1_opens_the_log_file_again(
    tmp_path: Path, log_format: str, background: bool
) -> None:
    """Not one line is lost, and the file that was moved away is not touched any more."""
    log, moved = tmp_path / "log", tmp_path / "log.1"
    process = subprocess.Popen(
        [*COMMAND, *(() if background else ("-n",)), "--logfile=log", *SERVICE,
         f"--log-format={log_format}"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: "ready" in messages(log, log_format))
    pid = int((tmp_path / "pid").read_text())
    log.rename(moved)
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: "opened the log file again" in messages(log, log_format))
    before = moved.read_text()
    os.kill(pid, signal.SIGUSR2)
    wait_for(lambda: "SIGUSR2 has no effect" in messages(log, log_format))
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: "Server Shut Down." in messages(log, log_format))
    assert moved.read_text() == before
    assert messages(moved, log_format)[-1] == "ready"
    assert messages(log, log_format)[0] == "opened the log file again"
    assert process.communicate(timeout=PATIENCE)[0] == ""
    assert process.returncode == 0
    wait_for(lambda: not (tmp_path / "pid").exists())


@pytest.mark.process
def test_without_a_file_sigusr1_is_a_line(tmp_path: Path) -> None:
    with twistd(tmp_path, *OPEN) as service:
        service.until(r"\bready$")
        service.process.send_signal(signal.SIGUSR1)
        service.until("the log cannot be opened again: it goes to standard output$")
        assert service.stop() == 0
        service.until("Server Shut Down")


@pytest.mark.process
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_a_log_file_that_cannot_be_written_is_one_line(tmp_path: Path, background: bool) -> None:
    done = subprocess.run(
        [*COMMAND, *(() if background else ("-n",)), "--logfile=nowhere/log", *SERVICE],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", "envelope: cannot write the log file nowhere/log: No such file or directory\n")


class Stalled:
    """A service whose standard output and standard error nobody reads."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, admin: int) -> None:
        self.process, self.reading, self.admin = process, reading, admin

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def dropped(self) -> int:
        number = re.search(
            r"^envelope_log_dropped_total (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert number is not None
        return int(float(number[1]))

    def make_lines(self, enough: Callable[[], bool]) -> None:
        """Make it log until it is enough: a line for each real-time signal."""
        until = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < until
            for _ in range(20):
                for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
                    os.kill(self.process.pid, number)
                self.get("/livez")

    def stop(self) -> tuple[int, float]:
        began = time.monotonic()
        self.process.terminate()
        return self.process.wait(PATIENCE), time.monotonic() - began


@contextmanager
def stalled(tmp_path: Path, reading: int, writing: int) -> Iterator[Stalled]:
    process = subprocess.Popen(
        [sys.executable, TWISTD, "-n", "--pidfile=", *SERVICE], cwd=tmp_path, stdout=writing,
        stderr=writing)
    os.close(writing)
    try:
        seen = b""
        while not seen.endswith(b"ready\n"):
            seen += os.read(reading, 1).replace(b"\r", b"")
        admin = int(re.search(rb"metrics and health on .*port=(\d+)", seen)[1])  # type: ignore[index]
        yield Stalled(process, reading, admin)
    finally:
        process.kill()
        process.wait()
        os.close(reading)


@pytest.mark.process
def test_a_reader_that_stalls_costs_lines_alone(tmp_path: Path) -> None:
    """It is served all the while; once it is read again, a line says how many are missing."""
    with stalled(tmp_path, *os.pipe()) as service:
        service.make_lines(lambda: service.dropped() > 100)
        seen = b""
        while not (found := re.search(rb"lost (\d+) lines of the log", seen)):
            seen += os.read(service.reading, 1 << 16)
        assert int(found[1]) == service.dropped()
        service.process.send_signal(signal.SIGUSR2)
        while b"SIGUSR2 has no effect" not in seen:
            seen += os.read(service.reading, 1 << 16)
        assert seen.count(b"lines of the log") == 1
        assert service.stop()[0] == 0


@pytest.mark.process
def test_a_reader_that_stalls_keeps_no_stop_waiting(tmp_path: Path) -> None:
    """Longer than two seconds, and the exit status is that of a clean stop."""
    with stalled(tmp_path, *os.pipe()) as service:
        service.make_lines(lambda: service.dropped() > 0)
        status, seconds = service.stop()
        assert status == 0
        assert seconds < 10


@pytest.mark.process
def test_a_terminal_that_is_stopped_holds_nothing_up(tmp_path: Path) -> None:
    """Ctrl-S."""
    reading, writing = pty.openpty()
    tty.setcbreak(writing)
    with stalled(tmp_path, reading, writing) as service:
        os.write(reading, b"\x13")
        service.make_lines(lambda: service.dropped() > 0)
        status, seconds = service.stop()
        assert status == 0
        assert seconds < 10




def full_pipe() -> tuple[int, int]:
    """A pipe that takes not one byte more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.process
@pytest.mark.parametrize(("option", "status"), [
    ("--listen=unix:taken", 1),
    ("--verify-key=nowhere", 1),
    ("--nonsense", 1),
    ("--listen=unix:free", 0),
])
def test_a_pipe_that_is_full_from_the_first_moment_holds_nothing_up(
    tmp_path: Path, option: str, status: int
) -> None:
    """Neither a start that fails, and says so there, nor one that does not."""
    (tmp_path / "taken").mkdir()
    reading, writing = full_pipe()
    process = subprocess.Popen(
        [sys.executable, TWISTD, "-n", "--pidfile=", *SERVICE, option], cwd=tmp_path,
        stdout=writing, stderr=writing)
    try:
        if not status:
            wait_for((tmp_path / "free").exists)
            process.terminate()
        assert process.wait(PATIENCE) == status
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


# Takes the place of the machine's /dev, in a mount namespace of its own: the socket of a syslog
# that is not read before standard input ends, and then the messages, one a line.
SYSLOGD = """
import os, socket, sys
kept = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
kept.bind("/dev/log")
print("up", flush=True)
sys.stdin.read()
kept.settimeout(1)
try:
    while True:
        print(kept.recv(65536).decode().rstrip(chr(0)), flush=True)
except TimeoutError:
    pass
"""
OWN_DEV = """
mkdir dev && mount -t tmpfs tmpfs dev
for name in null zero full random urandom tty; do
    touch dev/$name && mount --bind /dev/$name dev/$name || exit 1
done
mount --rbind dev /dev && exec "$@"
"""


@pytest.mark.process
def test_a_syslog_that_stalls_holds_nothing_up(tmp_path: Path) -> None:
    """Its socket holds some ten messages (net.unix.max_dgram_qlen); what it held is delivered."""
    need_own_mounts()
    program = tmp_path / "both.py"
    program.write_text(
        "import subprocess, sys\n"
        f"log = subprocess.Popen([sys.executable, '-IS', '-c', {SYSLOGD!r}],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "assert log.stdout.readline() == 'up\\n'\n"
        "served = subprocess.Popen(sys.argv[1:])\n"
        "print(served.pid, flush=True)\n"
        "print(served.wait(), flush=True)\n"
        "print(log.communicate()[0])\n")
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", OWN_DEV, "sh", sys.executable, program, sys.executable,
         TWISTD, "-n", "--pidfile=", "--syslog", *SERVICE, "--listen=unix:free"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    ) as process:
        assert process.stdout is not None
        served = int(process.stdout.readline())
        wait_for((tmp_path / "free").exists)
        for number in range(signal.SIGRTMIN, signal.SIGRTMIN + 20):
            os.kill(served, number)
        os.kill(served, signal.SIGTERM)
        assert process.stdout.readline() == "0\n"
        told = process.stdout.read()
    assert "twisted: [-] reactor class" in told
