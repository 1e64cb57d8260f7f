"""An operator's actions on a running service, and what they must not disturb."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.end_to_end.harness import BARE_PYTHON, PATH, UPGRADE, Lines, every_kind

pytestmark = pytest.mark.kernel

# Accepts one connection and sends every 10 ms until a line comes in; then prints its number of
# retransmitted packets (struct tcp_info in linux/tcp.h: tcpi_total_retrans, the 24th number after 8
# bytes).
STREAM = """
import select, socket, struct, sys
s = socket.create_server((sys.argv[1], 7000))
print("up", flush=True)
c, _ = s.accept()
while not select.select([sys.stdin], [], [], 0.01)[0]:
    c.sendall(b"x" * 100)
c.shutdown(socket.SHUT_WR)
assert c.recv(1) == b"", "all has arrived"
print(struct.unpack_from("=I", c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0])
"""
# Opens a connection from the guarded host and only reads from then on.
LISTEN = """
import socket, sys
s = socket.create_connection((sys.argv[1], 7000))
print("up", flush=True)
while s.recv(65536):
    pass
"""


def get(rig, url: str) -> tuple[int, str]:
    program = (
        "import sys, urllib.request, urllib.error\n"
        "try:\n    r = urllib.request.urlopen(sys.argv[1])\n"
        "except urllib.error.HTTPError as e:\n    r = e\n"
        "print(r.status)\nprint(r.read().decode())\n"
    )
    printed = rig.lab.host.run([*BARE_PYTHON, "-c", program, url], check=True).stdout
    status, _, body = printed.partition("\n")
    return int(status), body


@every_kind
def test_the_hosts_own_connection_survives_start_and_stop(rig) -> None:
    """An incoming stream that was opened before the kernel tracked connections."""
    client = rig.lab.client()
    sender = rig.keep(Lines(client.popen(
        [*BARE_PYTHON, "-c", STREAM, client.address4], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)))
    assert sender.next() == "up"
    listener = rig.keep(Lines(rig.lab.host.popen(
        [*BARE_PYTHON, "-c", LISTEN, client.address4], stdout=subprocess.PIPE, text=True)))
    assert listener.next() == "up"
    service = rig.start()
    admitted = rig.client(rig.token())
    assert admitted.event()["status"] == 101
    admitted.tell("close")
    assert admitted.event()["code"] == 1000
    assert service.stop() == 0
    sender.process.stdin.write("\n")
    sender.process.stdin.flush()
    assert sender.next() == "0", "packets were retransmitted"


def test_health_and_metrics_follow_the_state(rig) -> None:
    """They are served on the host's loopback."""
    base, heartbeat = "http://127.0.0.1:9990", "http://localhost:8000"
    rig.start("--admin=tcp:9990:interface=127.0.0.1", "--admin=localhost:8000")
    assert get(rig, f"{heartbeat}/health") == (200, '{"ready": true}\n\n')
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert get(rig, f"{base}/livez")[0] == 200
    assert get(rig, f"{base}/readyz") == (200, '{"ready": true}\n\n')
    assert get(rig, f"{base}/health") == get(rig, f"{heartbeat}/health") == (
        503, '{"ready": false, "reasons": ["no slot is free"]}\n\n')
    status, metrics = get(rig, f"{base}/metrics")
    assert status == 200
    assert 'envelope_sessions{family="ipv4"} 1.0' in metrics
    assert 'envelope_grants{family="ipv4"} 1.0' in metrics
    assert "envelope_build_info" in metrics
    status = json.loads(get(rig, "http://127.0.0.1:8881/status")[1])
    assert [each["address"] for each in status["sessions"]] == [rig.lab.client().address4]
    assert sorted(status["rules"]["wanted"]) == sorted(status["rules"]["held"])
    rules = {line.removeprefix("iptables ") for line in status["rules"]["held"]}
    assert {line for line in rig.grants().splitlines() if "ENVELOPE" in line} <= rules
    client.tell("close")
    assert client.event()["code"] == 1000
    assert get(rig, f"{heartbeat}/health")[0] == 200


def test_sighup_reads_the_keys_again_and_a_bad_file_keeps_the_old(rig) -> None:
    """An open session goes on."""
    service = rig.start("--max-clients=3")
    held = rig.client(rig.token())
    assert held.event()["status"] == 101
    path = rig.folder / "key.pub"
    good = path.read_text()
    path.write_text("rubbish")
    service.process.send_signal(signal.SIGHUP)
    service.until("kept the old keys")
    assert rig.client(rig.token()).event()["status"] == 101
    path.write_text(json.dumps({**json.loads(good), "kid": "another"}))
    service.process.send_signal(signal.SIGHUP)
    service.until("read the certificate again")
    assert rig.client(rig.token()).event()["status"] == 401
    held.tell("close")
    assert held.event()["code"] == 1000


def test_an_operators_own_baseline_is_left_alone(rig) -> None:
    """The service only adds and removes grants."""
    iptables = f"iptables-{rig.kind}"
    for words in (["-A", "INPUT", "-p", "tcp", "--dport", "8880", "-j", "ACCEPT"],
                  ["-A", "INPUT", "-p", "tcp", "-j", "REJECT"]):
        rig.lab.host.run([iptables, *words], check=True)
    before = rig.saved()
    rig.serve(9000)
    service = rig.start("--baseline=operator")
    assert not rig.reaches(9000)
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert rig.reaches(9000)
    client.tell("close")
    assert client.event()["code"] == 1000
    assert not rig.reaches(9000)
    assert service.stop() == 0
    assert rig.saved() == before


@every_kind
def test_on_stop_keep_leaves_the_default_drop_until_a_later_stop_restores(rig) -> None:
    """The later stop restores the rules from before the first start."""
    rig.serve(9000)
    before = rig.saved()
    service = rig.start("--on-stop=keep")
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert service.stop() == 0
    assert not rig.reaches(9000)
    assert rig.start().stop() == 0
    assert rig.saved() == before


def test_draining_keeps_sessions_and_refuses_new_clients(rig) -> None:
    """New clients get 503; the service ends with the last session."""
    service = rig.start("--drain=30s", "--max-clients=2")
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    service.process.send_signal(signal.SIGTERM)
    service.until("draining")
    assert rig.client(rig.token()).event()["status"] == 503
    assert get(rig, "http://127.0.0.1:9990/readyz")[0] == 503
    client.tell("close")
    assert client.event()["code"] == 1000
    assert service.ended() == 0


def test_the_seeds_curl_works_as_printed(rig) -> None:
    """Without a token, with an 8-character key and the sub-protocol; plain, and TLS with ALPN."""
    headers = [*UPGRADE, "Sec-WebSocket-Protocol: net.measurementlab.envelope"]
    for scheme, options in (("http", []), ("https", rig.options()[:2])):
        service = rig.twistd("--token-required=false", "--timeout=1s", *options)
        service.until(r"ready$")
        done = rig.lab.host.run([
            "curl", "-sik", "--no-buffer", *(w for h in headers for w in ("--header", h)),
            f"{scheme}://127.0.0.1:8880{PATH}",
        ], timeout=20, encoding="latin-1")
        assert done.stdout.startswith("HTTP/1.1 101 "), done
        assert service.stop() == 0


def test_a_start_that_would_cut_off_its_own_login_is_refused(rig) -> None:
    """The line names the `--allow` option that helps."""
    login = f"{rig.lab.client().address4} 50000 {rig.lab.host.address4} 22"
    before = rig.saved()
    service = rig.twistd(*rig.options(), env={**os.environ, "SSH_CONNECTION": login})
    service.until(r"envelope: .*--allow=?.?tcp/22")
    assert service.ended() == 1
    assert rig.saved() == before


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_the_login_is_found_where_sudo_has_dropped_the_variable(rig) -> None:
    """In a parent's environment; an empty variable overrules it."""
    login = f"{rig.lab.client().address4} 50000 {rig.lab.host.address4} 22"
    typed = {**os.environ, "SSH_CONNECTION": login}
    before = rig.saved()
    sudo = ("sh", "-c", 'env -u SSH_CONNECTION "$@"; exit $?', "sh")
    service = rig.twistd(*rig.options(), env=typed, by=sudo)
    service.until(r"envelope: .*--allow=?.?tcp/22")
    assert service.ended() == 1
    assert rig.saved() == before
    service = rig.twistd(*rig.options(), env=typed, by=("env", "SSH_CONNECTION="))
    service.until(r"\bready$")
    assert service.stop() == 0


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_open_connections_to_ports_that_shut_are_warned_of(rig) -> None:
    """As of the operator's own, where nothing says which it is. The start goes on."""
    hold = ("import socket, sys\ns = socket.create_server(('', int(sys.argv[1])))\n"
            "print('up', flush=True)\nkept = [s.accept() for _ in range(2)]\n"
            "print('in', flush=True)\nsys.stdin.read()\n")
    reach = ("import socket, sys\n"
             "s = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(2)]\n"
             "sys.stdin.read()\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for port in ("22", "25"):
        server = rig.keep(Lines(rig.lab.host.popen([*BARE_PYTHON, "-c", hold, port], **pipes)))
        assert server.next() == "up"
        rig.keep(Lines(rig.lab.client().popen(
            [*BARE_PYTHON, "-c", reach, rig.lab.host.address4, port], **pipes)))
        assert server.next() == "in"
    service = rig.start("--allow=tcp/25")
    assert [line.partition("] ")[2] for line in service.seen if "open connections" in line] == [
        f"the rules on {rig.lab.host.device} shut ports with open connections: tcp/22 (2); "
        "--allow=tcp/22 would leave them open"]
    assert service.stop() == 0
