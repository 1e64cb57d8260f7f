"""The tool that stays open: killed, removed from disk, or blocked, in any part of a transaction."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults

from envelope.firewall import GrantId
from tests.kernel.faultyiptables import LOCK
from tests.kernel.firewallundertest import (
    ALL_KINDS,
    SERVICE,
    FirewallUnderTest,
    later,
    refused,
    settled,
)

pytestmark = pytest.mark.kernel

A4, B4, A6 = (ip_network(n) for n in ("203.0.113.1/32", "203.0.113.2/32", "2001:db8::1/128"))


@pytest.fixture(params=ALL_KINDS)
def subject(request, tmp_path):
    made = FirewallUnderTest(tmp_path, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("state", [
    "idle", "die-when-asked", "die-midway", "die-before-commit", "die-before-echo",
])
@ensureDeferred
async def test_a_writer_killed_in_any_state_loses_nothing(subject, state) -> None:
    """The next tool process makes the change; no client is refused."""
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(GrantId(n), later(60)) for n in (A4, A6)])
    await subject.at_rest()
    if state == "idle":
        for pid in subject.reactor.pids():
            os.kill(pid, signal.SIGKILL)
    else:
        subject.tools.order(f"{state}@1")
    await gatherResults([
        subject.firewall.allow(GrantId(B4), later(60)), subject.firewall.revoke(GrantId(A4)),
        subject.firewall.revoke(GrantId(A6)),
    ])
    assert subject.kernel.open_networks((4, 6)) == {B4}
    await settled(lambda: not subject.firewall.problems())
    assert subject.drift("grant") == subject.drift("stray") == 0


@ensureDeferred
async def test_a_tool_may_be_missing_from_disk_for_a_while(subject) -> None:
    """Meanwhile grants fail and name the tool, revocations wait, and the rules stay in force."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(A4), later(600))
    names = ["nft"] if subject.label == "inet" else ["iptables-restore", "iptables-save"]
    tools = [subject.tools.folder / name for name in names]
    for tool in tools:
        tool.rename(tool.with_suffix(".away"))
    for pid in subject.reactor.pids():
        os.kill(pid, signal.SIGKILL)
    gone = subject.firewall.revoke(GrantId(A4))
    asked = time.monotonic()
    assert "is not there" in await refused(subject.firewall.allow(GrantId(B4), later(60)))
    assert time.monotonic() - asked < 10
    assert not gone.called
    assert "is not there" in subject.firewall.problems()[0]
    assert subject.kernel.open_networks() == {A4}
    if subject.label != "inet":
        # The other family has its own tools.
        await subject.firewall.allow(GrantId(A6), later(60))
        await subject.firewall.revoke(GrantId(A6))
    for tool in tools:
        tool.with_suffix(".away").rename(tool)
    await gone
    await settled(lambda: not subject.firewall.problems())
    assert subject.kernel.open_networks((4, 6)) == set()


@contextmanager
def lock_taken(lock: Path, seconds: float) -> Iterator[None]:
    """Hold the lock that users of iptables-legacy share, for `seconds` or until the block ends."""
    holder = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(holder, fcntl.LOCK_EX)
    timer = reactor.callLater(seconds, fcntl.flock, holder, fcntl.LOCK_UN)
    try:
        yield
    finally:
        if timer.active():
            timer.cancel()
        os.close(holder)


@pytest.mark.parametrize("subject", ["legacy"], indirect=True)
@pytest.mark.parametrize("seconds", [5.0, 12.0])
@ensureDeferred
async def test_a_grant_is_answered_within_10_s_while_others_hold_the_lock(subject, seconds) -> None:
    """A revocation waits for as long as it takes.

    Each answer is true, and nothing is left of a grant that was refused.
    """
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(A4), later(600))
    await subject.at_rest()
    with lock_taken(subject.tools.folder / LOCK, seconds):
        asked = time.monotonic()
        gone = subject.firewall.revoke(GrantId(A4))
        answers = [subject.firewall.allow(GrantId(n), later(600)) for n in (B4, A6)]
        results = await DeferredList(answers, consumeErrors=True)
        waited = time.monotonic() - asked
        print(f"lock held for {seconds} s: answered after {waited:.1f} s: "
              f"{[granted for granted, _ in results]}")
        assert waited < 10
        granted = {n for n, (given, _) in zip((B4, A6), results, strict=True) if given}
        assert granted == ({B4, A6} if seconds < waited else set())
        await gone
    await settled(lambda: not subject.firewall.problems())
    assert subject.kernel.open_networks((4, 6)) == granted
