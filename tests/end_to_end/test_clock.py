"""The wall clock is set, or the machine is suspended, while the service runs."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timedelta

import pytest

from envelope.runtime.reactor import WAKE_EVERY
from tests.end_to_end.harness import every_kind
from tests.support.polling import wait_until

pytestmark = pytest.mark.kernel

# Loaded by the service's Python before anything else. The kernel's clocks are not changed, because
# the whole machine uses them. A suspend moves the wall clock and CLOCK_BOOTTIME; neither
# CLOCK_MONOTONIC nor epoll_wait notices it.
SITE = """
import time
real, get = time.time, time.clock_gettime
def by(name):
    with open({folder!r} + "/" + name) as file:
        return float(file.read())
time.time = lambda: real() + by("clock") + by("suspended")
time.clock_gettime = lambda id: get(id) + (by("suspended") if id == time.CLOCK_BOOTTIME else 0)
"""


def end_in_kernel(rig) -> datetime:
    """The end of the only grant in iptables' rules."""
    saved = rig.saved()
    (chain,) = re.findall(r"-s 203\.0\.113\.7/32 -j (\S+)", saved)
    (text,) = re.findall(rf"(?m)^-A {chain} -m time --datestop (\S+) -j ACCEPT$", saved)
    return datetime.fromisoformat(text)


def follows(rig, before: datetime, by: int) -> None:
    """Wait until the grant's end in the kernel has moved by so many seconds."""
    wait_until(lambda: end_in_kernel(rig) != before, "the end did not move")
    assert end_in_kernel(rig) == before + timedelta(seconds=by)


def move(rig, name: str, by: int) -> None:
    """Set the service's wall clock ahead by so many seconds, or tell how long it was suspended."""
    fresh = rig.folder / f"{name}.new"
    fresh.write_text(str(by))
    fresh.replace(rig.folder / name)


def started(rig, *more):
    """A service whose clocks can be moved."""
    for name in ("clock", "suspended"):
        move(rig, name, 0)
    (rig.folder / "sitecustomize.py").write_text(SITE.format(folder=str(rig.folder)))
    service = rig.twistd(
        *rig.options("--timeout=2s", *more), env={**os.environ, "PYTHONPATH": str(rig.folder)})
    service.until(r"\bready$")
    return service


@every_kind
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_step_neither_shortens_nor_prolongs_a_session(rig, hours) -> None:
    """The session keeps its length; where the kernel's end is a wall clock time, it moves."""
    service = started(rig)

    def set_clock(by: int) -> None:
        move(rig, "clock", by)

    by = hours * 3600
    asked = time.monotonic()
    client = rig.client(rig.token(5))
    assert client.event()["status"] == 101
    if rig.kind == "nftables":
        set_clock(by)
    else:
        before = end_in_kernel(rig)
        set_clock(by)
        follows(rig, before, by)
    assert client.event() == {"event": "close", "code": 4000, "reason": "deadline"}
    assert time.monotonic() - asked > 4
    # Tokens are checked against the new time.
    new = rig.client(rig.token(by + 60))
    assert new.event()["status"] == 101
    set_clock(0)
    new.tell("close")
    assert new.event()["code"] == 1000
    assert service.stop() == 0


@every_kind
def test_a_session_whose_deadline_passed_during_a_suspend_ends_at_once(rig) -> None:
    """Within some seconds of the resume; one that may last longer goes on."""
    service = started(rig, "--max-clients=2")
    short, long = (rig.client(rig.token(lasts)) for lasts in (3600, 36_000))
    assert [client.event()["status"] for client in (short, long)] == [101, 101]
    rig.serve(9000)
    resumed = time.monotonic()
    move(rig, "suspended", 7200)
    assert short.event() == {"event": "close", "code": 4000, "reason": "deadline"}
    assert time.monotonic() - resumed < WAKE_EVERY + 2
    assert rig.reaches(9000)
    long.tell("close")
    assert long.event()["code"] == 1000
    assert not rig.reaches(9000)
    assert service.stop() == 0
    assert not [line for line in service.seen if "wall clock stepped" in line]
