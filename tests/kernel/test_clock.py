"""The wall clock and iptables grants: when the kernel ends a grant, and what a clock step does."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from envelope.firewall import GrantId
from tests.kernel.firewallundertest import KINDS, SERVICE, FirewallUnderTest, later, settled
from tests.kernel.iptablesmodel import BACKSTOP, SHARED, end_of, grant
from tests.kernel.udpprobe import Listener, addresses

pytestmark = pytest.mark.kernel

CLIENT, OTHER = "203.0.113.2", "2001:db8::2"
LATE = "203.0.113.3"


@pytest.fixture(params=KINDS)
def subject(request, tmp_path):
    made = FirewallUnderTest(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def listener():
    with Listener() as made, addresses(CLIENT, OTHER, LATE):
        yield made


def rules(subject: FirewallUnderTest) -> list[str]:
    return sorted(
        rule for family in (4, 6)
        for rule in subject.kernel.snapshot(family).rules["ENVELOPE-GRANTS"]
    )


@ensureDeferred
async def test_the_kernel_ends_a_grant_in_the_second_that_its_rule_names(
    subject, listener
) -> None:
    """The rule accepts packets to the end of that second: 3 to 7 s after the deadline."""
    await subject.firewall.open(SERVICE)
    # So that the end is within the next two seconds.
    deadline = math.ceil(time.time() / SHARED) * SHARED - BACKSTOP - 0.5
    await deferLater(reactor, max(0.0, deadline + BACKSTOP - 1 - time.time()))
    networks = [ip_network(CLIENT), ip_network(OTHER)]
    await gatherResults([subject.firewall.allow(GrantId(n), deadline) for n in networks])
    last_second = end_of(deadline)
    for source in (CLIENT, OTHER):
        passed, refused = 0.0, 0.0
        while not refused:
            asked = time.time()
            if listener.hears(source):
                passed = asked
            else:
                refused = time.time()
            await deferLater(reactor, 0.01)
        # The kernel updates its clock at each tick, so its seconds change some milliseconds late.
        assert passed < last_second + 1.1
        assert refused >= last_second + 1
    assert 2.5 <= last_second + 1 - deadline <= 7.5
    assert len(rules(subject)) == 2


@pytest.mark.parametrize("by", [3600, -3600])
@ensureDeferred
async def test_the_ends_of_live_grants_move_with_a_clock_step(subject, by) -> None:
    """Grants made after the step, before it was noticed, are not moved a second time."""
    await subject.firewall.open(SERVICE)
    deadline = later(9000)
    networks = [ip_network(CLIENT), ip_network(OTHER)]
    await gatherResults([subject.firewall.allow(GrantId(n), deadline) for n in networks])
    before = rules(subject)
    assert before == sorted(grant(str(n), deadline) for n in networks)
    subject.clock_set_by = by
    late = later(9000)
    await subject.firewall.allow(GrantId(ip_network(LATE)), late)
    wanted = sorted([grant(str(n), deadline + by) for n in networks]
                    + [grant(f"{LATE}/32", late + by)])
    await settled(lambda: rules(subject) == wanted)
    subject.clock_set_by = 0
    await settled(lambda: before == [rule for rule in rules(subject) if LATE not in rule])
    assert subject.drift("grant") == subject.drift("stray") == 0


@ensureDeferred
async def test_a_clock_step_past_a_grants_end_refuses_its_client_until_the_repair(
    subject, listener
) -> None:
    """The kernel's clock cannot be set here, so the rule's end is put into the past instead."""
    await subject.firewall.open(SERVICE)
    subject.clock_set_by = -3600
    # For the kernel, the end that the service believes to be ahead passed an hour ago.
    await subject.firewall.allow(GrantId(ip_network(CLIENT)), later(60))
    assert not listener.hears(CLIENT)
    subject.clock_set_by = 0
    set_at = time.monotonic()
    await settled(lambda: listener.hears(CLIENT))
    print(f"let in again after {time.monotonic() - set_at:.2f} s")
    end = datetime.now(UTC).timestamp() + 60
    (rule,) = rules(subject)
    assert rule in {grant(f"{CLIENT}/32", end + slack) for slack in range(-30, 3)}
