"""The service killed at any moment: what holds then, and what its successor gives back."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

import pytest

from tests.end_to_end.clients import Crowd
from tests.end_to_end.forks import Fork, ForkServer
from tests.end_to_end.harness import Rig

pytestmark = pytest.mark.kernel

# For each kind of iptables; `make soak` goes on for as long as it says (seconds).
POINTS = 50
SOAK = float(os.environ.get("ENVELOPE_SOAK_SECONDS", "0"))
SEED = int(os.environ.get("ENVELOPE_SOAK_SEED", "2026"))
PHASES = ("start", "load", "stop", "idle")


@dataclass
class Crashes:
    """One lab, its clients, and services that are killed in it."""

    rig: Rig
    forks: ForkServer
    crowd: Crowd
    moments: random.Random

    def __post_init__(self) -> None:
        self.before = self.rig.saved()
        self.options = [
            *(word for word in self.rig.options() if not word.startswith(("--cert", "--key="))),
            "--max-clients=20", "--admin=none",
        ]
        began = time.monotonic()
        service = self._started()
        self.start_takes = time.monotonic() - began
        self.good = self.rig.saved()
        began = time.monotonic()
        self._stopped(service)
        self.stop_takes = time.monotonic() - began

    def _started(self) -> Fork:
        service = self.forks.start(*self.options)
        service.until(r"\bready$")
        return service

    def _stopped(self, service: Fork) -> None:
        service.terminate()
        assert service.wait() == 0
        assert self.rig.saved() == self.before

    def crash(self, phase: str) -> None:
        """Kill a service in this phase of its life, then try what its successor makes of it."""
        service = self._brought_to(phase)
        longest = {"start": self.start_takes, "stop": self.stop_takes}.get(phase, 0.2)
        time.sleep(self.moments.uniform(0, 1.1 * longest))
        service.kill(children_too=self.moments.random() < 0.5)
        assert service.wait() in (-9, 0)
        self._holds_or_never_was(self.rig.saved())
        self.crowd.tell("pause")
        self.crowd.heard("pause")
        successor = self._started()
        assert self.rig.saved() == self.good
        self._stopped(successor)

    def _brought_to(self, phase: str) -> Fork:
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
        whole = [table.splitlines() for table in self.good.split("COMMIT")]
        for table in saved.split("COMMIT"):
            lines = table.splitlines()
            grants = [line for line in lines if line.startswith("-A ENVELOPE-GRANTS ")]
            assert all("--datestop" in line for line in grants), grants
            if ":ENVELOPE" in table:
                assert [line for line in lines if line not in grants] in whole
            else:
                assert "ENVELOPE" not in table
                assert ":INPUT DROP" not in table


@pytest.fixture
def crashes(rig):
    seed = SEED if not SOAK else random.randrange(1 << 32)
    print(f"ENVELOPE_SOAK_SEED={seed}")
    forks = ForkServer(rig)
    crowd = Crowd(rig, rig.token(100_000), clients=6, stay=(0.02, 0.08), tls=False,
                  addresses=3)
    try:
        yield Crashes(rig, forks, crowd, random.Random(seed))
    finally:
        crowd.close()
        forks.close()


def test_kill_9_at_any_moment_is_harmless(crashes) -> None:
    """The default drop holds or never was; the next clean stop gives back the first rules."""
    end = time.monotonic() + SOAK
    points = 0
    while points < POINTS or time.monotonic() < end:
        crashes.crash(PHASES[points % len(PHASES)])
        points += 1
    print(f"{points} crash points, nothing left over")
