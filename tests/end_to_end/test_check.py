"""`envelope check` on machines that are broken on purpose: each line it can print, and no trace."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from envelope.lab import Host
from tests.end_to_end.harness import PATIENCE, Lines, Rig, every_kind
from tests.support.certificates import Authority

pytestmark = pytest.mark.kernel

ENVELOPE = Path(sys.executable).with_name("envelope")
# A rule set that refuses in its own way, and leads strangers past INPUT. `iif` takes devices that
# exist.
OTHERS = """
add table inet others
add chain inet others input { type filter hook input priority 10; }
add rule inet others input iif { "veth0", "veth1" } accept
add rule inet others input tcp dport 9001 drop
add rule inet others input udp dport 9002 drop
add set inet others shut { type inet_service; flags interval; elements = { 9450-9460 }; }
add rule inet others input tcp dport @shut drop
add chain inet others pre { type nat hook prerouting priority dstnat; }
add rule inet others pre iifname eth0 tcp dport 8080 dnat ip to 10.0.0.1:80
add rule inet others pre tcp dport 9003 redirect to :1
"""
OWNED = """add table inet owned { flags owner; }
add chain inet owned input { type filter hook input priority 20; }
add rule inet owned input tcp dport 9005 drop
list table inet owned
"""


def check(host: Host, *options: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return host.run([ENVELOPE, "check", *options], timeout=60, **how)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """What was found and what to do about it, by level; every finding that is not ok says what."""
    assert done.stderr == ""
    by_level: dict[str, list[str]] = {"ok": [], "warn": [], "FAIL": []}
    for each in json.loads(done.stdout):
        assert set(each) == {"level", "what", "do"}
        assert bool(each["do"]) == (each["level"] != "ok")
        by_level[each["level"]].append(f"{each['what']}; {each['do']}")
    assert done.returncode == bool(by_level["FAIL"])
    return by_level


def has(lines: list[str], *parts: str) -> bool:
    """Whether one of `lines` has all `parts`."""
    return any(all(part in line for part in parts) for line in lines)


@every_kind
def test_a_machine_in_order(rig: Rig) -> None:
    """Nothing fails, and nothing is changed, in the kernel or in the folder."""
    rig.lab.host.ip(f"route add default via {rig.lab.client().address4}")
    rig.serve(9000)
    # The lock of iptables-legacy, which a check neither waits for nor makes.
    rig.lab.host.run(["rm", "-f", "/run/xtables.lock"], check=True)
    before, files = rig.saved(), sorted(rig.folder.iterdir())
    done = check(rig.lab.host, *rig.options(), cwd=rig.folder)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert {line[:6] for line in lines} <= {"ok    ", "warn  "}
    for said in ("carries the default route", "IPv6 is on", "match", "valid until", "can be opened",
                 "connection tracking can be used", "pass the rules of others", "has the keys test",
                 "no other envelope", "not mixed", "files may be open"):
        assert has(lines, said), said
    # The lab's own clock is the machine's.
    assert [line for line in lines if line.startswith("warn") and "clock" not in line] == []
    assert rig.saved() == before
    assert sorted(rig.folder.iterdir()) == files
    assert "xtables.lock" not in rig.lab.host.run(["ls", "/run"], check=True).stdout


@pytest.mark.parametrize("rig", ["nft", "nftables"], indirect=True)
def test_rules_of_others_that_drop_what_a_grant_opens(rig: Rig) -> None:
    """Found with packets, over both families; DNAT and a mixture with legacy are warnings."""
    host = rig.lab.host
    host.ip("link add veth0 type veth peer name veth1")
    host.run(["nft", "-f", "-"], input=OTHERS, check=True)
    host.run(["ip6tables-legacy", "-A", "INPUT", "-p", "udp", "--dport", "9002", "-j", "DROP"],
             check=True)
    # A program that is not part of the trial.
    host.run(["iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "9000", "-j", "NFQUEUE"],
             check=True)
    # As firewalld does: the table ends with the process that made it.
    owner = rig.keep(Lines(host.popen(
        ["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)))
    owner.process.stdin.write(OWNED)
    owner.process.stdin.flush()
    owner.until("flags owner")
    owner.until("tcp dport 9005 drop")
    before = rig.saved()
    ports = ("tcp/9005", "tcp/9000", "tcp/9001", "tcp/9003", "udp/9002", "tcp/9400-9500")
    found = findings(check(
        host, *rig.options(*(f"--grant-port={port}" for port in ports)), "--json"))
    dropped = found["FAIL"]
    assert has(dropped, "what a grant opens is dropped", "tcp/9001 over IPv4",
               "udp/9002 over IPv4", "tcp/9001 over IPv6", "chain input of table inet others")
    assert has(dropped, "tcp/9005 over IPv6", "chain input of table inet owned")
    assert has(dropped, "udp/9002 over IPv6")
    # Neither an end of a range nor served: the rule names them.
    assert has(dropped, "tcp/9450 over IPv4", "tcp/9460 over IPv6")
    assert not has(dropped, "tcp/9000")
    assert not has(dropped, "tcp/9003")
    assert has(found["warn"], "chain pre of table inet others diverts", "tcp/9003")
    assert has(found["warn"], "past INPUT", "dnat ip to 10.0.0.1:80", "chain pre of table inet")
    assert has(found["warn"], "ip6tables-legacy", "table inet others")
    assert rig.saved() == before


@pytest.mark.parametrize("rig", ["legacy"], indirect=True)
def test_a_chain_of_legacy_that_drops_is_named(rig: Rig) -> None:
    rig.lab.host.run(["iptables-legacy", "-t", "mangle", "-A", "PREROUTING", "-p", "tcp",
                      "--dport", "8880", "-j", "DROP"], check=True)
    found = findings(check(rig.lab.host, *rig.options("--json")))
    assert has(found["FAIL"], "clients cannot reach the service: tcp/8880 over IPv4",
               "chain PREROUTING of iptables-legacy's table mangle")


# iptables shows the first rule without its ports, and the second chain not at all.
IN_A_TABLE_OF_IPTABLES = """
add table ip filter
add chain ip filter INPUT { type filter hook input priority 0; }
add rule ip filter INPUT tcp dport { 9001, 9002 } drop
add chain ip filter more { type filter hook input priority 10; }
add rule ip filter more tcp dport 9003 drop
"""
# iptables-save fails at it.
UNPRINTABLE = """
add table ip mangle
add chain ip mangle FORWARD { type filter hook forward priority mangle; }
add rule ip mangle FORWARD meta mark set 1
"""


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_rules_that_nft_put_into_a_table_of_iptables(rig: Rig) -> None:
    """Those are dropped which its rules drop, and no others."""
    rig.lab.host.run(["nft", "-f", "-"], input=IN_A_TABLE_OF_IPTABLES, check=True)
    found = findings(check(rig.lab.host, *rig.options("--grant-port=tcp/9000-9009", "--json")))
    assert has(found["FAIL"], "tcp/9001 over IPv4, tcp/9002 over IPv4 by chain INPUT of table ip")
    assert has(found["FAIL"], "dropped: tcp/9003 over IPv4 by chain more of table ip filter")
    assert len(found["FAIL"]) == 2
    # A start goes on, and so does the check.
    rig.lab.host.run(["nft", "delete", "table", "ip", "filter"], check=True)
    rig.lab.host.run(["nft", "-f", "-"], input=UNPRINTABLE, check=True)
    done = rig.lab.host.run(["iptables-nft-save"])
    assert done.returncode != 0
    found = findings(check(rig.lab.host, *rig.options("--json")))
    assert found["FAIL"] == []
    assert has(found["warn"], "not every rule can be printed: iptables-nft-save")
    assert has(found["ok"], "pass the rules of others")
    assert not has(found["warn"], "cannot be read")


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_a_machine_with_many_faults(rig: Rig) -> None:
    """Each is a line of its own, and one does not hide another."""
    host, folder = rig.lab.host, rig.folder
    host.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6"], check=True)
    host.ip("link add net1 type veth peer name net2", "link set net1 up", "link set net2 up",
            "route add default dev net1")
    authority = Authority(folder)
    cert, key = authority.issue("host.example", begins=-2, ends=-1, alone=True)
    bad = folder / "bad.pub"
    bad.write_text("{")
    rig.serve(8881)
    found = findings(check(
        host, f"--cert={cert}", f"--key={key}", f"--verify-key={folder / 'key.pub'}",
        f"--verify-key={bad}", "--machine=m", "--subject=s", "--listen=:8881",
        "--admin=:9991", "--admin=0.0.0.0:9991",
        f"--jwks-ca={bad}", "--verify-jwks-url=https://203.0.113.1:1/keys?secret=1",
        "--json",
        env={**os.environ, "SSH_CONNECTION": "198.51.100.9 1 203.0.113.1 22"}))
    assert has(found["FAIL"], "would cut off this very SSH login", "--allow=tcp/22")
    assert has(found["FAIL"], "bad.pub")
    assert has(found["FAIL"], "bad.pub is not a chain of certificates")
    assert has(found["FAIL"], "cannot listen on :8881: address already in use", "ss -lntp")
    assert has(found["FAIL"], "cannot listen on 0.0.0.0:9991: address already in use",
               "(by --admin=:9991)")
    assert has(found["warn"], "default route leads over net1, and not over eth0", "--device=net1")
    assert has(found["warn"], "IPv6 is off")
    assert has(found["warn"], "the certificate expired at")
    assert has(found["warn"], "holds one certificate", "fullchain.pem")


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_a_running_envelope_and_a_server_of_keys_that_is_down(rig: Rig) -> None:
    service = rig.start("--admin=none", "--status=none")
    before = rig.saved()
    found = findings(check(
        rig.lab.host, *rig.options("--verify-jwks-url=https://203.0.113.1:1/keys?secret=1"),
        "--json", env={**os.environ, "ENVELOPE_ADMIN": "none"}))
    assert has(found["FAIL"], "another envelope guards this network", "stop it first")
    assert has(found["FAIL"], "cannot listen on :8880", "an envelope runs here")
    assert has(found["warn"], "https://203.0.113.1:1/keys cannot be fetched now", "refused")
    assert not has(found["warn"], "secret")
    # What a grant opens, and the rules of the one that runs, are no trouble.
    assert has(found["ok"], "pass the rules of others")
    assert rig.saved() == before
    assert service.stop() == 0


TOOL = """#!/bin/sh
case "$0 $*" in
    *"{when}"*) {what} ;;
esac
exec /usr/sbin/{name} "$@"
"""


# Refuses the first grant of a trial, and everything after it.
BREAKS = """
    broken="${0%/*}/broken"
    [ -e "$broken" ] && { echo broken >&2; exit 3; }
    case "$0 $*" in *-restore*--noflush*)
        while read -r line; do
            case $line in *23.44.181.9*) touch "$broken"; exit ;; esac
            echo "$line"
        done | /usr/sbin/iptables-nft-restore "$@"
        exit ;;
    esac"""


def tool(folder: Path, when: str, what: str) -> str:
    """An iptables of our own: its -restore or -save does `what` when called with `when`."""
    for part in ("", "-save", "-restore"):
        path = folder / f"faulty{part}"
        path.write_text(TOOL.format(when=when, what=what, name=f"iptables-nft{part}"))
        path.chmod(0o755)
    return f"--iptables={folder / 'faulty'}"


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
@pytest.mark.parametrize(("when", "what", "said"), [
    ("", 'case $0 in *-restore) ;; *) echo broken >&2; exit 3 ;; esac',
     "faulty does not work: faulty-save: broken"),
    ("-restore --noflush", "echo broken >&2; exit 3", "the rules of a start cannot be installed"),
    ("-restore", 'input=$(cat); case $input in *datestop*) echo no such match >&2; exit 2; esac; '
     'echo "$input" | /usr/sbin/iptables-nft-restore; exit',
     "ipv4: the time match cannot be used: faulty-restore: no such match"),
    ("", BREAKS, "no client can be let in: faulty-restore: broken"),
])
def test_tools_that_fail(rig: Rig, when: str, what: str, said: str) -> None:
    option = tool(rig.folder, when, what)
    found = findings(check(rig.lab.host, *rig.options(option, "--json")))
    assert has(found["FAIL"], said), found


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_check_that_is_ended_midway_leaves_nothing(rig: Rig, how: signal.Signals) -> None:
    """A tool hangs in the network of the check's own, and ends with it."""
    asked = rig.folder / "asked"
    os.mkfifo(asked)
    option = tool(rig.folder, "-restore", f"case $# in 0) echo > {asked}; exec sleep 1000; esac")
    before = rig.saved()
    running = rig.lab.host.popen(
        [ENVELOPE, "check", *rig.options(option)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True)
    with open(asked, opener=lambda path, _: os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as told:
        assert select.select([told], [], [], PATIENCE)[0], "the tool was not called"
    assert len(_group(running.pid)) > 2
    _end(running, how)
    # Ctrl-C ends the tool first, and the trial may call it once more until it is ended itself.
    while group := _group(running.pid):
        for pid in group:
            with suppress(ProcessLookupError):
                watched = os.pidfd_open(pid)
                # Readable once the process has ended (pidfd_open(2)).
                ended, _, _ = select.select([watched], [], [], PATIENCE)
                os.close(watched)
                assert ended
    assert rig.saved() == before


def _end(running: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if how == signal.SIGINT:
        os.killpg(running.pid, how)
    else:
        running.kill()
    _, errors = running.communicate(timeout=20)
    assert running.returncode == (130 if how == signal.SIGINT else -how)
    assert errors == b""


def _group(leader: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_without_privileges_it_says_what_could_not_be_tried(rig: Rig) -> None:
    """No capabilities, and no network namespace: the lines say so, and a start would fail."""
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    done = rig.lab.host.run(
        [*bare, ENVELOPE, "check", *rig.options(), "--json"],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    found = findings(done)
    assert has(found["warn"], "CAP_NET_ADMIN is missing", "run as root")
    assert has(found["FAIL"], "does not work: CAP_NET_ADMIN is missing")
    assert has(found["warn"], "cannot be read")


def test_wrong_options_are_one_line_as_at_a_start(capfd: pytest.CaptureFixture[str]) -> None:
    for options in (["--device=no-such"], ["--max-clients=x", "--json"], ["--nonsense"], ["word"]):
        done = subprocess.run([ENVELOPE, "check", *options], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("envelope check: ")
        assert done.stderr.count("\n") == 1
    done = subprocess.run([ENVELOPE, "check", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert "--max-clients=" in done.stdout


def test_without_a_firewall_few_things_are_checked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = subprocess.run(
            [ENVELOPE, "check", "--token-required=false", "--json", f"--listen=127.0.0.1:{port}",
             f"--admin=unix:{tmp_path / 'admin'}", "--listen=systemd:domain=INET:index=0",
             f"--listen=unix:{tmp_path / 'missing' / 'door'}"],
            capture_output=True, text=True)
    found = findings(done)
    assert has(found["FAIL"], "address already in use")
    assert has(found["FAIL"], "no file can be made in")
    assert has(found["warn"], "systemd:domain=INET:index=0 cannot be tried")
    assert has(found["warn"], "INSECURE")
    assert list(tmp_path.iterdir()) == []
