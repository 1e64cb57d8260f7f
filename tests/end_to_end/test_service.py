"""The main job, end to end: a client is let in, sends packets, and is refused again."""

from __future__ import annotations

import signal
import time

import pytest

from tests.end_to_end.harness import PATH, UPGRADE, every_kind

pytestmark = pytest.mark.kernel


@every_kind
@pytest.mark.parametrize("family", [4, 6])
def test_a_client_is_let_in_and_refused_again_at_its_deadline(rig, family) -> None:
    """In both address families and with every kind of tool; the stop restores the rules."""
    to = rig.lab.host.address4 if family == 4 else rig.lab.host.address6
    rig.serve(9000)
    before = rig.saved()
    assert rig.reaches(9000, to)
    service = rig.start("--timeout=2s")
    assert not rig.reaches(9000, to)
    asked = time.monotonic()
    client = rig.client(rig.token(5), to=to)
    assert client.event()["status"] == 101
    assert rig.reaches(9000, to)
    assert client.event() == {"event": "close", "code": 4000, "reason": "deadline"}
    assert time.monotonic() - asked > 2.0
    assert not rig.reaches(9000, to)
    assert client.event()["event"] == "end"
    assert service.stop() == 0
    assert rig.saved() == before
    assert rig.reaches(9000, to)


@every_kind
def test_a_client_that_leaves_is_refused_at_once(rig) -> None:
    """By a close frame, data, or a lost connection; each frees the only slot."""
    rig.serve(9000)
    service = rig.start()
    for word, code in (("close", 1000), ("data", 1003)):
        client = rig.client(rig.token())
        assert client.event()["status"] == 101
        assert rig.reaches(9000)
        client.tell(word)
        assert client.event()["code"] == code
        assert not rig.reaches(9000)
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    client.tell("ping")
    assert client.event() == {"event": "frame", "opcode": 10, "payload": "are you there"}
    client.tell("leave")
    service.until(r"ended after .*: lost")
    assert not rig.reaches(9000)
    assert service.stop() == 0


@every_kind
def test_sigterm_closes_sessions_with_1001(rig) -> None:
    """And restores the rules."""
    before = rig.saved()
    service = rig.start("--max-clients=2")
    clients = [rig.client(rig.token()) for _ in range(2)]
    assert [client.event()["status"] for client in clients] == [101, 101]
    full = rig.client(rig.token()).event()
    assert full["status"] == 503
    assert "Retry-After" in full["head"]
    assert service.stop() == 0
    assert [client.event()["code"] for client in clients] == [1001, 1001]
    assert rig.saved() == before


@every_kind
def test_two_sessions_of_one_network_share_its_grant(rig) -> None:
    """It is revoked when the last of them ends."""
    rig.serve(9000)
    rig.start("--max-clients=2")
    first, second = rig.client(rig.token()), rig.client(rig.token())
    assert (first.event()["status"], second.event()["status"]) == (101, 101)
    first.tell("close")
    assert first.event()["code"] == 1000
    assert rig.reaches(9000)
    second.tell("close")
    assert second.event()["code"] == 1000
    assert not rig.reaches(9000)


@every_kind
def test_a_grant_opens_only_its_ports_for_only_its_network(rig) -> None:
    """The proxy ports are open to all clients from the first grant to the end of the last."""
    rig.lab.client().add_address("203.0.113.8")
    for port in (9000, 9001, 9080):
        rig.serve(port)
    rig.start("--grant-port=tcp/9000", "--proxy-port=9080")
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    neighbour = "203.0.113.8"
    assert rig.reaches(9000)
    assert not rig.reaches(9001)
    assert not rig.reaches(9000, source=neighbour)
    assert rig.reaches(9080, source=neighbour)
    client.tell("close")
    assert client.event()["code"] == 1000
    assert not rig.reaches(9000)
    assert not rig.reaches(9080, source=neighbour)


def test_the_first_check_that_fails_decides_the_answer(rig) -> None:
    """All rows of the table of answers, over the network."""
    from jwcrypto import jwk

    rig.start("--monitoring-slots=1")
    stranger = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="test")
    good = rig.token()

    def status(**how) -> int:
        return rig.client(**how).event()["status"]

    assert status(path="/v0/envelope/acces") == 404
    assert status(path=f"/{PATH}?access_token={good}") == 404
    assert status() == 401
    for bad in ("x", rig.token(-1), rig.token(key=stranger), rig.token(aud=["other"]),
                rig.token(iss="other"), rig.token(nbf=time.time() + 9), good[:-3]):
        assert status(token=bad) == 401
    assert status(token=rig.token(sub="other")) == 400
    assert status(token=rig.token(exp=None)) == 400
    assert status(token=good, headers=("Accept: */*",)) == 426
    assert status(token=good, headers=(*UPGRADE[:2], "Sec-WebSocket-Version: 8")) == 426
    assert status(token=good, headers=(*UPGRADE, "Sec-WebSocket-Protocol: other")) == 400
    assert rig.saved().count("-s 203.0.113.7") == 0
    offered = "Sec-WebSocket-Protocol: net.measurementlab.envelope"
    held = rig.client(good, headers=(*UPGRADE, offered))
    assert offered in held.event()["head"]
    assert status(token=good) == 503
    monitoring = rig.client(rig.token(sub="monitoring")).event()
    assert monitoring["status"] == 101
    assert "Sec-WebSocket-Protocol" not in monitoring["head"]
    assert "erver:" not in monitoring["head"]


@every_kind
def test_kill_9_leaves_the_default_drop_and_the_next_service_restores_the_rules(rig) -> None:
    """The kernel ends the grant by itself."""
    rig.serve(9000)
    before = rig.saved()
    service = rig.start("--timeout=1s")
    lasts = 3
    client = rig.client(rig.token(lasts))
    assert client.event()["status"] == 101
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    assert rig.reaches(9000)
    limit = time.monotonic() + lasts + 10
    while rig.reaches(9000):
        assert time.monotonic() < limit, "the grant outlived its service"
    assert rig.drops()
    service = rig.start()
    assert "203.0.113.7" not in rig.grants()
    assert service.stop(signal.SIGINT) == 0
    assert rig.saved() == before


@every_kind
def test_a_start_that_cannot_succeed_is_one_line_and_changes_nothing(rig) -> None:
    """Exit status 1, and the kernel's rules are untouched."""
    before = rig.saved()
    common = rig.options()
    folder = rig.folder
    (folder / "rubbish").write_text("{}")
    tool = "nft" if rig.kind == "nftables" else "iptables"
    busy = rig.start("--firewall=none", "--token-required=false", "--admin=none", "--status=none")
    wrong = {
        "a device that is not there": ["--device=nope0"],
        "a key that is not there": [f"--verify-key={folder / 'none'}"],
        "a key that is none": [f"--verify-key={folder / 'rubbish'}"],
        "no such option": ["--nonsense"],
        "a tool that is not there": [f"--{tool}=/nonexistent/{tool}"],
        "a tool that fails": [f"--{tool}=/bin/false", "--listen=:8882"],
        "the port is taken": [],
        "the status page's port is taken": [
            "--listen=:8882", "--admin=none", "--status=127.0.0.1:8880"],
        "firewall without tokens": ["--token-required=false", "--firewall=iptables"],
        "a certificate without its key": [f"--cert={folder / 'rubbish'}"],
    }
    for what, options in wrong.items():
        service = rig.twistd(*common, *options)
        lines = []
        while (line := service.next()) is not None:
            lines.append(line)
        assert service.ended() == 1, what
        own = [line for line in lines if line.startswith("envelope: ")]
        assert len(own) == 1, (what, lines)
        assert not any("Traceback" in line for line in lines), (what, lines)
        assert rig.saved() == before, what
    assert busy.stop() == 0
