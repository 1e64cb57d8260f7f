"""SIGTERM while two hundred clients come and go."""

from __future__ import annotations

import time

import pytest

from tests.end_to_end.harness import every_kind
from tests.end_to_end.manyclients import ManyClients

pytestmark = pytest.mark.kernel

CLIENTS = 200
DRAIN = 3.0


@pytest.fixture
def clients(rig):
    made = ManyClients(rig, rig.token(1000), CLIENTS, stay=(0.5, 8.0), tls=True, addresses=20)
    yield made
    made.close()


@every_kind
def test_at_a_stop_every_session_ends_with_a_close_frame(rig, clients) -> None:
    """Those that leave during the drain and those that stay; new clients are refused."""
    before = rig.saved()
    service = rig.start(f"--max-clients={CLIENTS}", f"--drain={DRAIN:g}s")
    for _ in range(2):
        clients.tell("go")
        clients.heard("crowded")
    asked = time.monotonic()
    service.process.terminate()
    service.until("draining")
    # It admits no new client now. Clients that leave come back and are refused, until it stops
    # listening.
    service.until("stopped")
    assert time.monotonic() - asked >= DRAIN
    assert service.ended() == 0
    clients.tell("end")
    happened = clients.heard("end")
    print(happened, f"{time.monotonic() - asked:.1f} s")
    assert happened["status 101"] > CLIENTS
    assert happened["status 101"] == happened["closed 1000"] + happened["closed 1001"]
    assert happened["closed 1000"] > 0
    assert happened["closed 1001"] > 0
    assert happened["status 503"] > 0
    assert "cut off" not in happened
    assert happened.keys() <= {
        "status 101", "status 503", "closed 1000", "closed 1001", "not connected", "not answered"}
    assert rig.saved() == before
