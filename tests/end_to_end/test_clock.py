"""Somebody sets the clock under a running service: its idea of the time of day jumps."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timedelta

import pytest

from tests.end_to_end.harness import PATIENCE, every_kind

pytestmark = pytest.mark.kernel

# Loaded by the service's own Python before anything else. The kernel's clock stays as it is: it is
# the machine's.
SITE = """
import time
real = time.time
def moved():
    with open({path!r}) as file:
        return real() + float(file.read())
time.time = moved
"""


def end_in_kernel(rig) -> datetime:
    """When iptables would end the one grant there is."""
    (text,) = re.findall(r"-s 203\.0\.113\.7/32 .*--datestop (\S+)", rig.saved())
    return datetime.fromisoformat(text)


def follows(rig, before: datetime, by: int) -> None:
    """Wait until the grant's end in the kernel has moved along: nothing tells of that by itself."""
    limit = time.monotonic() + PATIENCE
    while (now := end_in_kernel(rig)) == before:
        assert time.monotonic() < limit, "the end stays where it was"
        time.sleep(0.05)
    assert now == before + timedelta(seconds=by)


@every_kind
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_neither_cuts_nor_prolongs_a_session(rig, hours) -> None:
    """It ends after its own length; an end in the kernel that is a time of day follows."""
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
    # Tokens are judged by the new time.
    new = rig.client(rig.token(by + 60))
    assert new.event()["status"] == 101
    set_clock(0)
    new.tell("close")
    assert new.event()["code"] == 1000
    assert service.stop() == 0
