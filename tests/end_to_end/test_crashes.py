"""`kill -9` at any moment: the rules that hold afterwards, and what the next service restores."""

from __future__ import annotations

import os
import random
import re
import time
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.end_to_end.forkserver import ForkedService, ForkServer
from tests.end_to_end.harness import Rig, every_kind
from tests.end_to_end.manyclients import ManyClients

pytestmark = pytest.mark.kernel

# Kills for each kind of tool; `make soak` sets a time (seconds) instead.
POINTS = 34
SOAK = float(os.environ.get("SOAK_SECONDS", "0"))
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 32) if SOAK else 2026)
# The rules of one table, and the grants among them.
TABLES = re.compile(r"^\*filter$.*?^COMMIT$|^table.*?^}$", re.MULTILINE | re.DOTALL)
GRANTS = re.compile(r"^-A ENVELOPE-GRANTS .*\n|^\t\telements = {[^}]*}\n", re.MULTILINE)
ENDS = re.compile(r"^:ENVELOPE-END-.*\n|^-A (ENVELOPE-END-.*) -m time --datestop .* -j ACCEPT\n",
                  re.MULTILINE)
PHASES = ("start", "load", "stop", "idle")


@dataclass
class Crashes:
    """One lab with clients that come and go, and services that are killed in it."""

    rig: Rig
    forks: ForkServer
    crowd: ManyClients
    moments: random.Random

    def __post_init__(self) -> None:
        self.before = self.rig.saved()
        self.options = [
            *(word for word in self.rig.options() if not word.startswith(("--cert", "--key="))),
            "--max-clients=20", "--admin=none", "--status=none",
        ]
        began = time.monotonic()
        service = self._started()
        self.start_takes = time.monotonic() - began
        self.good = self.rig.saved()
        began = time.monotonic()
        self._stopped(service)
        self.stop_takes = time.monotonic() - began

    def _started(self) -> ForkedService:
        service = self.forks.start(*self.options)
        service.until(r"\bready$")
        return service

    def _stopped(self, service: ForkedService) -> None:
        service.terminate()
        assert service.wait() == 0
        assert self.rig.saved() == self.before

    def crash(self, phase: str) -> None:
        """Kill a service in this phase of its life, then start and stop the next one."""
        service = self._brought_to(phase)
        longest = {"start": self.start_takes, "stop": self.stop_takes}.get(phase, 0.2)
        # Any moment may be the wrong one, so it is left to chance; no event marks it.
        time.sleep(self.moments.uniform(0, 1.1 * longest))
        service.kill(children_too=self.moments.random() < 0.5)
        assert service.wait() in (-9, 0)
        self._holds_or_never_was(self.rig.saved())
        self.crowd.tell("pause")
        self.crowd.heard("pause")
        successor = self._started()
        assert self.rig.saved() == self.good
        self._stopped(successor)

    def _brought_to(self, phase: str) -> ForkedService:
        if phase == "start":
            self.crowd.tell("go")
            return self.forks.start(*self.options)
        service = self._started()
        if phase != "idle":
            self.crowd.tell("go")
            self.crowd.heard("crowded")
        if phase == "stop":
            service.terminate()
        return service

    def _holds_or_never_was(self, saved: str) -> None:
        grants = GRANTS.findall(saved)
        ends = tuple(f" -j {chain}\n" for chain in ENDS.findall(saved) if chain)
        assert all(each.endswith(ends) or "timeout" in each for each in grants), grants
        whole = [*TABLES.findall(self.good), *TABLES.findall(self.before)]
        for table in TABLES.findall(ENDS.sub("", GRANTS.sub("", saved))):
            assert table in whole


@pytest.fixture
def crashes(rig):
    print(f"SOAK_SEED={SEED}")
    with closing(ForkServer(rig)) as forks, closing(ManyClients(
        rig, rig.token(100_000), clients=6, stay=(0.02, 0.08), tls=False, addresses=3,
    )) as crowd:
        yield Crashes(rig, forks, crowd, random.Random(SEED))


@every_kind
def test_kill_9_at_any_moment_is_harmless(crashes) -> None:
    """The default drop holds or was never set; the next clean stop restores the first rules."""
    end = time.monotonic() + SOAK / 3
    points = 0
    while points < POINTS or time.monotonic() < end:
        crashes.crash(PHASES[points % len(PHASES)])
        points += 1
    print(f"{points} crash points, nothing left over")


# Whether the tools die too matters only for the way rules are written, and both kinds of iptables
# are written in the same way.
@pytest.mark.parametrize(
    ("rig", "children_too"),
    [("nft", False), ("legacy", True), ("nftables", False), ("nftables", True)], indirect=["rig"])
def test_every_grant_ends_in_the_kernel_by_itself(rig, children_too) -> None:
    """After the kill nothing changes the rules; packets show when the client is refused."""
    rig.serve(9000)
    forks = ForkServer(rig)
    try:
        service = forks.start(*rig.options("--max-clients=2", "--timeout=1s"))
        service.until(r"\bready$")
        deadline = time.time() + 4
        clients = [
            (to, rig.client(rig.token(exp=deadline), to=to))
            for to in (rig.lab.host.address4, rig.lab.host.address6)
        ]
        assert [client.event()["status"] for _, client in clients] == [101, 101]
        service.kill(children_too)
        assert service.wait() == -9
        for to, _ in clients:
            while rig.reaches(9000, to):
                last = time.time()
                assert last < deadline + 10, "the grant outlived its service"
            shut = time.time()
            print(f"shut {shut - deadline:.1f} s after the deadline")
            assert shut > deadline
        assert rig.drops()
    finally:
        forks.close()


@every_kind
def test_sigterm_at_any_moment_of_a_start_leaves_no_rules(crashes) -> None:
    """It ends by the signal or cleanly, without a traceback, and the rules are as before."""
    for _ in range(12):
        service = crashes.forks.start(*crashes.options)
        # A random moment, as in `Crashes.crash`.
        time.sleep(crashes.moments.uniform(0, 1.1 * crashes.start_takes))
        service.terminate()
        assert service.wait() in (0, -15)
        while (line := service.next()) is not None:
            assert "Traceback" not in line, service.seen
        assert crashes.rig.saved() == crashes.before
