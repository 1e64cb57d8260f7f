"""Floods against the real service over TLS: good clients get in, and no connection is left.

A good client gives up after two seconds, as clients in the field do. On a busy machine that time is
multiplied by the load for each processor. All other checks are counts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from envelope.config import Config
from envelope.lab import LabUnavailable, NetLab
from envelope.runtime.accepting import BATCH
from envelope.runtime.descriptors import RESERVE
from tests.end_to_end.harness import BARE_PYTHON, HERE, PATIENCE, Client, Rig
from tests.support.environment import need

pytestmark = pytest.mark.kernel

NEAR, FAR, IN = "203.0.113.7", "203.0.113.8", "203.0.113.9"
# Source addresses of a flood: one host, or as many networks as a small botnet has.
ONE = (NEAR,)
MANY = tuple(f"203.0.113.{number}" for number in range(50, 250))
MOST = Config()
SOAK = 15.0  # seconds
MOST_MEMORY = 300 << 20


class Flooded(Rig):
    """A lab with a service, floods against it, and good clients."""

    def __init__(self, lab: NetLab, folder: Path) -> None:
        super().__init__(lab, folder)
        for address in (FAR, IN, *MANY):
            lab.client().add_address(address)

    def open(self, *options: str) -> None:
        """Start the service, and note its state while it is idle."""
        self.service = self.start("--max-clients=3", "--timeout=60s", *options)
        self.calm = self.look()

    def flood(self, kind: str, number: int, sources: tuple[str, ...]) -> subprocess.Popen[str]:
        """Start a flood (see `floodprogram`), and wait until all its connections were opened."""
        process = self.lab.client().popen(
            [*BARE_PYTHON, HERE / "floodprogram.py", kind, str(number), self.lab.host.address4,
             "8880", *sources],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        self._children.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def end_flood(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """End a flood; returns the number of connections by what became of them."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        counted: dict[str, int] = json.loads(process.stdout.read())
        assert process.wait(PATIENCE) == 0
        return counted

    def drops(self) -> dict[str, int]:
        """The number of dropped connections by reason."""
        found = re.findall(r'dropped_total{reason="([a-z-]+)"} (\S+)', self.metrics())
        return {reason: int(float(number)) for reason, number in found}

    def metrics(self) -> str:
        """The page `/metrics`, which must be served during a flood."""
        program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        return self.lab.host.run(
            [*BARE_PYTHON, "-c", program, "http://127.0.0.1:9990/metrics"], check=True,
            timeout=PATIENCE,
        ).stdout

    def look(self) -> dict[str, int]:
        """The present connections by state, descriptors, bytes of memory, and grants."""
        found = re.findall(r'envelope_connections{state="(\w+)"} (\S+)', self.metrics())
        proc = Path(f"/proc/{self.service.process.pid}")
        memory = re.search(r"VmRSS:\s+(\d+) kB", (proc / "status").read_text())
        assert memory is not None
        return {
            **{state: int(float(number)) for state, number in found},
            "descriptors": len(list((proc / "fd").iterdir())),
            "memory": int(memory[1]) * 1024,
            "grants": self.saved().count("-j ENVELOPE-END-"),
        }

    def visit(self, source: str) -> Client:
        """A good client from this address; it must be let in before it gives up."""
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        client = self.client(self.token(60), source=source, patience=2 * busy)
        answer = client.event()
        assert answer.get("status") == 101, answer
        return client

    def leave(self, client: Client) -> None:
        """A good client sends a close frame and gets the answer."""
        client.tell("close")
        assert client.event()["code"] == 1000

    def check_bounds(self) -> None:
        """Check that no count is beyond its limit."""
        now = self.look()
        assert now["handshake"] <= MOST.max_handshakes
        assert now["handshake"] + now["leaving"] <= MOST.max_connections + BATCH
        assert now["grants"] == now["session"]
        assert now["descriptors"] <= MOST.max_connections + RESERVE
        assert now["memory"] - self.calm["memory"] < MOST_MEMORY

    def check_all_released(self) -> None:
        """Wait until all connections, sessions and grants are gone."""
        limit = time.monotonic() + PATIENCE
        names = ("handshake", "session", "leaving", "grants")
        while any((now := self.look())[name] for name in names) \
                or now["descriptors"] > self.calm["descriptors"]:
            assert time.monotonic() < limit, now


@pytest.fixture
def flooded(request: Any, tmp_path: Path) -> Iterator[Flooded]:
    """A lab with a running service; afterwards its log and the rules are checked."""
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(NetLab())
        except LabUnavailable as reason:
            need(str(reason))
        before = saved(lab)
        flooded = Flooded(lab, tmp_path)
        stack.callback(flooded.close)
        flooded.open(*getattr(request, "param", ()))
        yield flooded
        assert flooded.service.stop() == 0
        while flooded.service.next() is not None:
            pass
        log = "\n".join(flooded.service.seen)
        assert "Traceback" not in log
        assert "eyJ" not in log
        assert saved(lab) == before


def saved(lab: NetLab) -> list[str]:
    """The rules of both families."""
    return [
        lab.host.run([tool, "-S"], check=True).stdout
        for tool in ("iptables-nft", "ip6tables-nft")
    ]


def check_good_clients(flooded: Flooded, *sources: str) -> None:
    """A good client from each address gets in and leaves, one after the other."""
    for source in sources:
        client = flooded.visit(source)
        flooded.check_bounds()
        flooded.leave(client)


@pytest.mark.parametrize(
    ("kind", "sources"), [("drip", ONE), ("hello", MANY)], ids=["dripping", "half-open TLS"]
)
def test_good_clients_get_in_among_two_thousand_unfinished_connections(
    flooded: Flooded, kind: str, sources: tuple[str, ...]
) -> None:
    """From the flood's own address and from another; an open session goes on."""
    held = flooded.visit(IN)
    flood = flooded.flood(kind, 2000, sources)
    check_good_clients(flooded, NEAR, FAR)
    held.tell("ping")
    assert held.event()["opcode"] == 10
    assert flooded.end_flood(flood)["opened"] >= 2000
    flooded.leave(held)
    flooded.check_all_released()


SMALL = ("--max-connections=150", "--max-handshakes=100", "--max-connections-per-network=50")


@pytest.mark.parametrize("flooded", [SMALL], indirect=True, ids=["small limits"])
@pytest.mark.parametrize(
    ("number", "sources", "reason"), [(100, ONE, "network"), (200, MANY, "handshakes")],
    ids=["from one", "from many"],
)
def test_beyond_a_limit_the_oldest_connections_are_dropped(
    flooded: Flooded, number: int, sources: tuple[str, ...], reason: str
) -> None:
    """A good client is never among them."""
    flood = flooded.flood("hello", number, sources)
    check_good_clients(flooded, NEAR, FAR)
    flooded.end_flood(flood)
    assert flooded.drops()[reason] >= number / 2 - 2
    flooded.check_all_released()


def test_good_clients_get_in_during_a_flood_of_bad_tokens(flooded: Flooded) -> None:
    """Each bad token is answered, and no connection is left."""
    flood = flooded.flood("token", 30, MANY)
    check_good_clients(flooded, NEAR, FAR)
    counted = flooded.end_flood(flood)
    assert counted["401"] > 30
    assert set(counted) <= {"opened", "ended", "401"}
    flooded.check_all_released()


@pytest.mark.parametrize("flooded", [SMALL], indirect=True, ids=["small limits"])
def test_all_floods_at_once_stay_within_bounds(flooded: Flooded) -> None:
    """Good clients come and go for 15 s, and all counts stay within their limits."""
    held = flooded.visit(IN)
    floods = [
        flooded.flood(kind, number, sources) for kind, number, sources in (
            ("silent", 40, ONE), ("hello", 40, MANY), ("drip", 40, MANY), ("token", 10, ONE),
        )
    ]
    end = time.monotonic() + SOAK
    visits = 0
    while time.monotonic() < end:
        check_good_clients(flooded, FAR)
        visits += 1
    assert visits
    assert all(flooded.end_flood(flood)["opened"] for flood in floods)
    held.tell("ping")
    assert held.event()["opcode"] == 10
    flooded.leave(held)
    flooded.check_all_released()
