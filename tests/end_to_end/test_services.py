"""Several services behind one door, what their grants let in, and `--idle`; with real packets."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.end_to_end.harness import BARE_PYTHON, Client, Rig, Service, every_kind
from tests.end_to_end.test_flows import Peer, leave

pytestmark = pytest.mark.kernel

# The kinds whose kernels tell what a grant has let in when it ends.
counting_kinds = pytest.mark.parametrize("rig", ["nft", "nftables"], indirect=True)
# Beside ndt, which opens everything.
SUBJECTS = ("--subject=dash=tcp/9100", "--subject=wehe=udp/9200+udp/9300")


def enter(rig: Rig, subject: str, to: str) -> Client:
    client = rig.client(rig.token(600, sub=subject), to=to)
    assert client.event()["status"] == 101
    return client


def let_in(service: Service) -> tuple[str, int]:
    """The end of the next session that ends, and the packets that its grant has let in."""
    found = service.until(r"ended after \S+ s: (\w+), (\d+) packets \((\d+) bytes\) let in;")
    assert int(found[3]) >= 20 * int(found[2])
    return found[1], int(found[2])


def sessions_shown(rig: Rig) -> list[dict[str, Any]]:
    """The sessions of `/status`, asked for on the service's own host."""
    program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    done = rig.lab.host.run(
        [*BARE_PYTHON, "-c", program, "http://127.0.0.1:8881/status"], check=True)
    shown: list[dict[str, Any]] = json.loads(done.stdout)["sessions"]
    return shown


@every_kind
def test_each_subject_opens_its_own_ports_and_ends_alone(rig: Rig) -> None:
    """Flows of another subject's grant live on.

    Monitoring and a subject without ports have them all.
    """
    host, stranger = rig.lab.host, rig.lab.client()
    Peer(rig, host, "serve")
    service = rig.start(*SUBJECTS, "--max-clients=9")
    wrong = rig.client(rig.token(600, sub="other"))
    assert wrong.event()["status"] == 400
    for to in (host.address4, host.address6):
        dash = enter(rig, "dash", to)
        flows = Peer(rig, stranger, "flows", to)
        assert flows.passes("tcp")
        assert not flows.passes("udp")
        wehe = enter(rig, "wehe", to)
        assert flows.passes("udp")
        leave(dash)
        assert not flows.passes("tcp")
        assert flows.passes("udp")
        dash = enter(rig, "dash", to)
        again = Peer(rig, stranger, "flows", to)
        assert again.passes("udp")
        leave(wehe)
        assert not again.passes("udp")
        assert again.passes("tcp")
        leave(dash)
        for subject in ("ndt", "monitoring"):
            client = enter(rig, subject, to)
            both = Peer(rig, stranger, "flows", to)
            assert both.passes("tcp")
            assert both.passes("udp")
            leave(client)
            assert not both.passes("udp")
    assert service.stop() == 0


@counting_kinds
def test_packets_are_counted_and_a_silent_session_ends(rig: Rig) -> None:
    """Over both families; what goes to the service's own port does not count."""
    host, stranger = rig.lab.host, rig.lab.client()
    Peer(rig, host, "serve")
    service = rig.start(*SUBJECTS, "--max-clients=9", "--idle=2s")
    places = (host.address4, host.address6)
    clients = [enter(rig, subject, to) for subject in ("dash", "wehe") for to in places]
    flows = [Peer(rig, stranger, "flows", to) for to in places]
    for number in range(8):
        # The clients' pace: several packets in the time that --idle allows without any.
        time.sleep(0.5)
        for each in flows:
            assert each.passes("udp")
            if number < 4:
                assert each.passes("tcp")
    shown = sessions_shown(rig)
    assert [each["packets"] for each in shown if each["subject"] == "wehe"] == [8, 8]
    began = time.monotonic()
    for client in clients:
        assert client.event() == {"event": "close", "code": 4002, "reason": "idle"}
    assert time.monotonic() - began < 10
    # The first ones were silent for longer, and so have ended first.
    found = [let_in(service) for _ in clients]
    assert [end for end, _ in found] == 4 * ["idle"]
    # SYN, ACK, four times data and as many acknowledgements at most, and what destroying it sends.
    assert all(6 <= packets <= 12 for _, packets in found[:2])
    assert [packets for _, packets in found[2:]] == [8, 8]
    assert service.stop() == 0
