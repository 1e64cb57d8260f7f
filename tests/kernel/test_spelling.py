"""What the tools print in another spelling than ours is no difference that has to be mended."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from envelope.addresses import PortRange, Protocol
from envelope.firewall import GrantId
from envelope.firewall.kernel import DriftKind
from tests.kernel.faultyiptables import LOCK
from tests.kernel.firewallundertest import (
    ALL_KINDS,
    KINDS,
    SERVICE,
    FirewallUnderTest,
    Kernel,
    later,
    settled,
)

pytestmark = pytest.mark.kernel

# The tools print ::1.2.3.4 for the first.
MIXED = [ip_network("::102:304/128"), ip_network("::5/128"), ip_network("::ffff:0:102:304/128")]


async def looks(subject: FirewallUnderTest, times: int) -> None:
    """Wait for so many looks at the kernel's rules."""
    for _ in range(times):
        if subject.label == "inet":
            await subject.listed()
        else:
            await subject.at_rest()
            await settled(lambda: len(subject.reactor.children) > subject.writers)
            await subject.at_rest()


def drift(subject: FirewallUnderTest) -> float:
    """How many differences were counted."""
    return sum(subject.drift(kind) for kind in DriftKind)


@pytest.mark.parametrize("kind", ALL_KINDS)
@ensureDeferred
async def test_an_address_with_two_spellings_is_one(make, kind) -> None:
    """Its grant is neither missing nor a stray, and its revocation holds."""
    subject = make(kind)
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(GrantId(each), later(600)) for each in MIXED])
    await looks(subject, 2)
    assert drift(subject) == 0
    assert subject.kernel.open_networks((6,)) == set(MIXED)
    await gatherResults([subject.firewall.revoke(GrantId(each)) for each in MIXED])
    assert subject.kernel.open_networks((6,)) == set()


@pytest.mark.parametrize("prefix", [112, 104, 64])
@pytest.mark.parametrize("kind", ALL_KINDS)
@ensureDeferred
async def test_so_is_a_mask_that_spreads_grants_over_chains(make, kind, prefix) -> None:
    """Masks such as ::3:0 are printed as ::0.3.0.0."""
    subject = make(kind, grant_prefix6=prefix)
    await subject.firewall.open(SERVICE)
    many = [ip_network((0x20010DB8 << 96) + (n << 128 - prefix)).supernet(new_prefix=prefix)
            for n in range(40)]
    await gatherResults([subject.firewall.allow(GrantId(each), later(600)) for each in many])
    await looks(subject, 2)
    assert drift(subject) == 0
    await gatherResults([subject.firewall.revoke(GrantId(each)) for each in many])


@pytest.mark.parametrize("kind", ALL_KINDS)
@ensureDeferred
async def test_so_is_a_protocol_that_has_a_name_and_a_number(make, kind) -> None:
    """Which of them is printed depends on /etc/protocols."""
    allow = (PortRange("udp", 53, 53), *map(Protocol, (2, 50, 51, 112, 253)))
    subject = make(kind, allow=allow)
    await subject.firewall.open(SERVICE)
    await looks(subject, 2)
    assert drift(subject) == 0


@pytest.fixture
def ban(tmp_path, kind):
    """A rule of others, with which the filter table stays after a stop."""
    kernel, rule = Kernel(kind, tmp_path / LOCK), ("INPUT", "-s", "9.9.9.9", "-j", "DROP")
    kernel.run(4, "-A", *rule)
    yield
    kernel.run(4, "-D", *rule)


@pytest.mark.parametrize("comment", ["f\u00fcr uns", "f\udcfcr uns", "for\u2028us"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("ban")
@ensureDeferred
async def test_a_stop_removes_jumps_of_others_whatever_their_comments_hold(
    make, kind, comment
) -> None:
    """Text, bytes that are none, or what ends a line elsewhere: a chain of ours has to go."""
    subject = make(kind)
    await subject.firewall.open(SERVICE)
    argv = [subject.kernel.tool(4), "-A", "INPUT", "-m", "comment", "--comment", comment,
            "-j", "ENVELOPE"]
    subprocess.run(argv, check=True, env=subject.kernel.environment)
