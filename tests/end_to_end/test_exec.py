"""`envelope exec` with the real service, over TLS, and with a stand-in for Locate."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envelope import __version__
from tests.end_to_end.harness import BARE_PYTHON, PATIENCE
from tests.end_to_end.serviceprocess import ServiceProcess
from tests.support.certificates import Authority
from tests.support.polling import wait_until

ENVELOPE = str(Path(sys.executable).with_name("envelope"))
PATH = "/v0/envelope/access?access_token="
# `both.example` has both loopback addresses, as a host with both families has.
BOTH = """
import socket, sys
real = socket.getaddrinfo
def both(host, port, family=0, *rest, **more):
    if host != "both.example":
        return real(host, port, family, *rest, **more)
    kinds = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
    return [each for kind, address in kinds.items() if family in (0, kind)
            for each in real(address, port, kind, *rest, **more)]
socket.getaddrinfo = both
from envelope.commands import main
sys.exit(main())
"""
# The wall clock is set an hour ahead one second after the start.
SET_AHEAD = """
import sys, threading, time
real, ahead = time.time, threading.Event()
time.time = lambda: real() + (3600 if ahead.is_set() else 0)
threading.Timer(1, ahead.set).start()
from envelope.commands import main
sys.exit(main())
"""


class Running(ServiceProcess):
    """The service with a certificate for the loopback addresses, which `environ` trusts."""

    def __init__(self, folder: Path, *options: str, tls: bool = True) -> None:
        authority = Authority(folder)
        cert, key = authority.issue("127.0.0.1", "::1", "both.example")
        more = [f"--cert={cert}", f"--key={key}"] if tls else []
        self.scheme = "wss" if tls else "ws"
        self.environ = {
            **os.environ, "SSL_CERT_FILE": str(authority.path), "HTTPS_PROXY": "http://127.0.0.1:1",
            "https_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1",
            "ENVELOPE_TIMEOUT": "nonsense",
        }
        super().__init__(folder, "--timeout=1s", *more, *options, listen=(":0",), tls=False)

    def url(self, host: str = "127.0.0.1", **claims: Any) -> str:
        return f"{self.scheme}://{host}:{self.ports[0]}{PATH}{self.token(**claims).decode()}"

    def run(self, *argv: str, **how: Any) -> tuple[int, str, str]:
        """Run `envelope exec`; its status, output and errors."""
        done = subprocess.run([ENVELOPE, "exec", *argv], env=self.environ, capture_output=True,
                              text=True, timeout=PATIENCE, **how)
        for name in ("eyJ", "Traceback"):
            assert name not in done.stderr
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


def test_a_command_runs_while_the_envelope_is_open(running: Running) -> None:
    """It has the standard streams, its status counts, and then the slot is free at once."""
    url = running.url()
    show = ("cat; echo $SERVICE_HOSTNAME,$SERVICE_ADDRESS,$CLIENT_ADDRESS,$SERVICE_URL; "
            "echo e >&2; exit 7")
    for _ in range(2):
        status, out, err = running.run(f"--url={url}", "--", "sh", "-c", show, input="x\n")
        assert (status, err) == (7, "e\n")
        assert out == f"x\n127.0.0.1,127.0.0.1,127.0.0.1,{url}\n"
    assert running.run(f"-url={running.url('[::1]')}", "sh", "-c", "echo $SERVICE_ADDRESS") == (
        0, "::1\n", "")
    assert running.run(f"--url={running.url()}", "sh", "-c", "kill -9 $$")[0] == 137
    running.wait_until_idle()


def test_the_envelope_ends_first(running: Running) -> None:
    """The deadline, with a command and without; and --timeout."""
    soon = {"exp": time.time() + 2}
    said = "envelope exec: the envelope's deadline has passed\n"
    assert running.run(f"--url={running.url(**soon)}", "sleep", "60") == (124, "", said)
    assert running.run(f"--url={running.url()}", "-timeout", "0m0.7s", "sleep", "60") == (
        124, "", "envelope exec: --timeout (0.7 s) has passed\n")
    assert running.run(f"--url={running.url(exp=time.time() + 1)}") == (124, "", said)


def test_the_time_is_up_after_the_command(running: Running) -> None:
    """While the server, stopped here, does not answer the close for two seconds."""
    try:
        assert running.run(f"--url={running.url()}", "--timeout=2s", "kill", "-STOP",
                           str(running.pid)) == (0, "", "")
    finally:
        os.kill(running.pid, signal.SIGCONT)


def test_a_step_of_the_wall_clock_ends_nothing(running: Running) -> None:
    """As that of a machine that learns the time some seconds after its boot."""
    done = subprocess.run(
        [sys.executable, "-c", SET_AHEAD, "exec", f"--url={running.url(exp=time.time() + 60)}",
         "sleep", "3"], env=running.environ, capture_output=True, text=True, timeout=PATIENCE,
        cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_that_ignores_sigterm_is_killed(running: Running) -> None:
    began = time.monotonic()
    status, _, _ = running.run(f"--url={running.url()}", "--timeout=1s", "sh", "-c",
                               "trap '' TERM; while :; do sleep 0.1; done")
    assert status == 124
    assert 5 < time.monotonic() - began < 20


def test_the_service_stops(running: Running) -> None:
    with subprocess.Popen([ENVELOPE, "exec", f"--url={running.url()}", "sh", "-c",
                           "echo up; exec sleep 60"], env=running.environ, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "up\n"
        running.stop()
        assert child.stderr.read() == (
            "envelope exec: the envelope ended because its server is stopping\n")
        assert child.wait(PATIENCE) == 124


def test_none_could_be_opened(running: Running) -> None:
    server = f"127.0.0.1:{running.ports[0]}"
    expired = running.url(exp=1)
    assert running.run(f"--url={expired}", "true") == (
        125, "", f"envelope exec: no envelope: {server}: 401 The access token is not valid here.\n")
    wrong = running.url("localhost")
    status, _, err = running.run(f"--url={wrong}", "true")
    assert (status, err.count("\n")) == (125, 1)
    assert "the server's certificate does not prove its name" in err
    status, _, err = running.run(f"--url={wrong}", "--insecure", "true")
    assert (status, err.count("\n")) == (0, 1)
    assert "INSECURE" in err
    for option, scheme in (("--url", "wss"), ("--locate-url", "https")):
        assert running.run(f"{option}=ftp://x/", "true") == (
            2, "", f"envelope exec: {option}: "
                   f"that is not a URL such as {scheme}://host.example/path\n")
    with subprocess.Popen([ENVELOPE, "exec", f"--url={running.url(jti='a')}", "sh", "-c",
                           "echo up; read line"], env=running.environ, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        status, _, err = running.run(f"--url={running.url(jti='b')}", "true")
        assert (status, err.count("\n")) == (125, 1)
        assert err.startswith(f"envelope exec: no envelope: {server}: 503 ")


@pytest.mark.parametrize("number", [
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGWINCH, signal.SIGRTMIN,
])
def test_signals_are_passed_on(tmp_path: Path, number: int) -> None:
    program = ("import signal, sys\n"
               "awaited = {int(sys.argv[1])}\n"
               "signal.pthread_sigmask(signal.SIG_BLOCK, awaited)\n"
               "print('up', flush=True)\nsignal.sigwait(awaited)\nsys.exit(9)\n")
    with Running(tmp_path, tls=False) as running, subprocess.Popen(
        [ENVELOPE, "exec", f"--url={running.url()}", *BARE_PYTHON, "-c", program, str(int(number))],
        env=running.environ, text=True, stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(number)
        assert child.wait(PATIENCE) == 9


def test_an_alarm_set_before_is_the_commands(running: Running) -> None:
    """The kernel sends it to `exec` alone."""
    def alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 1)

    assert running.run(f"--url={running.url()}", "sleep", "60", preexec_fn=alarm)[0] == 142


def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As with `nohup`; and SIGPIPE has its default for the command."""
    show = "grep -E 'SigIgn|SigBlk' /proc/self/status"
    with Running(tmp_path, tls=False) as running:
        command = f"trap '' HUP; exec {ENVELOPE} exec --url='{running.url()}' sh -c \"{show}\""
        done = subprocess.run(["sh", "-c", command], env=running.environ, capture_output=True,
                              text=True, timeout=PATIENCE)
    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    # Without the C library's own and the real-time signals.
    ignored &= (1 << 31) - 1
    assert (blocked, ignored) == (0, 1 << (signal.SIGHUP - 1))


def test_ctrl_c_of_a_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    """A signal that is sent to `exec` after it is passed on behind what `exec` made of Ctrl-C."""
    program = ("import signal, sys\n"
               "awaited = {signal.SIGINT, signal.SIGUSR1}\n"
               "signal.pthread_sigmask(signal.SIG_BLOCK, awaited)\n"
               "print('up', flush=True)\n"
               "while signal.sigwait(awaited) == signal.SIGINT: print('interrupted', flush=True)\n"
               "sys.exit(9)\n")
    ours, its = pty.openpty()
    with Running(tmp_path, tls=False) as running:
        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        with subprocess.Popen(
            [ENVELOPE, "exec", f"--url={running.url(exp=time.time() + 60)}", *BARE_PYTHON, "-c",
             program],
            env=running.environ, text=True, stdin=its, stdout=subprocess.PIPE,
            preexec_fn=take_terminal,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            os.write(ours, b"\x03")
            assert child.stdout.readline() == "interrupted\n"
            child.send_signal(signal.SIGUSR1)
            assert child.stdout.read() == ""
            assert child.wait(PATIENCE) == 9
    os.close(ours)
    os.close(its)


def wait_for_state(pid: int, state: str) -> None:
    """Wait until a process is in a state of /proc/PID/stat, such as T: stopped.

    Only a process's own parent is told of it.
    """
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == state,
               f"{pid} is not in state {state}")


def test_ctrl_z_stops_both_and_they_go_on(tmp_path: Path) -> None:
    with Running(tmp_path, tls=False) as running, subprocess.Popen(
        [ENVELOPE, "exec", f"--url={running.url(exp=time.time() + 60)}", "sh", "-c",
         "echo $$; exec sleep 60"], env=running.environ, text=True, stdout=subprocess.PIPE,
        # Of its own: in an orphaned group, as a background job may be, SIGTSTP stops nothing.
        process_group=0,
    ) as child:
        try:
            assert child.stdout is not None
            command = int(child.stdout.readline())
            for number, state in ((signal.SIGTSTP, "T"), (signal.SIGCONT, "S")):
                child.send_signal(number)
                wait_for_state(child.pid, state)
                wait_for_state(command, state)
            child.terminate()
            assert child.wait(PATIENCE) == 143
        finally:
            # What is stopped would be waited for without end.
            child.kill()


def test_other_descriptors_are_inherited(tmp_path: Path) -> None:
    """As of a shell's `<(...)`."""
    reading, writing = os.pipe()
    os.write(writing, b"through")
    os.close(writing)
    with Running(tmp_path, tls=False) as running:
        assert running.run(f"--url={running.url()}", "cat", f"/dev/fd/{reading}",
                           pass_fds=[reading]) == (0, "through", "")
    os.close(reading)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_without_a_command_it_holds_and_tells_the_service_manager(
    tmp_path: Path, number: int, status: int
) -> None:
    place = tmp_path / "notify"
    with Running(tmp_path, tls=False) as running, closing(
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ) as manager:
        manager.bind(str(place))
        manager.settimeout(PATIENCE)
        with subprocess.Popen(
            [ENVELOPE, "exec", f"--url={running.url(exp=time.time() + 60)}"],
            env={**running.environ, "NOTIFY_SOCKET": str(place)}, stderr=subprocess.PIPE,
        ) as child:
            assert manager.recv(100) == b"READY=1"
            child.send_signal(number)
            assert child.wait(PATIENCE) == status
            assert child.stderr is not None
            assert child.stderr.read() == b""
        running.wait_until_idle()


def test_a_service_manager_that_reads_nothing_holds_nothing_up(running: Running) -> None:
    def datagrams() -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    with closing(datagrams()) as manager, closing(datagrams()) as other:
        manager.bind("")
        other.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"x", manager.getsockname())
        running.environ["NOTIFY_SOCKET"] = f"@{manager.getsockname()[1:].decode()}"
        assert running.run(f"--url={running.url()}", "--timeout=1s")[0] == 124


def test_a_server_that_nothing_comes_back_from(running: Running) -> None:
    """--timeout and Ctrl-C end the attempt to connect."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
        # A backlog of 0 holds this one; the kernel answers no other.
        socket.create_connection(silent.getsockname()),
    ):
        port = silent.getsockname()[1]
        url = f"--url=wss://127.0.0.1:{port}/"
        assert running.run(url, "--timeout=500ms", "true") == (
            125, "", "envelope exec: --timeout (0.5 s) has passed\n")
        assert running.run(f"--locate-url=http://127.0.0.1:{port}/", "-timeout=500ms", "true") == (
            125, "",
            "envelope exec: --timeout (0.5 s) has passed; Locate has not answered\n")
        with subprocess.Popen([ENVELOPE, "exec", url, "true"], env=running.environ,
                              stderr=subprocess.PIPE) as child:
            connecting = f":{port:04X} 02 "
            wait_until(lambda: connecting in Path("/proc/net/tcp").read_text(), "no SYN is sent")
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE) == 130
            assert child.stderr is not None
            assert child.stderr.read() == b""


def test_both_families(running: Running) -> None:
    """One visitor with one slot; without `jti` it is two, and --partial goes on with one."""
    def run(*argv: str, jti: str | None = None) -> tuple[int, str, str]:
        url = running.url("both.example", jti=jti)
        done = subprocess.run(
            [sys.executable, "-c", BOTH, "exec", f"--url={url}", "--family=both", *argv, "sh", "-c",
             "echo $SERVICE_ADDRESS; echo $CLIENT_ADDRESS"],
            env=running.environ, capture_output=True, text=True, timeout=PATIENCE,
            cwd=Path(__file__).parents[2])
        return done.returncode, done.stdout, done.stderr

    # The service has its usual --max-clients=1.
    assert run(jti="one") == (0, "127.0.0.1 ::1\n127.0.0.1 ::1\n", "")
    assert run(jti="two") == (0, "127.0.0.1 ::1\n127.0.0.1 ::1\n", "")
    status, out, err = run()
    assert (status, out, err.count("\n")) == (125, "", 1)
    assert "503" in err
    assert "(over IPv" in err
    status, out, err = run("--partial")
    assert status == 0
    assert out in ("127.0.0.1\n127.0.0.1\n", "::1\n::1\n")
    assert err.startswith("envelope exec: open over one address family only: both.example:")


# -- Locate ----------------------------------------------------------------------------------

class Locate(ThreadingHTTPServer):
    """Answers every request with `status` and `content`; keeps paths and user agents."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.status, self.content = 200, b""
        self.asked: list[tuple[str, str | None]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def option(self) -> str:
        return f"--locate-url=http://127.0.0.1:{self.server_address[1]}/v2/nearest/"

    def offer(self, *urls: str) -> None:
        self.content = json.dumps({"results": [
            {"machine": f"m{number}", "urls": {"wss:///v0/envelope/access": url}}
            for number, url in enumerate(urls)]}).encode()

    def server_close(self) -> None:
        self.shutdown()
        self.thread.join()
        super().server_close()


class _Asked(BaseHTTPRequestHandler):
    server: Locate

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["User-Agent"]))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def locate() -> Iterator[Locate]:
    with Locate() as locate:
        yield locate


def test_the_machines_of_locate_are_tried_in_turn(running: Running, locate: Locate) -> None:
    good, bad = running.url(), running.url(exp=1)
    server = f"127.0.0.1:{running.ports[0]}"
    refused = f"{server}: 401 The access token is not valid here."
    show = "echo $SERVICE_URL"
    locate.offer(bad, good)
    status, out, err = running.run(locate.option, "-service", "a/b", "sh", "-c", show)
    assert (status, out, err) == (0, f"{good}\n", f"envelope exec: open, after {refused}\n")
    assert locate.asked == [("/v2/nearest/a/b", f"envelope/{__version__}")]
    assert running.run(locate.option, "-env-key=wss:///v0/envelope/access", "true")[0] == 0
    locate.offer(bad, "wss://127.0.0.1:1/v0/envelope/access")
    assert running.run(locate.option, "true") == (
        125, "", f"envelope exec: no envelope: {refused}; 127.0.0.1:1: connection refused\n")


def test_what_was_refused_is_said_when_the_time_is_up(running: Running, locate: Locate) -> None:
    bad = running.url(exp=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        locate.offer(bad, f"ws://127.0.0.1:{silent.getsockname()[1]}/v0/envelope/access")
        assert running.run(locate.option, "--timeout=2s", "true") == (
            125, "", f"envelope exec: --timeout (2 s) has passed; 127.0.0.1:{running.ports[0]}: "
                     "401 The access token is not valid here.\n")


def test_locate_names_no_machine(running: Running, locate: Locate) -> None:
    def said() -> str:
        status, out, err = running.run(locate.option, "true")
        assert (status, out, err.count("\n")) == (125, "", 1)
        return err

    locate.status, locate.content = 429, b"<html>slow down</html>"
    assert said() == (
        "envelope exec: Locate answered with 429 (too many requests), and not in JSON\n")
    locate.content = json.dumps({"error": {"title": "Too busy", "detail": "Later.", "status": 429}
                                 }).encode()
    assert said() == "envelope exec: Locate: Too busy: Later. (429)\n"
    locate.status, locate.content = 200, b"x" * 512_001
    assert "larger than 512000 bytes" in said()
