"""The guarded device under another name, as a bridge's port, renamed, gone or made anew."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.end_to_end.harness import Rig, Service, every_kind
from tests.end_to_end.test_operation import get

pytestmark = pytest.mark.kernel

PORT = 7999
# Longer than the names that an ioctl takes, as systemd's may be.
OTHER_NAME = "the-cable-to-the-world"


def readiness(rig: Rig) -> tuple[int, str]:
    """The status of `/readyz`, and its reasons."""
    status, body = get(rig, "http://127.0.0.1:9990/readyz")
    return status, "\n".join(json.loads(body).get("reasons", ()))


def reached(rig: Rig) -> list[str]:
    """The host's addresses at which a client without a token reaches its server."""
    host = rig.lab.host
    return [to for to in (host.address4, host.address6) if rig.reaches(PORT, to)]


def wait_until_shut(rig: Rig) -> None:
    """Wait until a client without a token reaches nothing, which takes less than 2 s."""
    late = time.monotonic() + 2
    while reached(rig):
        assert time.monotonic() < late


def both(rig: Rig) -> list[str]:
    """The host's addresses."""
    return [rig.lab.host.address4, rig.lab.host.address6]


def move_addresses(rig: Rig, old: str, new: str) -> None:
    """Move the host's addresses from one device to another."""
    rig.lab.host.ip(*(
        line for address in both(rig)
        for line in (f"address del {address}/{24 if '.' in address else 64} dev {old}",
                     f"address add {address}/{24 if '.' in address else 64} dev {new}"
                     + ("" if "." in address else " nodad"))
    ))


@pytest.fixture
def guarded(rig: Rig) -> Service:
    """A service that guards eth0, and a server that nobody reaches without a token."""
    rig.serve(PORT)
    rig.before = rig.saved()
    service = rig.start("--max-clients=2")
    rig.installed = rig.saved()
    assert reached(rig) == []
    return service


@every_kind
def test_an_alternative_name_is_resolved(rig: Rig) -> None:
    """Also one that is too long for an ioctl; the log says so, for both options."""
    rig.lab.host.ip(f"link property add dev eth0 altname {OTHER_NAME} altname wan")
    rig.serve(PORT)
    service = rig.twistd(*rig.options(f"--device={OTHER_NAME}", "--tx-device=wan"))
    service.until("--tx-device=wan is another name of eth0")
    service.until(f"--device={OTHER_NAME} is another name of eth0")
    service.until(r"\bready$")
    assert reached(rig) == []
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert rig.reaches(PORT)
    assert readiness(rig) == (200, "")
    assert service.stop() == 0


@every_kind
def test_a_port_of_a_bridge_is_refused_and_the_bridge_is_right(rig: Rig) -> None:
    rig.lab.host.ip("link add br0 type bridge", "link set br0 addrgenmode none up",
                    "link set eth0 master br0")
    rig.serve(PORT)
    before = rig.saved()
    refused = rig.twistd(*rig.options("--device=eth0"))
    assert refused.ended() == 1
    assert refused.next() == (
        "envelope: --device: eth0 is part of the bridge br0, whose name its packets bear; "
        "say --device=br0"
    )
    assert refused.next() is None
    assert rig.saved() == before
    move_addresses(rig, "eth0", "br0")
    assert reached(rig) == both(rig)
    # The rate of a part can be measured.
    service = rig.start("--device=br0", "--tx-device=eth0")
    assert reached(rig) == []
    assert readiness(rig) == (200, "")
    assert service.stop() == 0
    assert rig.saved() == before


@every_kind
def test_a_renamed_device_stays_guarded(rig: Rig, guarded: Service) -> None:
    """Grants go on; once it has its name again, the rules are as they were."""
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert rig.reaches(PORT)
    rig.lab.host.ip("link set eth0 name wan0")
    guarded.until("the device eth0 is called wan0 now: guarding eth0 and wan0", 5)
    client.tell("leave")
    guarded.until("ended after")
    wait_until_shut(rig)
    status, reasons = readiness(rig)
    assert status == 503
    assert "the device eth0 is called wan0 now" in reasons
    client = rig.client(rig.token(), to=rig.lab.host.address6)
    assert client.event()["status"] == 101
    assert reached(rig) == [rig.lab.host.address6]
    # Another device takes the old name: it was not open before, and is not now.
    rig.lab.host.ip("link add eth0 type veth peer name eth0x")
    client.tell("leave")
    guarded.until("ended after")
    rig.lab.host.ip("link del eth0", "link set wan0 name eth0")
    guarded.until("the device eth0 is as it was", 5)
    while rig.saved() != rig.installed:
        assert guarded.process.poll() is None
    assert readiness(rig) == (200, "")
    assert reached(rig) == []
    assert guarded.stop() == 0
    assert rig.saved() == rig.before
    assert reached(rig) == both(rig)
    assert not [line for line in guarded.seen if "changed the rules" in line]


@every_kind
def test_a_device_that_becomes_part_of_a_bridge_stays_guarded(
    rig: Rig, guarded: Service
) -> None:
    rig.lab.host.ip("link add br0 type bridge", "link set br0 addrgenmode none up",
                    "link set eth0 master br0")
    move_addresses(rig, "eth0", "br0")
    guarded.until("the device eth0 is part of the bridge br0 now: guarding br0 and eth0", 5)
    wait_until_shut(rig)
    assert readiness(rig)[0] == 503
    # A master may have one itself, and its name may change.
    rig.lab.host.ip("link set br0 name br1")
    guarded.until("the device eth0 is part of the bridge br1 now: guarding br1 and eth0", 5)
    wait_until_shut(rig)
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert reached(rig) == [rig.lab.host.address4]
    client.tell("leave")
    guarded.until("ended after")
    rig.lab.host.ip("link set eth0 nomaster")
    move_addresses(rig, "br1", "eth0")
    guarded.until("the device eth0 is as it was", 5)
    assert reached(rig) == []
    assert guarded.stop() == 0
    assert rig.saved() == rig.before


@every_kind
def test_a_device_that_is_made_anew_stays_guarded(rig: Rig, guarded: Service) -> None:
    """Under its old name and under a new one, until the service starts again."""
    host, client = rig.lab.host, rig.lab.client()
    host.ip("link del eth0")
    guarded.until("the device eth0 is gone", 5)
    assert readiness(rig)[0] == 503
    host.ip(f"link add eth0 type veth peer name eth0 netns {client.pid}")
    host.link_up()
    client.link_up()
    guarded.until("the device eth0 is another one now", 5)
    assert reached(rig) == []
    assert readiness(rig)[0] == 503
    host.ip("link set eth0 name wan0")
    guarded.until("guarding eth0 and wan0", 5)
    wait_until_shut(rig)
    assert guarded.stop() == 0
    assert rig.saved() == rig.before


@every_kind
def test_a_start_after_a_kill_takes_the_guard_of_two_names_away(
    rig: Rig, guarded: Service
) -> None:
    rig.lab.host.ip("link set eth0 name wan0")
    guarded.until("guarding eth0 and wan0", 5)
    wait_until_shut(rig)
    assert guarded.stop(signal.SIGKILL) == -signal.SIGKILL
    assert reached(rig) == []
    service = rig.start("--device=wan0")
    assert rig.saved().replace("wan0", "eth0") == rig.installed
    assert reached(rig) == []
    assert service.stop() == 0
    assert rig.saved() == rig.before


@every_kind
def test_the_rules_for_two_names_are_mended_like_all_others(rig: Rig, guarded: Service) -> None:
    rig.lab.host.ip("link set eth0 name wan0")
    guarded.until("guarding eth0 and wan0", 5)
    wait_until_shut(rig)
    if rig.kind == "nftables":
        rig.lab.host.run(["nft", "flush", "chain", "inet", "envelope", "guarded"], check=True)
    else:
        rig.lab.host.run([f"/usr/sbin/iptables-{rig.kind}", "-F", "ENVELOPE-DEVICES"], check=True)
    guarded.until("changed the rules", 30)
    assert reached(rig) == []
    assert guarded.stop() == 0
    assert rig.saved() == rig.before
