"""nftables alone: starts and stops, and tables that others own."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from envelope.firewall import FirewallError, GrantId
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import NftablesFirewall
from envelope.metrics import new_registry
from tests.kernel.firewallundertest import SERVICE, FirewallUnderTest, later, refused
from tests.kernel.udpprobe import PORT, Listener, addresses

pytestmark = pytest.mark.kernel

CLIENT, OTHER = "203.0.113.2", "2001:db8::2"
OPERATORS = (
    "add table inet envelope",
    "add chain inet envelope input { type filter hook input priority filter; policy drop; }",
    "add rule inet envelope input meta l4proto { icmp, ipv6-icmp } accept",
    f"add rule inet envelope input udp dport {PORT} reject",
)


@pytest.fixture
def subject(tmp_path):
    made = FirewallUnderTest(tmp_path, "nftables")
    yield made
    made.close()


@pytest.fixture
def listener():
    with Listener() as made, addresses(CLIENT, OTHER):
        yield made


@ensureDeferred
async def test_a_table_that_is_not_ours_is_not_touched(subject) -> None:
    """The start fails and says what to do."""
    subject.kernel.run("add table inet envelope", "add chain inet envelope theirs")
    before = subject.kernel.saved()
    assert "nft delete table inet envelope" in await refused(subject.firewall.open(SERVICE))
    assert subject.kernel.saved() == before
    subject.kernel.run("delete table inet envelope")


@ensureDeferred
async def test_an_operators_table_gets_only_what_grants_need(tmp_path, listener) -> None:
    """The stop removes it again; a start clears what a killed service left in the table."""
    subject = FirewallUnderTest(tmp_path, "nftables", baseline="operator", proxy_port=(80,))
    kernel = subject.kernel
    kernel.run(*OPERATORS)
    before = kernel.saved()
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(ip_network(CLIENT)), later(60))
    assert set(kernel.elements()) == {CLIENT, "ipv4"}
    assert listener.hears(CLIENT)
    assert not listener.hears(OTHER)
    assert kernel.saved().index("jump grants") < kernel.saved().index("ipv6-icmp }")
    await subject.reactor.kill()
    subject.firewall._release()
    successor = NftablesFirewall(reactor, subject.config, FirewallMetrics(new_registry()))
    await successor.open(SERVICE)
    assert kernel.elements() == {}
    assert kernel.saved().count("jump grants") == 1
    await successor.close()
    assert kernel.saved() == before
    kernel.run("delete table inet envelope")


@pytest.mark.parametrize("there", [
    [], ["add table inet envelope"],
    ["add table inet envelope", "add chain inet envelope input"],
    ["add table inet envelope",
     "add chain inet envelope input { type filter hook output priority filter; }"],
])
@ensureDeferred
async def test_a_start_without_the_operators_chain_fails(tmp_path, there) -> None:
    """One line names what is missing."""
    subject = FirewallUnderTest(tmp_path, "nftables", baseline="operator")
    if there:
        subject.kernel.run(*there)
    before = subject.kernel.saved()
    assert "own rules in the chain input" in await refused(subject.firewall.open(SERVICE))
    assert subject.kernel.saved() == before
    subject.kernel.run("add table inet envelope", "delete table inet envelope")


@ensureDeferred
async def test_keep_leaves_the_default_drop_without_grants(tmp_path, listener) -> None:
    """Even if others have just broken it; the next clean stop restores the first rules."""
    subject = FirewallUnderTest(tmp_path, "nftables", on_stop="keep")
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(ip_network(CLIENT)), later(60))
    subject.kernel.run("flush chain inet envelope baseline")
    await subject.firewall.close()
    assert subject.kernel.elements() == {}
    assert not listener.hears(CLIENT)
    assert "iifname" in subject.kernel.saved()
    config = FirewallUnderTest(tmp_path, "nftables").config
    again = NftablesFirewall(reactor, config, FirewallMetrics(new_registry()))
    await again.open(SERVICE)
    await again.close()
    assert subject.kernel.saved() == subject.before


@ensureDeferred
async def test_a_stop_that_cannot_remove_the_rules_fails(tmp_path) -> None:
    """They stay in force, and the next service's stop removes them."""
    subject = FirewallUnderTest(tmp_path, "nftables")
    await subject.firewall.open(SERVICE)
    subject.tools.order("fail")
    with pytest.raises(FirewallError, match="still in force: nft: told to fail"):
        await subject.firewall.close()
    assert "policy drop" in subject.kernel.saved()
    subject.tools.order()
    again = NftablesFirewall(reactor, subject.config, FirewallMetrics(new_registry()))
    await again.open(SERVICE)
    await again.close()
    assert subject.kernel.saved() == subject.before
