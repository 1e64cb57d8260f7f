"""The real service on this machine's loopback, and raw sockets to send it any bytes.

It manages no rules (`--firewall=none`), but requires access tokens.
"""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, make_key, sign, write_certificate
from tests.end_to_end.harness import PATIENCE, Service
from tests.support.polling import wait_until

_LISTENING = r"listening on .*port=(\d+)[,)]"
_ADMIN = r"metrics and health on .*port=(\d+)\)"
_STATUS = r"status page on .*port=(\d+)\)"
_GONE = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class ServiceProcess:
    """A running service; a context manager that kills it at the end.

    `listen` are its listeners, `ports` their ports in the same order; `own` are twistd's options.
    """

    def __init__(
        self, folder: Path, *options: str, listen: tuple[str, ...], tls: bool,
        own: tuple[str, ...] = (),
    ) -> None:
        self.tls = tls
        self.key = make_key(folder)
        write_certificate(folder)
        command = [
            sys.executable, str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=",
            *own, "envelope", "--firewall=none", f"--verify-key={folder / 'key.pub'}",
            f"--machine={MACHINE}", f"--subject={SUBJECT}", "--admin=tcp:0:interface=127.0.0.1",
            "--status=tcp:0:interface=127.0.0.1",
            *(f"--listen={place}" for place in listen), *options,
        ]
        if tls:
            command += [f"--cert={folder / 'cert.pem'}", f"--key={folder / 'key.pem'}"]
        self.service = Service(subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
            cwd=folder,
        ))
        try:
            self.ports = [int(self.service.until(_LISTENING)[1]) for _ in listen]
            self.admin_port = int(self.service.until(_ADMIN)[1])
            self.status_port = int(self.service.until(_STATUS)[1])
            self.service.until(r"\bready(?:\"})?$")
            self._idle = self.sockets()
        except BaseException:
            self.__exit__()
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.service.process.pid

    def token(self, **claims: Any) -> bytes:
        """An access token that is valid for a minute."""
        return sign(self.key, **claims).encode()

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name with its labels."""
        with urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=PATIENCE) as page:
            lines = page.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def connections(self) -> dict[str, int]:
        """The number of connections by state; states without any are left out."""
        found = {
            match[1]: int(value) for name, value in self.metrics().items()
            if (match := re.fullmatch(r'envelope_connections\{state="(\w+)"\}', name))
        }
        return {state: number for state, number in found.items() if number}

    def dropped(self) -> dict[str, int]:
        """The number of dropped connections by reason."""
        return {
            match[1]: int(value) for name, value in self.metrics().items()
            if (match := re.fullmatch(r'envelope_connections_dropped_total\{reason="(.+)"\}', name))
        }

    def sockets(self) -> int:
        """The number of sockets that the process has open."""
        links = list(Path(f"/proc/{self.pid}/fd").iterdir())
        targets = []
        for link in links:
            with suppress(FileNotFoundError):
                targets.append(str(link.readlink()))
        return sum(target.startswith("socket:") for target in targets)

    def wait_until_idle(self) -> None:
        """Wait until no connection is left, and no more sockets than at the start."""
        wait_until(
            lambda: not self.connections() and self.sockets() <= self._idle,
            lambda: f"left: {self.connections()}, and {self.sockets()} sockets",
        )

    def connect(self, port: int = 0) -> socket.socket:
        """A TCP connection to listener number `port`."""
        return socket.create_connection(("127.0.0.1", self.ports[port]), PATIENCE)

    def open_stream(self, port: int = 0, before: bytes = b"") -> socket.socket:
        """A connection after its TLS handshake, if the service has TLS; `before` is sent first."""
        plain = self.connect(port)
        plain.sendall(before)
        if not self.tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain, suppress_ragged_eofs=False)

    def exchange(self, data: bytes, port: int = 0, before: bytes = b"") -> bytes:
        """Send `data` on a new connection; returns all bytes until the service closes it."""
        with closing(self.open_stream(port, before)) as stream:
            with suppress(*_GONE):
                stream.sendall(data)
            return until_end(stream)

    def stop(self) -> list[str]:
        """Stop it with SIGTERM, check its exit status, and return the whole log."""
        status = self.service.stop(signal.SIGTERM)
        while self.service.next() is not None:
            pass
        assert status == 0, self.service.seen
        return self.service.seen

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.process.kill()
        self.service.process.wait()
        self.service.reader.join(PATIENCE)
        assert self.service.process.stdout is not None
        self.service.process.stdout.close()


def until_end(stream: socket.socket) -> bytes:
    """All bytes until the other side closes; a time-out is an error."""
    received = b""
    with suppress(*_GONE):
        while more := stream.recv(65536):
            received += more
    return received


def describe(answer: bytes) -> dict[str, Any]:
    """An answer's `status` (0: no answer), names of `headers`, and `body`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return {"status": 0, "headers": [], "body": b""}
    first, *rest = head.split(b"\r\n")
    names = [line.partition(b":")[0].decode().lower() for line in rest]
    return {"status": int(first[9:12]), "headers": names, "body": body}



