"""The real service through twistd on one host, real clients on another."""

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
# For programs of the standard library alone: they start fast, and `-S` keeps coverage out of them,
# which would take a fifth of a second of a processor each.
BARE_PYTHON = (sys.executable, "-IS")
PATH = "/v0/envelope/access"
PATIENCE = 60.0
UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: aGVsbG8K",
)


# Every kind of tool that the service drives the kernel with; what a test does over its two kinds
# of iptables alone does not depend on the backend.
every_kind = pytest.mark.parametrize("rig", ["nft", "legacy", "nftables"], indirect=True)


class Lines:
    """What a child process prints, a line at a time, as it comes."""

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
        """The next line; None at the end; an `AssertionError` if nothing comes in time."""
        try:
            line = self._queue.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"nothing within {patience} s after {self.seen[-5:]}") from None
        if line is not None:
            self.seen.append(line)
        return line

    def until(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Read on to a line that matches."""
        while (line := self.next(patience)) is not None:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"{pattern!r} never came; the last lines: {self.seen[-15:]}")


class Client(Lines):
    """One client's connection; events are dicts as `clientprogram.py` prints them."""

    def event(self, patience: float = PATIENCE) -> dict[str, Any]:
        """What happens next."""
        line = self.next(patience)
        return {"event": "gone"} if line is None else json.loads(line)

    def tell(self, word: str) -> None:
        """Make the client do something: close, data, ping, leave."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


class Service(Lines):
    """A running twistd."""

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status."""
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        return self.process.wait(PATIENCE)


class Rig:
    """A lab with keys, a certificate and a service to be started in it."""

    def __init__(self, lab: NetLab, folder: Path, kind: str = "nft") -> None:
        self.lab, self.folder, self.kind = lab, folder, kind
        self.key = make_key(folder)
        write_certificate(folder)
        if kind == "legacy":
            # Once made, a legacy table stays until its namespace goes: nothing can take it back.
            for tool in ("iptables-legacy", "ip6tables-legacy"):
                lab.host.run([tool, "-S"], check=True)
        self._children: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []

    def options(self, *more: str) -> list[str]:
        """The options of a common start."""
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
        """An access token."""
        return sign(key or self.key, lasts, **claims)

    def twistd(
        self, *options: str, env: dict[str, str] | None = None, by: Sequence[str] = (),
        python: str | Path = sys.executable, own: Sequence[str] = (),
    ) -> Service:
        """Start twistd with exactly these options, and do not wait.

        `by` goes before the command, `own` are twistd's own options.
        """
        twistd = Path(sys.executable).with_name("twistd")
        process = self.lab.host.popen(
            [*by, python, twistd, "-n", "--pidfile=", *own, "envelope", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
            cwd=self.folder, **({} if env is None else {"env": env}),
        )
        return self.keep(Service(process))

    def start(self, *more: str, **how: Any) -> Service:
        """Start the service, and wait until it is ready; `how` as `twistd` takes it."""
        service = self.twistd(*self.options(*more), **how)
        service.until(r"\bready$")
        return service

    def client(
        self, token: str | None = None, *, headers: tuple[str, ...] = (), path: str | None = None,
        to: str | None = None, host: Any = None, secure: str = "tls", port: int = 8880,
        before: bytes = b"", source: str = "", patience: float = PATIENCE,
    ) -> Client:
        """Connect from another host; the first event is the answer.

        `before` goes out in front of everything, TLS included. `source` is the address to connect
        from. After `patience` seconds without an answer the client gives up.
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
        """Both families' rules, without what changes by itself."""
        text = ""
        if self.kind == "nftables":
            return self.lab.host.run(["nft", "-s", "list", "ruleset"], check=True).stdout
        for tool in (f"iptables-{self.kind}-save", f"ip6tables-{self.kind}-save"):
            text += self.lab.host.run([tool], check=True).stdout
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in lines)

    def grants(self) -> str:
        """The lines that let networks in, among the rules."""
        sign = "timeout " if self.kind == "nftables" else "datestop"
        return "\n".join(line for line in self.saved().splitlines() if sign in line)

    def drops(self) -> bool:
        """Whether what no rule lets in is dropped."""
        if self.kind == "nftables":
            return "hook input priority filter; policy drop;" in self.saved()
        return ":INPUT DROP" in self.saved()

    def serve(self, port: int) -> None:
        """Something worth measuring, on the host's `port` of both families."""
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
        """Whether a packet of the client's gets through to the host's `port`."""
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
        """End this child, too, when all ends."""
        self._children.append(lines.process)
        self._readers.append(lines.reader)
        return lines

    def close(self) -> None:
        """End whatever still runs."""
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
