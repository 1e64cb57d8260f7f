"""Signals at a service that holds rules, and the stop of a start, as process 1 too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from envelope.runtime.signals import ANSWERS, Answer
from tests.end_to_end.harness import PATIENCE, Rig, Service

pytestmark = pytest.mark.kernel

# Seconds after the handlers stand, or after the process began: a start takes about one.
MOMENTS = [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5]
AS_PROCESS_1 = ("unshare", "-pf", "--kill-child", "--mount-proc")
CAUGHT = 1 << (signal.SIGTERM - 1)


def child_of(service: Service) -> int:
    """The one child that this process has, once it has one."""
    pid = service.process.pid
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            if found := path.read_text().split():
                return int(found[0])
    raise AssertionError("no child")


def is_unshare(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "unshare\n"


def mask_of(pid: int, name: str) -> int:
    """One of a process's sets of signals (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1], 16)


def after(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
@pytest.mark.parametrize("blocked", [False, True], ids=["handled", "blocked"])
def test_a_stop_during_the_start_is_heard_by_process_1(rig: Rig, blocked: bool) -> None:
    """From when our code runs; from the first moment where the signal is blocked until then."""
    before = rig.saved()
    hold = ("env", "--block-signal=TERM") if blocked else ()
    for moment in MOMENTS:
        service = rig.twistd(*rig.options(), by=(*AS_PROCESS_1, *hold))
        pid = child_of(service)
        sign = "SigBlk" if blocked else "SigCgt"
        # unshare too blocks signals while it forks, and unblocks them in its child.
        while is_unshare(pid) or not mask_of(pid, sign) & CAUGHT:
            assert service.process.poll() is None
        after(moment)
        os.kill(pid, signal.SIGTERM)
        assert service.ended() == 0, moment
        service.reader.join(PATIENCE)
        assert rig.saved() == before, moment


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
@pytest.mark.parametrize(
    "number", [number for number, answer in ANSWERS.items() if answer is Answer.STOP])
def test_every_stop_puts_the_rules_back(rig: Rig, number: int) -> None:
    before = rig.saved()
    service = rig.start()
    client = rig.client(rig.token())
    assert client.event()["status"] == 101
    service.process.send_signal(number)
    assert client.event()["code"] == 1001
    assert service.ended() == 0
    assert rig.saved() == before


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_a_fault_of_the_process_leaves_the_host_shut_until_the_next_start(rig: Rig) -> None:
    before = rig.saved()
    service = rig.start()
    assert service.stop(signal.SIGSEGV) == -signal.SIGSEGV
    assert rig.drops()
    assert rig.start().stop() == 0
    assert rig.saved() == before


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_the_tools_get_every_signal_as_the_kernel_has_it(rig: Rig) -> None:
    """Nothing is blocked, ignored or handled."""
    seen = rig.folder / "seen"
    for part in ("", "-save", "-restore"):
        path = rig.folder / f"iptables{part}"
        path.write_text(
            "#!/bin/sh\nwhile read -r name value; do echo $name $value; done "
            f"< /proc/self/status >> {seen}\n"
            f'exec /usr/sbin/iptables-nft{part} "$@"\n')
        path.chmod(0o755)
    service = rig.start(f"--iptables={rig.folder / 'iptables'}")
    assert service.stop() == 0
    lines = [line.split() for line in seen.read_text().splitlines() if line.startswith("Sig")]
    # glibc's posix_spawn ignores the two signals that it keeps for itself.
    own = sum(1 << (number - 1) for number in (32, 33))
    for name in ("SigBlk:", "SigIgn:"):
        assert {int(line[1], 16) & ~own for line in lines if line[0] == name} == {0}
