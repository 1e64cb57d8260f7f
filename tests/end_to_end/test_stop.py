"""SIGTERM while two hundred clients come and go, and while the status page is open."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.end_to_end.harness import PATH, PATIENCE, UPGRADE, every_kind
from tests.end_to_end.manyclients import ManyClients
from tests.support.loopbackservice import port_of, twistd

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


def test_the_status_page_gets_events_during_a_drain(tmp_path: Path) -> None:
    """It takes a service for lost after 15 s without one."""
    with twistd(tmp_path, "--token-required=false", "--drain=60s") as service:
        with socket.create_connection(("127.0.0.1", port_of(service)), PATIENCE) as client, \
                socket.create_connection(
                    ("127.0.0.1", port_of(service, "status page")), PATIENCE) as page:
            service.until(r"\bready$")
            client.sendall("\r\n".join(
                [f"GET {PATH} HTTP/1.1", "Host: a", *UPGRADE, "", ""]).encode())
            assert client.recv(12) == b"HTTP/1.1 101"
            service.process.terminate()
            service.until("draining")
            page.settimeout(15)
            page.sendall(b"GET /status/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with page.makefile("rb") as stream:
                events = (
                    json.loads(line[6:]) for line in stream if line.startswith(b"data: "))
                first, second = next(events), next(events)
        assert first["reasons"] == second["reasons"] == ["stopping"]
        assert first["history"]["until"] < second["history"]["until"]
        assert service.ended() == 0
