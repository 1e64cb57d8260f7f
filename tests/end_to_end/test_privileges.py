"""The least privileges that the service needs, and its message when one is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envelope.firewall.process import CLEAN_ENVIRONMENT
from envelope.lab import LabUnavailable, NetLab
from envelope.runtime.capabilities import Capabilities
from tests.end_to_end.harness import BARE_PYTHON, Lines, Rig, Service
from tests.support.environment import need
from tests.support.unprivileged import (
    as_bare_root,
    as_nobody,
    need_own_mounts,
    public_folder,
    python_with_a_capability,
)

pytestmark = pytest.mark.kernel

NFT_SAYS = r"the chain INPUT cannot be printed: iptables-nft: .*Permission denied"
LEGACY_SAYS = r"the chain INPUT cannot be printed: iptables-legacy: .*Permission denied"


@pytest.fixture
def open_rig(request) -> Iterator[Rig]:
    """A rig of one kind of iptables, with files that every user may read."""
    with public_folder() as folder:
        try:
            lab = NetLab()
            lab.__enter__()
        except LabUnavailable as reason:
            need(str(reason))
        with lab:
            rig = Rig(lab, folder, getattr(request, "param", "nft"))
            (folder / "key.pem").chmod(0o644)
            try:
                yield rig
            finally:
                rig.close()


def capabilities(service: Service) -> Capabilities:
    return Capabilities.parse(Path(f"/proc/{service.process.pid}/status").read_text())


def does_its_work(rig: Rig, **how) -> Capabilities:
    """Run a service: a client is let in and refused again, by packets; the rules are restored.

    Returns the service's capabilities.
    """
    rig.serve(9000)
    before = rig.saved()
    service = rig.start("--admin=none", "--status=none", **how)
    held = capabilities(service)
    assert not rig.reaches(9000)
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert rig.reaches(9000)
    client.tell("close")
    assert client.event()["code"] == 1000
    assert not rig.reaches(9000)
    assert service.stop() == 0
    assert rig.saved() == before
    return held


@pytest.mark.parametrize("open_rig", ["nft", "nftables"], indirect=True)
def test_an_ordinary_user_needs_one_ambient_capability(open_rig) -> None:
    held = does_its_work(open_rig, by=(*as_nobody("net_admin"), "--no-new-privs"))
    assert held.uid == 65534
    assert held.permitted == held.effective == held.ambient == 1 << 12


@pytest.mark.parametrize("open_rig", ["nft", "nftables"], indirect=True)
def test_an_ordinary_user_may_have_the_capability_from_the_interpreters_file(open_rig) -> None:
    """A copy of Python has the file capability; the service passes it on to the tools."""
    by = as_nobody()
    copy = python_with_a_capability(open_rig.folder)
    held = does_its_work(open_rig, by=by, python=copy)
    assert held.uid == 65534
    assert held.permitted == held.effective == held.ambient == 1 << 12


@pytest.mark.parametrize("open_rig", ["nft", "nftables"], indirect=True)
def test_root_needs_that_capability_alone(open_rig) -> None:
    held = does_its_work(open_rig, by=as_bare_root("net_admin"))
    assert held.permitted == held.bounding == 1 << 12


@pytest.mark.parametrize("open_rig", ["legacy"], indirect=True)
def test_root_needs_two_capabilities_for_iptables_legacy(open_rig) -> None:
    held = does_its_work(open_rig, by=as_bare_root("net_admin", "net_raw"))
    assert held.permitted == held.bounding == 1 << 12 | 1 << 13


def test_the_systemd_units_restrictions_leave_enough(open_rig) -> None:
    """The unit's user and capabilities, no new privileges, and no writable file."""
    text = (Path(__file__).parents[2] / "deploy" / "envelope.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if line[:1].isalpha())
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == "CAP_NET_ADMIN"
    assert (unit["User"], unit["NoNewPrivileges"]) == ("envelope", "yes")
    assert unit["ProtectSystem"] == "strict"
    assert "ReadWritePaths" not in unit
    need_own_mounts()
    read_only = ("unshare", "-m", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh")
    held = does_its_work(open_rig, by=(
        *read_only, *as_nobody("net_admin"), "--bounding-set=-all,+net_admin", "--no-new-privs"))
    assert held.bounding == held.permitted == held.ambient == 1 << 12


MISSING = {
    "nobody at all": ("nft", lambda: as_nobody(), f"CAP_NET_ADMIN is missing: ipv4: {NFT_SAYS}"),
    "root with nothing": ("nft", lambda: as_bare_root(), "CAP_NET_ADMIN is missing: "),
    "nobody, for nftables": (
        "nftables", lambda: as_nobody(), "CAP_NET_ADMIN is missing: nftables: nft: .*ermi"),
    "nobody, for legacy": (
        "legacy", lambda: as_nobody(),
        f"CAP_NET_ADMIN and CAP_NET_RAW and root are missing: ipv4: {LEGACY_SAYS}"),
    "nobody with both, for legacy": (
        "legacy", lambda: as_nobody("net_admin", "net_raw"), "root is missing: "),
    "root with one, for legacy": (
        "legacy", lambda: as_bare_root("net_admin"), "CAP_NET_RAW is missing: "),
}


@pytest.mark.parametrize(
    ("open_rig", "how", "said"), MISSING.values(), ids=MISSING, indirect=["open_rig"])
def test_a_missing_privilege_is_named_in_one_line(open_rig, how, said) -> None:
    """Exit status 1, no traceback, and the rules are as before."""
    before = open_rig.saved()
    service = open_rig.twistd(*open_rig.options("--admin=none", "--status=none"), by=how())
    service.until(f"^envelope: {said}")
    assert service.ended() == 1
    while service.next() is not None:
        pass
    assert not [line for line in service.seen if "Traceback" in line]
    assert open_rig.saved() == before


def test_a_port_below_1024_needs_one_more_capability(open_rig) -> None:
    by = as_nobody("net_admin")
    options = open_rig.options("--listen=:443", "--admin=none", "--status=none")
    service = open_rig.twistd(*options, by=by)
    service.until("^envelope: cannot listen on :443: CAP_NET_BIND_SERVICE is missing")
    assert service.ended() == 1


# -- the programs that it runs --------------------------------------------------------------

def children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def test_tools_run_by_their_absolute_path_in_a_clean_environment(open_rig) -> None:
    """Whatever the service's own environment holds; no shell is in between."""
    noise = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": "/nowhere", "IFS": "x",
             "XTABLES_LIBDIR": "", "ENVELOPE_TIMEOUT": "9s", "SECRET": "word"}
    service = open_rig.start("--admin=none", "--status=none", env=noise)
    client = open_rig.client(open_rig.token())
    assert client.event()["status"] == 101
    found = list(children(service.process.pid))
    assert found, "no tool runs between transactions"
    for pid in found:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert command[0].startswith("/usr/sbin/ip")
        program = os.readlink(f"/proc/{pid}/exe")
        assert Path(command[0]).resolve() == Path(program)
        assert "xtables" in program
        environment = Path(f"/proc/{pid}/environ").read_text().strip("\0").split("\0")
        assert dict(one.split("=", 1) for one in environment) == CLEAN_ENVIRONMENT
    assert service.stop() == 0


def test_the_service_runs_no_program_but_the_tools(open_rig) -> None:
    """A wrapper in place of iptables records each call."""
    folder = open_rig.folder
    log = folder / "calls"
    for name in ("iptables", "iptables-save", "iptables-restore"):
        wrapper = folder / name
        wrapper.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"with open({str(log)!r}, 'a') as log:\n"
            "    print(sys.argv, sorted(os.environ), os.getppid(), file=log)\n"
            f"os.execv('/usr/sbin/{name.replace('iptables', 'iptables-nft')}', sys.argv)\n")
        wrapper.chmod(0o755)
    service = open_rig.start("--admin=none", "--status=none", f"--iptables={folder / 'iptables'}")
    pid = service.process.pid
    assert service.stop() == 0
    calls = log.read_text().splitlines()
    assert len(calls) >= 3
    for call in calls:
        # Python adds LC_CTYPE to its own environment (PEP 538).
        assert "['LC_ALL', 'PATH']" in call.replace("'LC_ALL', 'LC_CTYPE'", "'LC_ALL'")
        assert call.endswith(f" {pid}"), "a shell is in between"
        assert call.startswith(f"['{folder}/iptables-")


SQUAT = """
import socket, sys
kept = socket.socket(socket.AF_UNIX)
kept.bind("\\0envelope-firewall")
kept.listen()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_no_ordinary_user_can_stop_a_start(rig) -> None:
    """A name that anybody can bind is no claim to a network; a second service is refused."""
    squatter = rig.keep(Lines(rig.lab.host.popen(
        [*as_nobody(), *BARE_PYTHON, "-c", SQUAT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True)))
    assert squatter.next() == "up"
    service = rig.start()
    second = rig.twistd(*rig.options("--listen=:8882", "--admin=none", "--status=none"))
    second.until("envelope: another envelope already guards this machine's network")
    assert second.ended() == 1
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    assert service.stop() == 0
