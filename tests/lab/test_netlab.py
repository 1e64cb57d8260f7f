"""The lab: hosts on one machine, which many other tests use."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envelope.lab import LabUnavailable, NetLab, find_tool, host, search_env
from tests.end_to_end.harness import BARE_PYTHON

pytestmark = pytest.mark.kernel

_SERVE = """
import socket
server = socket.create_server(("::", 5000), family=socket.AF_INET6, dualstack_ipv6=True)
print("up", flush=True)
while True:
    server.accept()[0].close()
"""
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 5000), 2, (sys.argv[2], 0))"


@pytest.fixture
def server(lab):
    child = lab.host.popen([*BARE_PYTHON, "-c", _SERVE], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "up\n"
    yield child
    child.kill()
    child.communicate()


def connect(host, to: str, source: str) -> bool:
    return host.run([*BARE_PYTHON, "-c", _CONNECT, to, source]).returncode == 0


def test_client_and_host_reach_each_other_over_both_families(lab, server) -> None:
    client = lab.client()
    assert connect(client, lab.host.address4, client.address4)
    assert connect(client, lab.host.address6, client.address6)


def test_a_client_can_have_many_addresses(lab, server) -> None:
    """Each acts as one more client on the guarded device."""
    lab.client().add_address("203.0.113.99")
    lab.client().add_address("2001:db8::99")
    assert connect(lab.client(), lab.host.address4, "203.0.113.99")
    assert connect(lab.client(), lab.host.address6, "2001:db8::99")


def test_further_clients_are_neighbours_on_other_devices(lab, server) -> None:
    neighbour = lab.client(1)
    assert connect(neighbour, "198.51.100.1", neighbour.address4)
    assert "lab1" in lab.host.run(["ip", "-brief", "link"]).stdout


def test_a_cable_can_be_cut_and_restored(lab, server) -> None:
    client = lab.client()
    lab.cut_link()
    assert not connect(client, lab.host.address4, client.address4)
    lab.restore_link()
    assert connect(client, lab.host.address4, client.address4)
    assert connect(client, lab.host.address6, client.address6)


def test_the_device_is_named_as_asked(lab) -> None:
    with NetLab(device="net1") as other:
        assert other.host.device == "net1"
        assert "net1" in other.host.run(["ip", "-brief", "link"], check=True).stdout
        assert "net1" not in lab.host.run(["ip", "-brief", "link"], check=True).stdout


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_each_host_has_its_own_rules(lab, kind) -> None:
    for tool in (f"iptables-{kind}", f"ip6tables-{kind}"):
        lab.host.run([tool, "-A", "INPUT", "-j", "DROP"], check=True)
        assert "DROP" in lab.host.run([tool, "-S"], check=True).stdout
        assert "DROP" in lab.host.run([f"{tool}-save"], check=True).stdout
        assert "DROP" not in lab.client().run([tool, "-S"], check=True).stdout


def test_a_program_has_this_working_folder_and_returns_its_status(lab, tmp_path) -> None:
    assert lab.host.run(["pwd"], cwd=tmp_path).stdout.strip() == str(tmp_path)
    assert lab.host.run(["pwd"]).stdout.strip() == str(Path.cwd())
    assert lab.host.run(["sh", "-c", "cat; exit 3"], input="in").returncode == 3


def test_a_started_programs_pid_is_its_own(lab) -> None:
    """So a signal to it reaches the program itself."""
    child = lab.host.popen(["sh", "-c", "echo $$; read -r _"], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)
    assert int(child.stdout.readline()) == child.pid
    child.terminate()
    child.communicate()
    assert child.returncode == -signal.SIGTERM


def test_closing_kills_every_program() -> None:
    with NetLab() as lab:
        child = lab.host.popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE)
        child.stdout.readline()
    assert child.wait(5) == -signal.SIGKILL
    assert child.communicate() == (b"", None), "its child is gone too, or the pipe would be open"


def test_nothing_outlives_a_lab_that_is_killed() -> None:
    """Neither the namespaces nor the programs in them."""
    program = (
        "import sys\nfrom envelope.lab import NetLab\n"
        "lab = NetLab()\nlab.__enter__()\n"
        "child = lab.host.popen(['sleep', '60'])\n"
        "print(lab.host.pid, lab.client().pid, child.pid, flush=True)\nsys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    watched = [os.pidfd_open(int(pid)) for pid in owner.stdout.readline().split()]
    assert len(watched) == 3
    owner.kill()
    owner.communicate()
    for descriptor in watched:
        assert select.select([descriptor], [], [], 5)[0], "readable once its process has ended"
        os.close(descriptor)


def test_a_lab_is_built_by_five_programs(monkeypatch) -> None:
    """Many tests build their own: a holder for each host, and three times ip."""
    started: list[list[str]] = []

    class Counted(subprocess.Popen):
        def __init__(self, argv: list[str], **how: object) -> None:
            started.append(argv)
            super().__init__(argv, **how)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    with NetLab():
        assert len(started) == 5


def test_a_tool_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setattr(host, "SEARCH_PATH", "/nowhere")
    with pytest.raises(LabUnavailable, match="ip is not installed"), NetLab():
        pass
    with pytest.raises(LabUnavailable, match="frobnicate"):
        find_tool("frobnicate")


def test_an_error_of_unshare_is_one_line(monkeypatch, tmp_path) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare: not for you' >&2\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setattr(host, "SEARCH_PATH", f"{tmp_path}:{host.SEARCH_PATH}")
    with pytest.raises(LabUnavailable) as refusal, NetLab():
        pass
    assert str(refusal.value) == "network namespaces cannot be made here: unshare: not for you"


def test_an_error_of_ip_is_raised(lab) -> None:
    with pytest.raises(LabUnavailable, match="ip on host"):
        lab.host.ip("link set nowhere up")


def test_sbin_is_searched() -> None:
    assert search_env({"A": "b"})["PATH"].endswith(":/usr/sbin:/sbin")
