"""The wall clock is set while the service runs."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timedelta

import pytest

from tests.end_to_end.harness import PATIENCE, every_kind

pytestmark = pytest.mark.kernel

# Loaded by the service's Python before anything else. The kernel's clock is not changed, because
# the whole machine uses it.
SITE = """
import time
real = time.time
def moved():
    with open({path!r}) as file:
        return real() + float(file.read())
time.time = moved
"""


def end_in_kernel(rig) -> datetime:
    """The end of the only grant in iptables' rules."""
    (text,) = re.findall(r"-s 203\.0\.113\.7/32 .*--datestop (\S+)", rig.saved())
    return datetime.fromisoformat(text)


def follows(rig, before: datetime, by: int) -> None:
    """Wait until the grant's end in the kernel has moved by so many seconds."""
    limit = time.monotonic() + PATIENCE
    while (now := end_in_kernel(rig)) == before:
        assert time.monotonic() < limit, "the end did not move"
        time.sleep(0.05)
    assert now == before + timedelta(seconds=by)


@every_kind
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_step_neither_shortens_nor_prolongs_a_session(rig, hours) -> None:
    """The session keeps its length; where the kernel's end is a wall clock time, it moves."""
    path = rig.folder / "clock"

    def set_clock(by: int) -> None:
        fresh = rig.folder / "clock.new"
        fresh.write_text(str(by))
        fresh.replace(path)

    set_clock(0)
    (rig.folder / "sitecustomize.py").write_text(SITE.format(path=str(path)))
    service = rig.twistd(
        *rig.options("--timeout=2s"), env={**os.environ, "PYTHONPATH": str(rig.folder)})
    service.until(r"\bready$")
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
