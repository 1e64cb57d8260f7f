"""The plugin through which twistd finds envelope; it imports nothing until it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin, getPlugins
from zope.interface.verify import verifyObject

from envelope.twistd import Options
from tests.commands.test_commands import INTERRUPT

ROOT = Path(__file__).parent.parent


def run(*argv: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    # Output is buffered, as Python does by default.
    environ = {
        name: value for name, value in os.environ.items()
        if not name.startswith("ENVELOPE_") and name != "PYTHONUNBUFFERED"
    }
    return subprocess.run(
        [sys.executable, *argv], cwd=ROOT, env=environ, stdout=stdout, stderr=subprocess.PIPE,
        text=True, timeout=60, check=False,
    )


def twistd(*argv: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return run("-c", "from twisted.scripts.twistd import run; run()", *argv, stdout=stdout)


def test_twistd_finds_one_service_maker() -> None:
    (maker,) = [one for one in getPlugins(IServiceMaker) if one.tapname == "envelope"]
    assert verifyObject(IServiceMaker, maker)
    assert verifyObject(IPlugin, maker)
    assert maker.description
    assert maker.options is Options


@pytest.mark.process
def test_looking_for_plugins_imports_nothing_of_the_service() -> None:
    """`twistd --help` takes no longer with envelope installed than without."""
    code = (
        "import sys\n"
        "from twisted.application.app import ServerOptions\n"
        "text = str(ServerOptions())\n"
        "assert 'envelope' in text\n"
        "print([name for name in sys.modules if name.partition('.')[0] in\n"
        "       ('envelope', 'autobahn', 'jwcrypto', 'prometheus_client', 'OpenSSL')])\n"
    )
    done = run("-c", code)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.process
def test_a_wrong_option_is_one_line_and_status_1() -> None:
    done = twistd("envelope", "--max-clients=none")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("envelope: --max-clients: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.process
def test_help_is_documentation() -> None:
    done = twistd("envelope", "--help")
    assert done.returncode == 0
    assert "--token-required=" in done.stdout
    assert done.stderr == ""


@pytest.mark.process
def test_a_reader_of_the_help_that_closes_the_pipe_causes_no_message() -> None:
    """As in `twistd envelope --help | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = twistd("envelope", "--help", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.process
def test_help_on_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = twistd("envelope", "--help", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, "envelope: No space left on device\n")


@pytest.mark.process
def test_ctrl_c_before_the_service_starts_is_no_traceback(tmp_path: Path) -> None:
    """Once twistd has looked for plugins."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(name="twisted.internet.reactor"))
    code = "from twisted.scripts.twistd import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "-n", "--pidfile=", "envelope", "--firewall=none",
         "--token-required=false", "--listen=127.0.0.1:0", "--admin=none",
         "--status=none"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.process
@pytest.mark.parametrize(("option", "said"), [
    ("--pidfile=nowhere/pid", "cannot write the pid file {}/nowhere/pid: No such file or directory"
     " (--pidfile= starts without one)"),
    ("--pidfile=.", "cannot write the pid file {}: Is a directory"
     " (--pidfile= starts without one)"),
    ("--pidfile=/proc/pid", "cannot write the pid file /proc/pid: No such file or directory"
     " (--pidfile= starts without one)"),
    ("--rundir=nowhere", "cannot enter --rundir=nowhere: No such file or directory"),
    ("--logfile=nowhere/log", "cannot write the log file nowhere/log: No such file or directory"),
])
@pytest.mark.parametrize("foreground", [("-n",), ()], ids=["foreground", "background"])
def test_a_path_that_twistd_cannot_use_is_one_line(
    tmp_path: Path, option: str, said: str, foreground: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("twistd"), *foreground, option, "envelope",
         "--firewall=none", "--token-required=false", "--listen=127.0.0.1:0", "--admin=none",
         "--status=none"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", f"envelope: {said.format(tmp_path)}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_looking_at_the_pid_file_leaves_it_as_it_is(tmp_path: Path) -> None:
    """What twistd itself makes of it is as ever."""
    (tmp_path / "pid").write_text("rubbish")
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("twistd"), "-n", "--pidfile=pid",
         "envelope", "--firewall=none", "--token-required=false"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1, f"Pidfile {tmp_path}/pid contains non-numeric value\n")
    assert (tmp_path / "pid").read_text() == "rubbish"


@pytest.mark.process
def test_a_pid_file_of_a_process_that_runs_is_one_line(tmp_path: Path) -> None:
    """Twistd itself would explain it in a paragraph."""
    (tmp_path / "pid").write_text(str(os.getpid()))
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("twistd"), "-n", "--pidfile=pid",
         "envelope", "--firewall=none", "--token-required=false"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", f"envelope: process {os.getpid()} of the pid file {tmp_path}/pid is running: "
        "stop it, or choose another file\n")
    assert (tmp_path / "pid").read_text() == str(os.getpid())


@pytest.mark.process
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_trouble(tmp_path: Path, closed: str) -> None:
    """It starts, listens and stops; nothing of its own takes their descriptors."""
    twistd = Path(sys.executable).with_name("twistd")
    command = (f"{twistd} -n --pidfile= --logfile=log envelope --firewall=none --admin=none"
               " --status=none --token-required=false --listen=127.0.0.1:0")
    process = subprocess.Popen(["sh", "-c", f"exec {command} {closed}"], cwd=tmp_path)
    log = tmp_path / "log"
    while not (log.exists() and " ready" in log.read_text()):
        assert process.poll() is None
    descriptors = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
    process.terminate()
    assert process.wait(30) == 0
    assert not any("socket" in each or "epoll" in each for each in descriptors)


@pytest.mark.process
def test_without_a_standard_output_the_log_goes_nowhere(tmp_path: Path) -> None:
    twistd = Path(sys.executable).with_name("twistd")
    process = subprocess.Popen(
        ["sh", "-c", f"exec {twistd} -n --pidfile= envelope --firewall=none --admin=none"
         " --status=none --token-required=false --listen=unix:door >&-"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "door").exists():
        assert process.poll() is None
    process.terminate()
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
