"""A service whose clients can have any address, with its status page on the loopback.

It runs in the network of the tests and guards a device that nothing is connected to. Its clients
connect over the loopback, and say in a PROXY header where they come from.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, make_key, sign, write_certificate
from tests.end_to_end.harness import PATH, PATIENCE, UPGRADE, Service
from tests.support.environment import need_own_network

DEVICE, PEER = "watched0", "watched1"
PORT = 8443


# Runs the service again for each line of its standard input that comes after the service has ended.
# Each time it says the service's process id first.
AGAIN = """
while sh -c 'echo "process $$"; exec "$@"' sh "$@"; do read -r _ || exit 0; done
exit 1
"""


class Watched:
    """A running service; `folder` has its files.

    `page` is the address of its status page, `sessions` are the connections of its clients.
    """

    page = "127.0.0.1:8881"
    admin = "127.0.0.1:9990"

    def __init__(self, folder: Path, *options: str) -> None:
        self.key = make_key(folder)
        write_certificate(folder)
        self.sessions: list[socket.socket] = []
        self._secure = ssl.create_default_context()
        self._secure.check_hostname = False
        self._secure.verify_mode = ssl.CERT_NONE
        self.service = Service(subprocess.Popen(
            ["sh", "-c", AGAIN, "sh", sys.executable, Path(sys.executable).with_name("twistd"),
             "-n", "--pidfile=", "envelope", f"--listen=haproxy:tcp:{PORT}:interface=127.0.0.1",
             f"--cert={folder / 'cert.pem'}", f"--key={folder / 'key.pem'}",
             f"--verify-key={folder / 'key.pub'}", f"--machine={MACHINE}",
             f"--subject={SUBJECT}", f"--device={DEVICE}", "--firewall=nftables", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            bufsize=1, cwd=folder,
        ))
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the service has started."""
        self.pid = int(self.service.until(r"process (\d+)")[1])
        self.service.until(r"\bready$")

    def stop(self) -> None:
        """Stop the service, and wait until it has ended."""
        os.kill(self.pid, signal.SIGTERM)
        self.service.until("Server Shut Down")

    def start(self) -> None:
        """Start the service again."""
        self._input.write("\n")
        self._input.flush()
        self.wait_until_ready()

    @property
    def _input(self) -> IO[str]:
        assert self.service.process.stdin is not None
        return self.service.process.stdin

    def close(self) -> None:
        """Stop the service for good."""
        self.leave()
        self.stop()
        self._input.close()
        assert self.service.ended() == 0
        self.service.reader.join(PATIENCE)
        assert self.service.process.stdout is not None
        self.service.process.stdout.close()

    def get(self, path: str, site: str = page, host: str = "") -> tuple[int, str]:
        """The status and the text of a path on the status page, or on another site."""
        request = urllib.request.Request(
            f"http://{site}{path}", headers={"Host": host} if host else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        """The `/status` object."""
        told: dict[str, Any] = json.loads(self.get("/status")[1])
        return told

    def ask(self, address: str, lasts: float = 60, token: str = "", **claims: Any) -> int:
        """Connect from `address` and ask to be let in; the status. 101 opens a session."""
        token = token or sign(self.key, lasts, **{"jti": address, **claims})
        family = "TCP6" if ":" in address else "TCP4"
        to = "2001:db8::1" if ":" in address else "192.0.2.1"
        plain = socket.create_connection(("127.0.0.1", PORT), PATIENCE)
        try:
            plain.sendall(f"PROXY {family} {address} {to} 50000 443\r\n".encode())
            connection = self._secure.wrap_socket(plain)
        except OSError:
            plain.close()
            raise
        lines = [f"GET {PATH}?access_token={token} HTTP/1.1", f"Host: {MACHINE}", *UPGRADE]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = int(connection.recv(4096).split()[1])
        if status == 101:
            self.sessions.append(connection)
        else:
            connection.close()
        return status

    def leave(self, how_many: int | None = None) -> None:
        """Let the clients that came first disconnect, or all of them."""
        gone = self.sessions[:how_many]
        del self.sessions[:how_many]
        for each in gone:
            with suppress(OSError):
                each.close()


@contextmanager
def watched(folder: Path, options: Sequence[str] = ()) -> Iterator[Watched]:
    """A context manager: the service runs, and ends with the block."""
    need_own_network()
    subprocess.run(["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", PEER], check=True)
    try:
        running = Watched(folder, *options)
        try:
            yield running
        finally:
            running.close()
    finally:
        subprocess.run(["ip", "link", "delete", DEVICE], check=True)
