"""All clients at once against one service; what each of them saw.

Each one, over IPv4 and over IPv6:

- holds an envelope in silence, with and without the sub-protocol, and closes it;
- holds one until the deadline, and one until the service stops;
- is refused for want of a valid token, and for want of a slot.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from envelope.protocol import ACCESS_PATH, SUBPROTOCOL
from tests.end_to_end.serviceprocess import ServiceProcess
from tests.interop.clients import Client, environment
from tests.support.certificates import Authority

# Seconds that a client holds its envelope; that one with a deadline has; that anything may take.
HELD, DEADLINE, PATIENCE = 30.0, 12.0, 60.0
HOSTS = {"IPv4": "127.0.0.1", "IPv6": "[::1]"}
CASES = ("held", "plain", "deadline", "stop", "no token", "no slot")


@dataclass
class Outcome:
    """What a client saw of one connection."""

    protocol: str | None = None
    noise: list[str] = field(default_factory=list)
    status: int | None = None
    code: str = ""
    reason: str = ""
    given_up: bool = False  # the program has ended

    @property
    def settled(self) -> bool:
        """Whether it is open, or was, or was refused."""
        return self.protocol is not None or self.over

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.status is not None or self.given_up

    def text(self, offered: str) -> str:
        """In a few words."""
        if self.status is None:
            return "no end"
        if self.status != 101:
            return str(self.status) if self.status else "refused"
        words = f"{self.code} {self.reason}".strip() or "disconnected"
        if self.protocol != offered:
            words += f", sub-protocol {self.protocol or 'missing'}"
        return ", ".join([words, *(f"received {each}" for each in self.noise)])


class Peer:
    """A running client; `outcomes` are by case and address family."""

    def __init__(self, client: Client, authority: Path, told: threading.Condition) -> None:
        self.client = client
        self.version = ""
        self.gone = False
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self._numbers: list[Outcome] = []
        self._told = told
        self._process = subprocess.Popen(
            [*client.command, authority], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(authority),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def ready(self) -> bool:
        """Whether it can take jobs, or has ended already."""
        return bool(self.version) or self.gone

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._told:
                self._take(*line.rstrip("\n").split("\t"))
                self._told.notify_all()
        with self._told:
            self.gone = True
            for outcome in self._numbers:
                outcome.given_up = True
            self._told.notify_all()

    def _take(self, word: str, *rest: str) -> None:
        if word == "ready":
            self.version = rest[0]
            return
        outcome = self._numbers[int(rest[0])]
        if word == "open":
            outcome.protocol = rest[1]
        elif word == "noise":
            outcome.noise.append(rest[1])
        else:
            outcome.status, outcome.code, outcome.reason = int(rest[1]), rest[2], rest[3]

    def begin(self, case: str, family: str, url: str) -> Outcome:
        """Give it a job."""
        outcome = self.outcomes[case, family] = Outcome()
        self._numbers.append(outcome)
        hold = str(HELD) if case in ("held", "plain") else ""
        words = [str(len(self._numbers) - 1), offered(case), hold, url]
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        return outcome

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def cells(self) -> list[str]:
        """What it saw in each case; over both families in one cell if it was the same."""
        return [self._cell(case) for case in CASES]

    def _cell(self, case: str) -> str:
        texts = {
            family: self.outcomes[case, family].text(offered(case))
            if (case, family) in self.outcomes else "not begun"
            for family in HOSTS
        }
        first, *others = texts.values()
        if all(each == first for each in others):
            return first
        return "; ".join(f"{family}: {text}" for family, text in texts.items())


def offered(case: str) -> str:
    """The sub-protocol that is offered in a case."""
    return "" if case == "plain" else SUBPROTOCOL


class Interop:
    """The service and the clients; a context manager."""

    def __init__(self, folder: Path, clients: Sequence[Client]) -> None:
        self._told = threading.Condition()
        self._stack = ExitStack()
        authority = Authority(folder)
        cert, key = authority.issue("127.0.0.1", "::1")
        self._slots = 8 * len(clients)
        with self._stack:
            self._service = self._stack.enter_context(ServiceProcess(
                folder, "--timeout=1s", f"--max-clients={self._slots}", f"--cert={cert}",
                f"--key={key}", listen=(":0",), tls=False))
            # It has the certificate that the options name.
            self._service.tls = True
            self.peers = [
                self._closed_at_the_end(Peer(each, authority.path, self._told)) for each in clients
            ]
            self._stack = self._stack.pop_all()

    def _closed_at_the_end(self, peer: Peer) -> Peer:
        self._stack.callback(peer.close)
        return peer

    def __enter__(self) -> Interop:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """Go through all cases, in a little more than `HELD` seconds."""
        self._wait(lambda: all(peer.ready for peer in self.peers))
        held, plain, stop = (
            self._begin(case, lasts=2 * PATIENCE) for case in ("held", "plain", "stop")
        )
        refused = self._begin("no token", lasts=-1)
        deadline = self._begin("deadline", lasts=DEADLINE)
        self._wait_for([*held, *plain, *stop, *refused, *deadline], lambda each: each.settled)
        self._wait_for([*refused, *deadline], lambda each: each.over)
        with ExitStack() as fillers:
            self._fill(fillers)
            full = self._begin("no slot", lasts=2 * PATIENCE)
            self._wait_for(full, lambda each: each.over)
        self._wait_for(held + plain, lambda each: each.over)
        self._service.stop()
        self._wait_for(stop, lambda each: each.over)

    def _begin(self, case: str, lasts: float) -> list[Outcome]:
        return [
            peer.begin(case, family, self._url(case, host, lasts))
            for peer in self.peers if peer.version for family, host in HOSTS.items()
        ]

    def _url(self, case: str, host: str, lasts: float) -> str:
        token = self._service.token(exp=time.time() + lasts, jti=None).decode()
        return f"wss://{host}:{self._service.ports[0]}{ACCESS_PATH}?access_token={token}"

    def _fill(self, stack: ExitStack) -> None:
        """Take every slot that is free."""
        for _ in range(self._slots):
            stream = stack.enter_context(self._service.open_stream())
            target = self._url("", "127.0.0.1", 2 * PATIENCE).partition("/v0/")[2]
            stream.sendall(
                f"GET /v0/{target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: aGVsbG8K\r\n\r\n".encode())
            if stream.recv(65536).startswith(b"HTTP/1.1 503 "):
                return
        raise AssertionError("the service does not run out of slots")

    def _wait_for(self, outcomes: list[Outcome], done: Callable[[Outcome], bool]) -> None:
        self._wait(lambda: all(map(done, outcomes)))

    def _wait(self, done: Callable[[], bool]) -> None:
        """Wait for it, but not for ever: what is missing then shows in the table."""
        with self._told:
            self._told.wait_for(done, PATIENCE)
