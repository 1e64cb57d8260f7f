"""Bans that others make in INPUT hold, whatever a grant or `--allow` opens; tried with packets.

The rules are those of fail2ban's actions iptables-multiport and nftables-multiport.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from envelope.addresses import PortRange
from envelope.firewall import GrantId
from envelope.firewall.kernel import DriftKind
from tests.kernel.firewallundertest import (
    FAMILY_TOOLS,
    KINDS,
    SERVICE,
    FirewallUnderTest,
    NftKernel,
    later,
    settled,
)
from tests.kernel.test_nft_start_stop import OPERATORS
from tests.kernel.udpprobe import PORT, Listener, addresses

pytestmark = pytest.mark.kernel

BANNED = {4: "203.0.113.2", 6: "2001:db8::2"}
OTHER = {4: "203.0.113.3", 6: "2001:db8::3"}
OPEN = (PortRange("udp", PORT, PORT),)


@pytest.fixture
def listener():
    with Listener() as made, addresses(*BANNED.values(), *OTHER.values()):
        yield made


@pytest.fixture(autouse=True)
def cleared():
    """Remove the tables that a ban made: iptables-nft keeps them, and other tests compare all."""
    before = tables()
    yield
    for table in tables() - before:
        NftKernel().run(f"delete {table}")


def tables() -> set[str]:
    """The tables that nft lists, such as `table ip filter`."""
    return set(re.findall("table .*", NftKernel().run("list tables")))


async def let_in(subject: FirewallUnderTest, *sources: str) -> None:
    """Make a grant for each source."""
    grants = [GrantId(ip_network(source)) for source in sources]
    await gatherResults([subject.firewall.allow(grant, later(600)) for grant in grants])


async def looks(subject: FirewallUnderTest, times: int) -> None:
    """Wait for so many looks at iptables' rules."""
    for _ in range(times):
        await subject.at_rest()
        await settled(lambda: len(subject.reactor.children) > subject.writers)
        await subject.at_rest()


def ban(subject: FirewallUnderTest, chain: str, source: dict[int, str]) -> None:
    """Ban a source of each family as fail2ban does: a chain, and a jump at the head of INPUT."""
    for family, address in source.items():
        reject = "icmp-port-unreachable" if family == 4 else "icmp6-port-unreachable"
        subject.kernel.change(
            family, f":{chain} - [0:0]", f"-A {chain} -j RETURN",
            f"-I INPUT -p udp -m multiport --dports {PORT} -j {chain}",
            f"-I {chain} 1 -s {address} -j REJECT --reject-with {reject}")


def unban(subject: FirewallUnderTest, chain: str) -> None:
    """Take a ban's jump and chain away."""
    for family in FAMILY_TOOLS:
        subject.kernel.change(
            family, f"-D INPUT -p udp -m multiport --dports {PORT} -j {chain}", f"-F {chain}",
            f"-X {chain}")


@pytest.mark.parametrize("baseline", ["service", "operator"])
@pytest.mark.parametrize("kind", KINDS)
@ensureDeferred
async def test_a_ban_from_before_the_start_and_one_from_later_hold(
    make, listener, kind, baseline
) -> None:
    """Against `--allow` and against a grant; neither is drift, and a stop leaves both."""
    subject = make(kind, allow=OPEN, baseline=baseline)
    ban(subject, "f2b-early", BANNED)
    early = subject.kernel.saved()
    await subject.firewall.open(SERVICE)
    await let_in(subject, *BANNED.values(), *OTHER.values())
    for family in FAMILY_TOOLS:
        assert not listener.hears(BANNED[family])
        assert listener.hears(OTHER[family])
    ban(subject, "f2b-later", OTHER)
    await looks(subject, 2)
    for family in FAMILY_TOOLS:
        assert not listener.hears(BANNED[family])
        assert not listener.hears(OTHER[family])
    assert sum(subject.drift(kind) for kind in DriftKind) == 0
    unban(subject, "f2b-later")
    for family in FAMILY_TOOLS:
        assert listener.hears(OTHER[family])
    await subject.firewall.close()
    assert subject.kernel.saved() == early
    unban(subject, "f2b-early")


@ensureDeferred
async def test_a_ban_holds_beside_rules_that_cannot_be_printed(make, listener) -> None:
    """Its chain is read by itself; one that holds such a rule is not gone behind."""
    subject = make("nft", allow=OPEN)
    ban(subject, "f2b-early", BANNED)
    nft = NftKernel()
    nft.run("add chain ip filter theirs", "add rule ip filter theirs meta mark set 1")
    await subject.firewall.open(SERVICE)
    assert not listener.hears(BANNED[4])
    await looks(subject, 2)
    nft.run("add rule ip filter f2b-early meta mark set 1")
    await looks(subject, 2)
    assert not listener.hears(BANNED[4])
    assert subject.drift(DriftKind.JUMP) == 0
    await subject.firewall.close()
    await subject.firewall.open(SERVICE)
    assert listener.hears(BANNED[4])
    await subject.firewall.close()
    nft.run("flush chain ip filter theirs", "delete chain ip filter theirs")
    unban(subject, "f2b-early")


@pytest.mark.parametrize("kind", KINDS)
@ensureDeferred
async def test_what_accepts_is_overtaken_and_the_bans_are_not(make, listener, kind) -> None:
    """Our jump moves to just behind the rules that only refuse."""
    subject = make(kind)
    await subject.firewall.open(SERVICE)
    ban(subject, "f2b-later", BANNED)
    await let_in(subject, *BANNED.values())
    accept = f"-s {OTHER[4]}/32 -j ACCEPT"
    subject.kernel.change(4, f"-I INPUT 2 {accept}")
    await settled(lambda: subject.drift(DriftKind.JUMP) == 1)
    await looks(subject, 2)
    assert not listener.hears(OTHER[4])
    assert not listener.hears(BANNED[4])
    entries = subject.kernel.snapshot(4).rules["INPUT"]
    assert [*map(entries.index, ("-j ENVELOPE", accept))] == [1, 2]
    assert subject.drift(DriftKind.JUMP) == 1
    subject.kernel.change(4, f"-D INPUT {accept}")
    unban(subject, "f2b-later")


@ensureDeferred
async def test_a_ban_in_a_table_of_nft_holds(make, listener) -> None:
    """A reject in any table is final."""
    subject = make("nftables", allow=OPEN)
    subject.kernel.run(
        "add table inet f2b-table",
        "add chain inet f2b-table f2b-chain { type filter hook input priority -1; }",
        "add set inet f2b-table addr-set-x { type ipv4_addr; }",
        f"add rule inet f2b-table f2b-chain udp dport {{ {PORT} }} ip saddr @addr-set-x reject",
        f"add element inet f2b-table addr-set-x {{ {BANNED[4]} }}")
    await subject.firewall.open(SERVICE)
    await let_in(subject, BANNED[4], OTHER[4])
    assert not listener.hears(BANNED[4])
    assert listener.hears(OTHER[4])
    subject.kernel.run("delete table inet f2b-table")


@ensureDeferred
async def test_bans_in_an_operators_own_chain_of_nft_hold(make, listener) -> None:
    """Those from before the start and from later; what accepts before us is overtaken."""
    subject = make("nftables", baseline="operator")
    place = "inet envelope input"
    subject.kernel.run(*OPERATORS, "add chain inet envelope bans",
                       f"add rule inet envelope bans ip saddr {BANNED[4]} reject",
                       f"insert rule {place} udp dport {PORT} jump bans")
    try:
        early = subject.kernel.saved()
        await subject.firewall.open(SERVICE)
        await let_in(subject, *BANNED.values(), OTHER[4])
        assert not listener.hears(BANNED[4])
        assert listener.hears(BANNED[6])
        subject.kernel.run(f"insert rule {place} ip6 saddr {BANNED[6]} reject")
        await subject.listed()
        await subject.listed()
        assert not listener.hears(BANNED[4])
        assert not listener.hears(BANNED[6])
        assert subject.drift(DriftKind.JUMP) == 0
        # The jump moves behind the ban before the rule that accepts, and not behind others.
        subject.kernel.run(f"insert rule {place} ip saddr 198.51.100.9 accept",
                           f"insert rule {place} ip saddr {OTHER[4]} reject")
        await settled(lambda: subject.drift(DriftKind.JUMP) == 1)
        await subject.listed()
        listed = subject.kernel.saved()
        assert listed.index("jump grants") < listed.index("198.51.100.9 accept")
        assert not listener.hears(OTHER[4])
        subject.kernel.run(f"flush chain {place}")
        await settled(lambda: subject.drift(DriftKind.JUMP) == 2)
        await subject.firewall.close()
        assert "bans" in early
        assert "grants" not in subject.kernel.saved()
    finally:
        subject.kernel.run("delete table inet envelope")
