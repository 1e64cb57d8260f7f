"""One visitor over both families, tokens that are used up, and what the log says of either."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import PATIENCE, UPGRADE
from tests.end_to_end.serviceprocess import ServiceProcess

pytestmark = pytest.mark.process

ACCESS = "/v0/envelope/access?access_token="
HOME, NEIGHBOUR, AWAY, SIX = "127.0.0.1", "127.0.0.2", "127.0.1.1", "::1"
HOSTILE = "x\n2026-11-28T00:00:00+0000 [envelope#info] ready \x1b[2J \u202e"


class Door:
    """A service over both families with options of its own, and the clients that it let in."""

    def __init__(self, running: ServiceProcess) -> None:
        self.running = running
        self._numbers = count()

    def fresh(self) -> str:
        """A jti that no token had before."""
        return f"visitor-{next(self._numbers)}"

    def ask(self, source: str, **claims: Any) -> tuple[int, socket.socket]:
        """The answer's status, and the connection; the client connects from `source`."""
        token = self.running.token(**claims).decode()
        ports = self.running.ports
        to = ("::1", ports[1]) if ":" in source else ("127.0.0.1", ports[0])
        connection = socket.create_connection(to, PATIENCE, (source, 0))
        head = "\r\n".join((f"GET {ACCESS}{token} HTTP/1.1", "Host: x", *UPGRADE, "", ""))
        connection.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(4096)
        return int(answer[9:12]), connection

    def status(self, source: str, **claims: Any) -> int:
        """The answer's status to a client that leaves at once."""
        status, connection = self.ask(source, **claims)
        connection.close()
        return status

    def visit(self, source: str, **claims: Any) -> int:
        """The same; and its slot, if it got one, is free again."""
        status = self.status(source, **claims)
        self.running.wait_until_idle()
        return status

    def metric(self, name: str) -> float:
        return self.running.metrics()[name]


def opened(folder: Path, *options: str) -> Iterator[Door]:
    """A door whose service is killed at the end."""
    with ServiceProcess(
        folder, *options, "--control=none", listen=("127.0.0.1:0", "[::1]:0"), tls=False,
    ) as running:
        yield Door(running)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    yield from opened(tmp_path_factory.mktemp("door"), "--log-format=json",
                      "--log-claim=integration", "--log-claim=size")


@pytest.fixture(scope="module", params=[("once", "none"), ("network", "network")])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Door, str]]:
    """A door, and its `--token-use`."""
    use, shown = request.param
    folder = tmp_path_factory.mktemp("door")
    for door in opened(
        folder, f"--token-use={use}", f"--log-addresses={shown}", "--grant-prefix4=24"
    ):
        yield door, use


def test_a_visitor_over_both_families_takes_one_slot(plain: Door) -> None:
    """There is one; everyone else, the visitor itself over the same family too, is refused."""
    jti = plain.fresh()
    status, four = plain.ask(HOME, jti=jti)
    assert status == 101
    assert plain.status(SIX, jti=plain.fresh()) == 503
    assert plain.status(SIX, jti=None) == 503
    assert plain.status(SIX, jti=jti, sub="monitoring") == 503
    assert plain.status(HOME, jti=jti) == 503
    status, six = plain.ask(SIX, jti=jti)
    assert status == 101
    assert plain.metric("envelope_slots_used") == 1
    families = ("ipv4", "ipv6")
    assert [plain.metric(f'envelope_sessions{{family="{f}"}}') for f in families] == [1, 1]
    four.close()
    assert plain.status(HOME, jti=plain.fresh()) == 503
    six.close()
    plain.running.wait_until_idle()
    assert plain.metric("envelope_slots_used") == 0
    assert plain.visit(HOME, jti=None) == 101


def test_a_sessions_events_carry_what_its_token_says(plain: Door) -> None:
    """Texts that could harm the log are left out, and the client is let in all the same."""
    jti = plain.fresh()
    assert plain.visit(SIX, jti=jti, integration="a b", size=2.5, other="y") == 101
    assert plain.visit(HOME, jti=HOSTILE, integration=HOSTILE, size=True) == 101
    assert plain.visit(HOME, jti="x" * 900, integration="x" * 65, size=[1]) == 101
    assert plain.visit(HOME, jti=plain.fresh(), exp=1) == 401
    ended: list[dict[str, Any]] = []
    refused: dict[str, Any] = {}
    while not (ended and refused):
        told = json.loads(plain.running.service.next() or "")
        if told["message"].startswith("refused with 401"):
            refused = told
        elif "ended" in told["message"] and (ended or told["jti"] == jti):
            ended.append(told)
    lines = [json.loads(line) for line in plain.running.service.seen]
    assert refused | {"address": HOME, "status": 401, "reason": "expired"} == refused
    first = ended[0]
    assert first["claims"] == {"integration": "a b", "size": 2.5}
    assert first | {"address": SIX, "subject": "ndt", "end": "lost"} == first
    assert first["seconds"] >= 0
    opened = next(line for line in lines if line.get("id") == first["id"])
    assert opened["message"] == (
        f"session {first['id']} from ::1 opened for {opened['seconds']:.0f} s; "
        f'subject="ndt" jti="{jti}" integration="a b" size=2.5'
    )
    others = [line for line in lines if "ended" in line["message"]][-2:]
    assert [(line["jti"], line["claims"]) for line in others] == [(None, {}), (None, {})]
    log = "".join(plain.running.service.seen)
    assert "\\u202e" not in log
    assert "x" * 65 not in log


def test_a_token_serves_once_or_one_network(guarded: tuple[Door, str]) -> None:
    """Over each family; the log shows no more of an address than it may."""
    door, use = guarded
    jti = door.fresh()
    again = 101 if use == "network" else 401
    assert door.visit(HOME, jti=jti) == 101
    assert door.visit(HOME, jti=jti) == again
    assert door.visit(NEIGHBOUR, jti=jti) == again
    assert door.visit(AWAY, jti=jti) == 401
    assert door.visit(SIX, jti=jti) == 101
    assert door.visit(SIX, jti=jti) == again
    assert door.visit(HOME, jti=None) == 401
    rejected = 'controller_access_token_requests_total{path="/v0/envelope/access",'
    counted = {
        reason: door.metric(f'{rejected}reason="{reason}",request="rejected"}}')
        for reason in ("replayed", "claims")
    }
    assert counted == {"replayed": 1 if use == "network" else 4, "claims": 1}
    log = door.running.stop()
    lines = [line for line in log if "envelope.sessions" in line or "refused with" in line]
    assert any("ended after" in line for line in lines)
    assert any(f"at {'-' if use == 'once' else '127.0.1.0/24'}: " in line for line in lines)
    assert not [line for line in lines if "127.0.0.1" in line or "::1" in line]
    assert any("listening on" in line and "127.0.0.1" in line for line in log)
