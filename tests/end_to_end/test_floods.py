"""Floods against the real service over TLS: a good client gets in, and nothing is left of them.

The good client gives up after two seconds, as those in the field do. Two seconds of a machine of
its own, that is: on one that is busy with other things it is given as many times more as there are
processes for each processor. All else that is asserted are numbers of things.
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
# One host, and as many as a small botnet has networks.
ONE = (NEAR,)
MANY = tuple(f"203.0.113.{number}" for number in range(50, 250))
MOST = Config()
SOAK = 15.0  # seconds
MOST_MEMORY = 300 << 20


class Flooded(Rig):
    """A service with floods against it."""

    def __init__(self, lab: NetLab, folder: Path) -> None:
        super().__init__(lab, folder)
        for address in (FAR, IN, *MANY):
            lab.client().add_address(address)

    def open(self, *options: str) -> None:
        """Start the service, and look at it while nobody is there."""
        self.service = self.start("--max-clients=3", "--timeout=60s", *options)
        self.calm = self.look()

    def flood(self, kind: str, number: int, sources: tuple[str, ...]) -> subprocess.Popen[str]:
        """Start a flood, and wait until it is there."""
        process = self.lab.client().popen(
            [*BARE_PYTHON, HERE / "floodprogram.py", kind, str(number), self.lab.host.address4,
             "8880", *sources],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        self._children.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def ebb(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """End a flood; what became of its connections."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        counted: dict[str, int] = json.loads(process.stdout.read())
        assert process.wait(PATIENCE) == 0
        return counted

    def drops(self) -> dict[str, int]:
        """How many connections had to go, by the reason."""
        found = re.findall(r'dropped_total{reason="([a-z-]+)"} (\S+)', self.metrics())
        return {reason: int(float(number)) for reason, number in found}

    def metrics(self) -> str:
        """What the service tells its operator, which no flood may keep it from."""
        program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        return self.lab.host.run(
            [*BARE_PYTHON, "-c", program, "http://127.0.0.1:9990/metrics"], check=True,
            timeout=PATIENCE,
        ).stdout

    def look(self) -> dict[str, int]:
        """What there is now: connections by state, descriptors, bytes of memory, grants."""
        found = re.findall(r'envelope_connections{state="(\w+)"} (\S+)', self.metrics())
        proc = Path(f"/proc/{self.service.process.pid}")
        memory = re.search(r"VmRSS:\s+(\d+) kB", (proc / "status").read_text())
        assert memory is not None
        return {
            **{state: int(float(number)) for state, number in found},
            "descriptors": len(list((proc / "fd").iterdir())),
            "memory": int(memory[1]) * 1024,
            "grants": self.saved().count("--datestop"),
        }

    def visit(self, source: str) -> Client:
        """A good client from an address; it is in when its time is not up before."""
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        client = self.client(self.token(60), source=source, patience=2 * busy)
        answer = client.event()
        assert answer.get("status") == 101, answer
        return client

    def leave(self, client: Client) -> None:
        """Let a good client take its leave in order."""
        client.tell("close")
        assert client.event()["code"] == 1000

    def check_bounds(self) -> None:
        """Nothing has grown beyond its limit."""
        now = self.look()
        assert now["handshake"] <= MOST.max_handshakes
        assert now["handshake"] + now["leaving"] <= MOST.max_connections + BATCH
        assert now["grants"] == now["session"]
        assert now["descriptors"] <= MOST.max_connections + RESERVE
        assert now["memory"] - self.calm["memory"] < MOST_MEMORY

    def check_calm(self) -> None:
        """Everything is back to zero."""
        limit = time.monotonic() + PATIENCE
        names = ("handshake", "session", "leaving", "grants")
        while any((now := self.look())[name] for name in names) \
                or now["descriptors"] > self.calm["descriptors"]:
            assert time.monotonic() < limit, now


@pytest.fixture
def flooded(request: Any, tmp_path: Path) -> Iterator[Flooded]:
    """The service, with the options that a test is marked with."""
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
    """They get in, one after the other, and leave in order."""
    for source in sources:
        client = flooded.visit(source)
        flooded.check_bounds()
        flooded.leave(client)


@pytest.mark.parametrize(
    ("kind", "sources"), [("drip", ONE), ("hello", MANY)], ids=["dripping", "half-open TLS"]
)
def test_two_thousand_that_never_finish(
    flooded: Flooded, kind: str, sources: tuple[str, ...]
) -> None:
    """Good clients get in from the flood's own address and from another, and stay in."""
    held = flooded.visit(IN)
    flood = flooded.flood(kind, 2000, sources)
    check_good_clients(flooded, NEAR, FAR)
    held.tell("ping")
    assert held.event()["opcode"] == 10
    assert flooded.ebb(flood)["opened"] >= 2000
    flooded.leave(held)
    flooded.check_calm()


SMALL = ("--max-connections=150", "--max-handshakes=100", "--max-connections-per-network=50")


@pytest.mark.parametrize("flooded", [SMALL], indirect=True, ids=["small limits"])
@pytest.mark.parametrize(
    ("number", "sources", "reason"), [(100, ONE, "network"), (200, MANY, "handshakes")],
    ids=["from one", "from many"],
)
def test_twice_as_many_as_there_may_be(
    flooded: Flooded, number: int, sources: tuple[str, ...], reason: str
) -> None:
    """Who waits for longest makes room; a good client is never that."""
    flood = flooded.flood("hello", number, sources)
    check_good_clients(flooded, NEAR, FAR)
    flooded.ebb(flood)
    assert flooded.drops()[reason] >= number / 2 - 2
    flooded.check_calm()


def test_bad_tokens(flooded: Flooded) -> None:
    """Each is answered, and nothing of any of them is left."""
    flood = flooded.flood("token", 30, MANY)
    check_good_clients(flooded, NEAR, FAR)
    counted = flooded.ebb(flood)
    assert counted["401"] > 30
    assert set(counted) <= {"opened", "ended", "401"}
    flooded.check_calm()


@pytest.mark.parametrize("flooded", [SMALL], indirect=True, ids=["small limits"])
def test_everything_at_once_for_a_while(flooded: Flooded) -> None:
    """A soak: good clients come and go all the time, and the numbers stay within their bounds."""
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
    assert all(flooded.ebb(flood)["opened"] for flood in floods)
    held.tell("ping")
    assert held.event()["opcode"] == 10
    flooded.leave(held)
    flooded.check_calm()
