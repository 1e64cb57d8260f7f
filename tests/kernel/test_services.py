"""Grants of one network to several services are independent of each other; tried with packets."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from envelope.addresses import PortRange
from envelope.config.subjects import Subject
from envelope.firewall import GrantId
from envelope.firewall.iptables.rules import service_in
from tests.kernel.firewallundertest import ALL_KINDS, SERVICE, FirewallUnderTest, later, settled
from tests.kernel.udpprobe import PORT, Listener, addresses

pytestmark = pytest.mark.kernel

CLIENTS = ("203.0.113.2", "2001:db8::2")
NETWORKS = [ip_network(each) for each in CLIENTS]
# The listener's port belongs to the second, and so to monitoring, which is the fourth.
SUBJECTS = (
    Subject("web", (PortRange("tcp", 80, 80),)),
    Subject("probe", (PortRange("tcp", 81, 81), PortRange("udp", PORT, PORT))),
    Subject("mail", (PortRange("udp", 25, 25), PortRange("udp", PORT + 1, PORT + 9))),
)
WEB, PROBE, MAIL, MONITORING = range(4)


@pytest.fixture
def listener():
    with Listener() as made, addresses(*CLIENTS):
        yield made


@pytest.fixture(params=ALL_KINDS)
def make(tmp_path, request):
    """Make a firewall of some kind, a successor of the last one if that was killed."""
    made = []

    def make() -> FirewallUnderTest:
        before = made[0].before if made else None
        made.append(FirewallUnderTest(tmp_path, request.param, before=before, subject=SUBJECTS))
        return made[-1]

    yield make
    made[-1].close()


async def allow(subject: FirewallUnderTest, *services: int, lasts: float = 600) -> None:
    await gatherResults([
        subject.firewall.allow(GrantId(network, each), later(lasts))
        for network in NETWORKS for each in services
    ])


async def revoke(subject: FirewallUnderTest, *services: int) -> None:
    await gatherResults([
        subject.firewall.revoke(GrantId(network, each))
        for network in NETWORKS for each in services
    ])


def heard(listener: Listener) -> bool:
    both = {listener.hears(each) for each in CLIENTS}
    assert len(both) == 1
    return both.pop()


@ensureDeferred
async def test_a_grant_opens_its_own_ports_and_ends_alone(make, listener) -> None:
    """Whatever other grants the network has, come and go."""
    subject = make()
    await subject.firewall.open(SERVICE)
    await allow(subject, WEB, MAIL)
    assert not heard(listener)
    await allow(subject, PROBE)
    assert heard(listener)
    await revoke(subject, WEB)
    assert heard(listener)
    await allow(subject, WEB, MONITORING)
    await revoke(subject, PROBE)
    assert heard(listener)
    await revoke(subject, MONITORING)
    assert not heard(listener)
    await allow(subject, PROBE, MONITORING)
    await revoke(subject, WEB, MAIL, MONITORING)
    assert heard(listener)
    await revoke(subject, PROBE)
    assert not heard(listener)
    for family in ("ipv4", "ipv6"):
        assert subject.registry.get_sample_value("envelope_grants", {"family": family}) == 0
    assert subject.firewall.problems() == []
    assert sum(subject.drift(kind) for kind in ("grant", "stray")) == 0


@ensureDeferred
async def test_each_has_its_own_end(make, listener) -> None:
    """In the kernel, too; and a new end is that grant's alone."""
    subject = make()
    await subject.firewall.open(SERVICE)
    await allow(subject, PROBE, lasts=-3)
    await allow(subject, WEB, lasts=600)
    assert heard(listener)
    while any(listener.hears(each) for each in CLIENTS):
        await deferLater(reactor, 0.05)
    await allow(subject, PROBE, lasts=600)
    await allow(subject, WEB, lasts=-6)
    assert heard(listener)
    await revoke(subject, WEB, PROBE)


@ensureDeferred
async def test_what_others_remove_comes_back_as_the_grant_that_it_was(make, listener) -> None:
    """And what they add for one service goes, however many there are."""
    subject = make()
    await subject.firewall.open(SERVICE)
    await allow(subject, WEB, PROBE)
    if subject.label == "inet":
        subject.kernel.run(f"delete element inet envelope grants4_1 {{ {CLIENTS[0]} }}")
    else:
        chains = subject.kernel.snapshot(4).rules
        subject.kernel.change(4, *(
            f"-D {chain} {rule}" for chain, rules in chains.items() for rule in rules
            if service_in(chain) == PROBE and rule.startswith(f"-s {CLIENTS[0]}/32 ")
        ))
    await settled(lambda: heard_by(listener))
    await revoke(subject, PROBE)
    assert not heard(listener)
    await settled(lambda: subject.drift("grant") == 1)


def heard_by(listener: Listener) -> bool:
    return listener.hears(CLIENTS[0])


@ensureDeferred
async def test_a_killed_service_leaves_nothing_after_the_next_one(make, listener) -> None:
    """The successor clears the grants of every service, and a stop gives back what was there."""
    subject = make()
    await subject.firewall.open(SERVICE)
    await allow(subject, WEB, PROBE, MAIL, MONITORING)
    await subject.reactor.kill()
    subject.firewall._release()
    assert heard(listener)
    successor = make()
    await successor.firewall.open(SERVICE)
    assert not heard(listener)
    await allow(successor, PROBE)
    assert heard(listener)
