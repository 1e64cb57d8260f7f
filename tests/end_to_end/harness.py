"""The real service, run by twistd on one host, and real clients on another."""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jwcrypto import jwk

from envelope.lab import NetLab
from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, make_key, sign, write_certificate

HERE = Path(__file__).parent
# Runs programs of the standard library: they start fast, and `-S` keeps coverage out of them, which
# would cost 0.2 s of CPU each.
BARE_PYTHON = (sys.executable, "-IS")
PATH = "/v0/envelope/access"
PATIENCE = 60.0
UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: aGVsbG8K",
)


# For tests that depend on the backend; the others run with the two kinds of iptables only.
every_kind = pytest.mark.parametrize("rig", ["nft", "legacy", "nftables"], indirect=True)


class Lines:
    """The output of a child process, line by line; `seen` keeps the lines that were read."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def next(self, patience: float = PATIENCE) -> str | None:
        """The next line, None at the end; an `AssertionError` after `patience` seconds."""
        try:
            line = self._queue.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"nothing within {patience} s after {self.seen[-5:]}") from None
        if line is not None:
            self.seen.append(line)
        return line

    def until(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Read until a line matches `pattern`; returns the match."""
        while (line := self.next(patience)) is not None:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"{pattern!r} was not printed; the last lines: {self.seen[-15:]}")


class Client(Lines):
    """One client's connection, made by `clientprogram.py`; events are dicts as it prints them."""

    def event(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The next event; an `AssertionError` after `patience` seconds."""
        line = self.next(patience)
        return {"event": "gone"} if line is None else json.loads(line)

    def tell(self, word: str) -> None:
        """Send the client an order: close, data, ping, leave."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


class Service(Lines):
    """A running twistd."""

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Send it a signal, wait for its end, and return its exit status."""
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        return self.process.wait(PATIENCE)


class Rig:
    """A lab with two hosts, a certificate and keys, in which services and clients are started.

    `kind` is the kind of tool: nft, legacy or nftables. `close` ends all programs.
    """

    def __init__(self, lab: NetLab, folder: Path, kind: str = "nft") -> None:
        self.lab, self.folder, self.kind = lab, folder, kind
        self.key = make_key(folder)
        write_certificate(folder)
        if kind == "legacy":
            # A legacy table stays until its namespace ends, so it is made before any comparison.
            for tool in ("iptables-legacy", "ip6tables-legacy"):
                lab.host.run([tool, "-S"], check=True)
        self._children: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []

    def options(self, *more: str) -> list[str]:
        """The options of a usual start, and `more`."""
        folder = self.folder
        return [
            f"--cert={folder / 'cert.pem'}", f"--key={folder / 'key.pem'}",
            f"--verify-key={folder / 'key.pub'}", f"--machine={MACHINE}", f"--subject={SUBJECT}",
            *self._backend(), *more,
        ]

    def _backend(self) -> list[str]:
        if self.kind == "nftables":
            return ["--firewall=nftables"]
        return [f"--iptables=/usr/sbin/iptables-{self.kind}",
                f"--ip6tables=/usr/sbin/ip6tables-{self.kind}"]

    def token(self, lasts: float = 60, key: jwk.JWK | None = None, **claims: Any) -> str:
        """An access token; see `credentialfiles.sign`."""
        return sign(key or self.key, lasts, **claims)

    def twistd(
        self, *options: str, env: dict[str, str] | None = None, by: Sequence[str] = (),
        python: str | Path = sys.executable, own: Sequence[str] = (),
    ) -> Service:
        """Start twistd with exactly these options of the service, without waiting.

        `by` is put before the command, `own` are twistd's own options.
        """
        twistd = Path(sys.executable).with_name("twistd")
        process = self.lab.host.popen(
            [*by, python, twistd, "-n", "--pidfile=", *own, "envelope", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
            cwd=self.folder, **({} if env is None else {"env": env}),
        )
        return self.keep(Service(process))

    def start(self, *more: str, **how: Any) -> Service:
        """Start the service with the usual options and `more`, and wait until it is ready."""
        service = self.twistd(*self.options(*more), **how)
        service.until(r"\bready$")
        return service

    def client(
        self, token: str | None = None, *, headers: tuple[str, ...] = (), path: str | None = None,
        to: str | None = None, host: Any = None, secure: str = "tls", port: int = 8880,
        before: bytes = b"", source: str = "", patience: float = PATIENCE,
    ) -> Client:
        """Connect from the client host; the first event is the answer.

        `before` is sent first, before TLS. `source` is the address to connect from. After
        `patience` seconds without an answer the client gives up.
        """
        if path is None:
            path = PATH if token is None else f"{PATH}?access_token={token}"
        settings = {
            "host": to or self.lab.host.address4, "port": port, "path": path, "secure": secure,
            "before": before.hex(), "source": source, "patience": patience,
        }
        process = (host or self.lab.client()).popen(
            [*BARE_PYTHON, HERE / "clientprogram.py", json.dumps(settings), *headers],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        return self.keep(Client(process))

    def saved(self) -> str:
        """All rules as text, without the parts that change by themselves (counters, times)."""
        text = ""
        if self.kind == "nftables":
            return self.lab.host.run(["nft", "-s", "list", "ruleset"], check=True).stdout
        for tool in (f"iptables-{self.kind}-save", f"ip6tables-{self.kind}-save"):
            text += self.lab.host.run([tool], check=True).stdout
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in lines)

    def grants(self) -> str:
        """The rules' lines that let networks in."""
        sign = "timeout " if self.kind == "nftables" else "-j ENVELOPE-END-"
        return "\n".join(line for line in self.saved().splitlines() if sign in line)

    def drops(self) -> bool:
        """Whether the default drop is in force."""
        if self.kind == "nftables":
            return "hook input priority filter; policy drop;" in self.saved()
        return ":INPUT DROP" in self.saved()

    def serve(self, port: int) -> None:
        """Start a TCP server on the host's `port`, for both address families."""
        program = (
            "import socket, sys\n"
            "s = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6, "
            "dualstack_ipv6=True)\nprint('up', flush=True)\n"
            "while True:\n    c, _ = s.accept()\n    c.sendall(b'measured')\n    c.close()\n"
        )
        process = self.lab.host.popen(
            [*BARE_PYTHON, "-c", program, str(port)], stdout=subprocess.PIPE, text=True
        )
        self._children.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

    def reaches(self, port: int, to: str | None = None, source: str = "") -> bool:
        """Whether the client host can connect to `port` of a server made by `serve`, within 2 s."""
        program = (
            "import socket, sys\n"
            "try:\n    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2, "
            "(sys.argv[3], 0) if sys.argv[3] else None)\n"
            "    sys.exit(s.recv(99) != b'measured')\nexcept OSError:\n    sys.exit(1)\n"
        )
        done = self.lab.client().run(
            [*BARE_PYTHON, "-c", program, to or self.lab.host.address4, str(port), source]
        )
        return done.returncode == 0

    def keep(self, lines: Any) -> Any:
        """Let `close` end this child too; returns it."""
        self._children.append(lines.process)
        self._readers.append(lines.reader)
        return lines

    def close(self) -> None:
        """End all programs that still run."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
