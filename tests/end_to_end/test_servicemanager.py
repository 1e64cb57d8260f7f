"""The service as systemd runs it: inherited sockets, notifications, the journal's priorities."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.harness import BARE_PYTHON, PATIENCE, Service
from tests.support.loopbackservice import TWISTD, port_of

pytestmark = pytest.mark.kernel

# What systemd does between fork and exec; the first argument is the socket's descriptor.
EXEC = """
import os, sys
passed, status, pid = int(sys.argv[1]), os.fstat(2), str(os.getpid())
if passed != 3:
    os.dup2(passed, 3)
    os.close(passed)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients", "LISTEN_PID": pid,
               "WATCHDOG_PID": pid, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
os.execv(sys.argv[2], sys.argv[2:])
"""
LISTEN = "--listen=systemd:domain=INET:index="


class Systemd:
    """A service started as by systemd, with one listening socket on `port`, and its messages."""

    def __init__(self, folder: Path, *options: str) -> None:
        address = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))
        self.socket.settimeout(20)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            self.service = Service(subprocess.Popen(
                [*BARE_PYTHON, "-c", EXEC, str(listening.fileno()), sys.executable, TWISTD, "-n",
                 "--pidfile=", "envelope", "--token-required=false", "--admin=none", *options],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, cwd=folder,
                pass_fds=[listening.fileno()],
                env={**os.environ, "NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "400000",
                     "RUNTIME_DIRECTORY": str(folder / "run")},
            ))

    def until(self, pattern: str) -> str:
        """The next message that matches."""
        while True:
            message = self.socket.recv(4096).decode()
            if re.match(pattern, message):
                return message

    def close(self) -> None:
        process = self.service.process
        process.kill()
        process.wait(PATIENCE)
        self.service.reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
        self.socket.close()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_as_systemd_runs_it(tmp_path: Path, log_format: str) -> None:
    systemd = Systemd(tmp_path, f"{LISTEN}0", f"--log-format={log_format}")
    try:
        assert systemd.until("") == "READY=1"
        assert systemd.until("STATUS") == "STATUS=sessions: 0, slots: 0 of 1"
        assert port_of(systemd.service) == systemd.port
        with socket.create_connection(("127.0.0.1", systemd.port), PATIENCE) as client:
            client.sendall(
                b"GET /v0/envelope/access HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: aGVsbG8K\r\n\r\n"
            )
            assert client.recv(12) == b"HTTP/1.1 101"
            assert systemd.until("STATUS") == "STATUS=sessions: 1, slots: 1 of 1"
        systemd.until("WATCHDOG=1$")
        systemd.service.process.send_signal(signal.SIGHUP)
        systemd.until(r"RELOADING=1\nMONOTONIC_USEC=\d+$")
        systemd.until("READY=1$")
        assert systemd.service.stop() == 0
        systemd.until("STOPPING=1")
        while systemd.service.next() is not None:
            pass
        seen = systemd.service.seen
        assert all(re.match("<[0-7]>", line) for line in seen), seen
        assert [line[:3] for line in seen if "INSECURE" in line] == ["<4>"]
    finally:
        systemd.close()


def test_a_failed_start_is_an_error_in_the_journal(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, f"{LISTEN}7")
    try:
        assert systemd.service.ended() == 1
        systemd.service.until("^<3>envelope: cannot listen on systemd:.*: no such socket")
    finally:
        systemd.close()
