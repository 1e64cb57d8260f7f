"""What grants let in, as the kernel counts it, tried with packets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from envelope.addresses import PortRange
from envelope.config.subjects import Subject
from envelope.firewall import GrantId, Traffic, deletions
from envelope.firewall.nftables.counters import Counted, ElementCounters
from tests.kernel.firewallundertest import SERVICE, NftKernel, later, settled
from tests.kernel.udpprobe import PORT, Listener, addresses

pytestmark = pytest.mark.kernel

CLIENT, OTHER = "203.0.113.2", "2001:db8::2"
GRANTS = {each: GrantId(ip_network(each)) for each in (CLIENT, OTHER)}
# The IP packet of one byte over UDP.
SIZES = {CLIENT: 29, OTHER: 49}
# Kinds whose counts are exact.
EXACT = ("nftables", "nft")
SUBJECTS = (Subject("ndt"), Subject("probe", (PortRange("udp", PORT, PORT),)))


@pytest.fixture
def listener():
    with Listener() as made, addresses(CLIENT, OTHER):
        yield made


def send(listener: Listener, source: str, packets: int) -> None:
    for _ in range(packets):
        assert listener.hears(source)


@pytest.mark.parametrize("kind", EXACT)
@ensureDeferred
async def test_each_packet_that_a_grant_lets_in_is_counted(make, listener, kind) -> None:
    """Over all ends that it has had, and nothing before or after it."""
    subject = make(kind)
    firewall = subject.firewall
    await firewall.open(SERVICE)
    for source in GRANTS:
        assert not listener.hears(source)
    for lasts in (600, 300, 900):
        await gatherResults([firewall.allow(each, later(lasts)) for each in GRANTS.values()])
        for number, source in enumerate(GRANTS, 2):
            send(listener, source, number)
    await firewall.read_traffic()
    for number, (source, grant) in enumerate(GRANTS.items(), 2):
        expected = Traffic(3 * number, 3 * number * SIZES[source], False)
        assert firewall.traffic(grant) == expected
        send(listener, source, 1)
        ended = await firewall.revoke(grant)
        assert ended == Traffic(3 * number + 1, (3 * number + 1) * SIZES[source], True)
        assert not listener.hears(source)
        assert firewall.traffic(grant) is None
    await firewall.allow(GRANTS[CLIENT], later(60))
    assert await firewall.revoke(GRANTS[CLIENT]) == Traffic(0, 0, True)


@pytest.mark.parametrize("kind", [*EXACT, "legacy"])
@ensureDeferred
async def test_a_packet_of_a_grant_that_is_asked_for_again_is_counted_once(
    make, listener, kind
) -> None:
    """With the same end, as sessions that share a grant ask for it."""
    subject = make(kind)
    firewall = subject.firewall
    await firewall.open(SERVICE)
    end = later(600)
    for number in (1, 2, 3):
        await firewall.allow(GRANTS[CLIENT], end)
        send(listener, CLIENT, 2)
        await firewall.read_traffic()
        assert firewall.traffic(GRANTS[CLIENT]) == Traffic(2 * number, 2 * number * 29, False)
    ended = await firewall.revoke(GRANTS[CLIENT])
    assert ended is not None
    assert (ended.packets, ended.bytes) == (6, 6 * 29)


@ensureDeferred
async def test_iptables_legacy_is_read_before_few_leave(make, listener) -> None:
    """Before a rule is replaced, and before it is removed soon after that."""
    subject = make("legacy")
    firewall = subject.firewall
    await firewall.open(SERVICE)
    network = ip_network(CLIENT)
    await firewall.allow(GrantId(network), later(600))
    send(listener, CLIENT, 3)
    await firewall.allow(GrantId(network), later(900))
    send(listener, CLIENT, 2)
    await firewall.read_traffic()
    assert firewall.traffic(GrantId(network)) == Traffic(5, 5 * 29, False)
    send(listener, CLIENT, 1)
    assert await firewall.revoke(GrantId(network)) == Traffic(6, 6 * 29, False)
    assert not listener.hears(CLIENT)


@ensureDeferred
async def test_iptables_legacy_is_read_before_few_of_the_newest_move(make, listener) -> None:
    """Their rules are written anew in another chain, and count from nothing there."""
    firewall = make("legacy").firewall
    await firewall.open(SERVICE)
    await firewall.allow(GRANTS[CLIENT], later(600))
    send(listener, CLIENT, 2)
    crowd = [GrantId(ip_network(f"203.0.113.{n}")) for n in range(100, 180)]
    await gatherResults([firewall.allow(each, later(600)) for each in crowd])
    send(listener, CLIENT, 3)
    await firewall.read_traffic()
    assert firewall.traffic(GRANTS[CLIENT]) == Traffic(5, 5 * 29, False)


@ensureDeferred
async def test_grants_whose_rules_move_are_counted_on(make, listener) -> None:
    """When so many come that their rules are spread over chains, and when these leave again."""
    subject = make("nft")
    firewall = subject.firewall
    await firewall.open(SERVICE)
    crowd = [GrantId(ip_network(f"203.0.113.{n}")) for n in range(100, 180)]
    await firewall.allow(GRANTS[CLIENT], later(600))
    for number in (1, 2, 3):
        send(listener, CLIENT, 2)
        await firewall.read_traffic()
        assert firewall.traffic(GRANTS[CLIENT]) == Traffic(2 * number, 2 * number * 29, False)
        come = firewall.revoke if number == 2 else lambda each: firewall.allow(each, later(600))
        await gatherResults([come(each) for each in crowd])
    send(listener, CLIENT, 1)
    assert await firewall.revoke(GRANTS[CLIENT]) == Traffic(7, 7 * 29, True)


@ensureDeferred
async def test_a_grant_that_others_delete_is_counted_all_the_same(make, listener) -> None:
    """Element by element; what they delete with its set is known as of the last reading."""
    subject = make("nftables")
    firewall = subject.firewall
    await firewall.open(SERVICE)
    await firewall.allow(GRANTS[CLIENT], later(600))
    send(listener, CLIENT, 2)
    done = subject.transactions()
    subject.kernel.run(f"delete element inet envelope grants4 {{ {CLIENT} }}")
    await settled(lambda: subject.transactions() > done)
    send(listener, CLIENT, 3)
    await firewall.read_traffic()
    assert firewall.traffic(GRANTS[CLIENT]) == Traffic(5, 5 * 29, False)
    done = subject.transactions()
    subject.kernel.run("flush ruleset")
    await settled(lambda: subject.transactions() > done)
    send(listener, CLIENT, 1)
    assert await firewall.revoke(GRANTS[CLIENT]) == Traffic(6, 6 * 29, False)


@pytest.mark.parametrize("kind", EXACT)
@ensureDeferred
async def test_after_a_flood_of_others_changes_no_count_is_exact(
    make, listener, kind, monkeypatch
) -> None:
    """The kernel may have told of a grant's rule among what was lost; new grants are exact."""
    monkeypatch.setattr(deletions, "_BUFFER", 1 << 12)
    firewall = make(kind).firewall
    await firewall.open(SERVICE)
    await firewall.allow(GRANTS[CLIENT], later(600))
    send(listener, CLIENT, 3)
    rules = [f"add rule ip flood many ip saddr 10.0.0.{n} drop" for n in range(250)]
    NftKernel().run("add table ip flood", "add chain ip flood many", *rules)
    NftKernel().run("delete table ip flood")
    assert await firewall.revoke(GRANTS[CLIENT]) == Traffic(3, 3 * 29, False)
    await firewall.allow(GRANTS[OTHER], later(600))
    send(listener, OTHER, 2)
    assert await firewall.revoke(GRANTS[OTHER]) == Traffic(2, 2 * 49, True)


class Unasked(ElementCounters):
    """A process without CAP_NET_ADMIN: the kernel tells it nothing and answers nothing."""

    def listen(self) -> None:
        """Hear nothing."""

    def counts(self, name: str) -> Iterator[list[Counted]]:
        raise PermissionError(errno.EPERM, "Operation not permitted")


@ensureDeferred
async def test_without_privileges_the_tool_reads_the_counters(make, listener) -> None:
    """A session's last figures are those of the last reading then."""
    subject = make("nftables")
    subject.firewall._tables[0][0]._counters = Unasked()
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(each, later(600)) for each in GRANTS.values()])
    for number, source in enumerate(GRANTS, 2):
        send(listener, source, number)
    await subject.firewall.read_traffic()
    for number, (source, grant) in enumerate(GRANTS.items(), 2):
        expected = Traffic(number, number * SIZES[source], False)
        assert subject.firewall.traffic(grant) == expected
        send(listener, source, 1)
        assert await subject.firewall.revoke(grant) == expected


@ensureDeferred
async def test_an_nft_that_knows_no_counters_lets_in_all_the_same(make, listener) -> None:
    """And nothing is told of what it does not know."""
    subject = make("nftables")
    subject.tools.order("no-counters")
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GRANTS[CLIENT], later(600))
    send(listener, CLIENT, 1)
    await subject.firewall.read_traffic()
    assert subject.firewall.traffic(GRANTS[CLIENT]) is None
    await subject.listed()
    assert await subject.firewall.revoke(GRANTS[CLIENT]) is None
    assert subject.firewall.problems() == []


@pytest.mark.parametrize("kind", EXACT)
@ensureDeferred
async def test_services_count_for_themselves(make, listener, kind) -> None:
    """A packet counts for the grant that has let it in."""
    subject = make(kind, subject=SUBJECTS)
    firewall = subject.firewall
    await firewall.open(SERVICE)
    network = ip_network(CLIENT)
    await firewall.allow(GrantId(network, 1), later(600))
    send(listener, CLIENT, 4)
    await firewall.allow(GrantId(network, 2), later(600))
    assert (await firewall.revoke(GrantId(network, 1))).packets == 4
    send(listener, CLIENT, 2)
    assert (await firewall.revoke(GrantId(network, 2))).packets == 2
    assert not listener.hears(CLIENT)
