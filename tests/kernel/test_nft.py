"""nftables alone: elements with timeouts, the tool that stays open, the generation number."""

from __future__ import annotations

import re
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from envelope.firewall import GrantId
from envelope.firewall.kernel import Outcome
from envelope.firewall.nftables.tool import DIALECT
from tests.kernel.faultynft import NFT
from tests.kernel.firewallundertest import SERVICE, FirewallUnderTest, later, settled
from tests.kernel.udpprobe import Listener, addresses

pytestmark = pytest.mark.kernel

CLIENT, OTHER = "203.0.113.2", "2001:db8::2"
NETWORKS = [ip_network(CLIENT), ip_network(OTHER)]


@pytest.fixture
def subject(tmp_path):
    made = FirewallUnderTest(tmp_path, "nftables")
    yield made
    made.close()


@pytest.fixture
def listener():
    with Listener() as made, addresses(CLIENT, OTHER):
        yield made


def lasts(subject: FirewallUnderTest, name: str = CLIENT) -> float:
    """The timeout of a grant's element, in seconds."""
    said = subject.kernel.elements()[name]
    match = re.match(r"timeout (?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?", said)
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


@ensureDeferred
async def test_the_kernel_ends_a_grant_a_few_seconds_after_its_deadline(subject, listener) -> None:
    """The service does not count this as drift."""
    await subject.firewall.open(SERVICE)
    deadline = later(-2)
    await gatherResults([subject.firewall.allow(GrantId(n), deadline) for n in NETWORKS])
    await subject.at_rest()
    before = subject.transactions()
    for source in (CLIENT, OTHER):
        heard = time.time()
        while listener.hears(source):
            heard = time.time()
            await deferLater(reactor, 0.01)
        assert heard - deadline < 6
        assert time.time() - deadline > 3
    assert subject.kernel.elements() == {}
    for _ in range(2):
        await subject.listed()
    assert subject.transactions() == before
    assert subject.drift("grant") == 0
    await gatherResults([subject.firewall.revoke(GrantId(n)) for n in NETWORKS])


@ensureDeferred
async def test_a_new_end_replaces_the_old_one_whatever_state_the_element_is_in(subject) -> None:
    """Live, just expired, or deleted by others: the last end that was asked for holds."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    network = NETWORKS[0]
    for before in (600.0, 30.0, -4.0, -3.9):
        await firewall.allow(GrantId(network), later(before))
        if before == -3.9:
            await settled(lambda: subject.kernel.elements() == {})
        await firewall.allow(GrantId(network), later(300))
        assert 300 < lasts(subject) <= 306
        await firewall.revoke(GrantId(network))
        assert subject.kernel.elements() == {}
    assert firewall.problems() == []


@pytest.mark.parametrize("days", [2, 400, 4000])
@ensureDeferred
async def test_a_grant_may_last_for_years(subject, days) -> None:
    """A number that long is refused by nft, so the timeout is written in several units."""
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(GrantId(n), later(days * 86400)) for n in NETWORKS])
    assert subject.kernel.open_networks((4, 6)) == set(NETWORKS)
    assert re.match(rf"timeout {days}d", subject.kernel.elements()[CLIENT])
    await subject.listed()
    assert subject.drift("grant") == 0


@ensureDeferred
async def test_the_open_tool_is_restarted_after_some_transactions(subject) -> None:
    """It gets slower with every command; no change is lost, and only one runs at a time."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    for n in range(DIALECT.lifetime + 10):
        await firewall.allow(GrantId(NETWORKS[0]), later(60 + n % 2))
    await firewall.revoke(GrantId(NETWORKS[0]))
    await subject.at_rest()
    assert subject.kernel.elements() == {}
    assert subject.transactions(outcomes=(Outcome.FAILED, Outcome.TIMEOUT)) == 0
    assert not Path("/.nft.history").exists()


@ensureDeferred
async def test_a_thousand_grants_and_revocations_share_a_few_transactions(subject) -> None:
    """However long the transactions get."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    crowd = [ip_network(f"10.0.{n >> 8}.{n & 255}") for n in range(1000)]
    before = subject.transactions()
    await gatherResults([firewall.allow(GrantId(n), later(60)) for n in crowd])
    assert len(subject.kernel.elements()) == 1000
    await gatherResults([firewall.revoke(GrantId(n)) for n in crowd])
    assert subject.kernel.elements() == {}
    assert subject.transactions() <= before + 6


@ensureDeferred
async def test_an_nft_that_cannot_stay_open_is_run_once_per_transaction(tmp_path) -> None:
    """Its interactive mode may be left out of a build."""
    tool = tmp_path / "bare-nft"
    tool.write_text(
        '#!/bin/sh\ncase " $* " in *" -i "*) echo "Error: not in this build" >&2; exit 1;; esac\n'
        f'exec {NFT} "$@"\n')
    tool.chmod(0o755)
    subject = FirewallUnderTest(tmp_path, "nftables", nft=tool)
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(GrantId(n), later(60)) for n in NETWORKS])
    assert subject.kernel.open_networks((4, 6)) == set(NETWORKS)
    await gatherResults([subject.firewall.revoke(GrantId(n)) for n in NETWORKS])
    await subject.firewall.close()
    assert subject.kernel.saved() == subject.before


@ensureDeferred
async def test_changes_too_long_for_one_transaction_are_split(subject) -> None:
    """And no client is refused because of it."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    subject.tools.order("refuse-long")
    crowd = [ip_network(f"10.0.{n >> 8}.{n & 255}") for n in range(1000)]
    await gatherResults([firewall.allow(GrantId(n), later(60)) for n in crowd])
    assert len(subject.kernel.elements()) == 1000
    await gatherResults([firewall.revoke(GrantId(n)) for n in crowd])
    assert subject.kernel.elements() == {}
    assert subject.transactions(outcomes=("ok",)) < 50
    assert firewall.problems() == []


@ensureDeferred
async def test_the_table_is_not_listed_while_only_the_service_changes_rules(subject) -> None:
    """However many clients come and go; any change by others, in any table, causes a listing."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    await subject.looked(2)
    before = subject.tools.shown()
    for _ in range(5):
        await gatherResults([firewall.allow(GrantId(n), later(60)) for n in NETWORKS])
        await subject.looked(2)
        await gatherResults([firewall.revoke(GrantId(n)) for n in NETWORKS])
    assert subject.tools.shown() == before
    await subject.listed()
    assert subject.tools.shown() == before + 1


@ensureDeferred
async def test_without_a_generation_number_every_check_lists_the_table(subject) -> None:
    """And everything else works as with one."""
    subject.counts = False
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(NETWORKS[0]), later(600))
    await subject.at_rest()
    before = subject.tools.shown()
    await settled(lambda: subject.tools.shown() > before + 1)
    subject.kernel.run("flush set inet envelope grants4")
    await settled(lambda: subject.kernel.elements() != {})
    assert subject.drift("grant") == 1
