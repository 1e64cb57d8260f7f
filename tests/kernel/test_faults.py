"""Failing tools: an executable in the tool's place fails, hangs, garbles or dies on demand."""

from __future__ import annotations

import subprocess
import time
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults

from envelope.config import Config
from envelope.firewall import GrantId
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import NftablesFirewall
from envelope.metrics import new_registry
from tests.kernel.faultyiptables import POISON4
from tests.kernel.faultynft import NFT
from tests.kernel.firewallundertest import (
    ALL_KINDS,
    KINDS,
    SERVICE,
    FirewallUnderTest,
    later,
    refused,
    settled,
)

pytestmark = pytest.mark.kernel

NETWORKS = [ip_network(f"203.0.113.{n}/32") for n in range(1, 9)]
POISON = ip_network(f"{POISON4}/32")


@pytest.fixture(params=ALL_KINDS)
def subject(request, tmp_path):
    made = FirewallUnderTest(tmp_path, request.param)
    yield made
    made.close()


@ensureDeferred
async def test_a_change_that_the_kernel_refuses_fails_alone(subject) -> None:
    """The other changes of the same batch succeed."""
    await subject.firewall.open(SERVICE)
    subject.tools.order("poison")
    neighbours = [subject.firewall.allow(GrantId(n), later(60)) for n in NETWORKS]
    assert "told to fail" in await refused(subject.firewall.allow(GrantId(POISON), later(60)))
    await gatherResults(neighbours)
    assert subject.kernel.open_networks() == set(NETWORKS)
    subject.tools.order()
    await settled(lambda: not subject.firewall.problems())


@ensureDeferred
async def test_a_revocation_is_tried_again_until_it_holds(subject) -> None:
    """Until then it is reported as a problem, and other grants and revocations succeed."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(POISON), later(600))
    subject.tools.order("poison")
    gone = subject.firewall.revoke(GrantId(POISON))
    await settled(lambda: subject.firewall.problems() != [])
    assert "1 revocations outstanding" in subject.firewall.problems()[0]
    await subject.firewall.allow(GrantId(NETWORKS[0]), later(60))
    await subject.firewall.revoke(GrantId(NETWORKS[0]))
    assert not gone.called
    assert subject.kernel.open_networks() == {POISON}
    subject.tools.order()
    await gone
    assert subject.kernel.open_networks() == set()
    await settled(lambda: not subject.firewall.problems())


@ensureDeferred
async def test_a_revocation_is_answered_once_the_kernel_has_ended_the_grant(subject) -> None:
    """So a broken tool cannot occupy a slot for ever."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(POISON), later(-3))
    subject.tools.order("poison")
    await subject.firewall.revoke(GrantId(POISON)).addTimeout(15, reactor)
    # An iptables rule stays after its end; nftables removes the element.
    assert subject.kernel.open_networks() == (set() if subject.label == "inet" else {POISON})


@pytest.mark.parametrize("order", ["fail", "die-before-commit", "save-fails fail"])
@ensureDeferred
async def test_a_tool_that_fails_refuses_and_leaves_nothing(subject, order) -> None:
    """And the next grant succeeds once the tool works."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(NETWORKS[0]), later(60))
    subject.tools.order(*order.split())
    asked = time.monotonic()
    answers = [subject.firewall.allow(GrantId(n), later(60)) for n in NETWORKS[1:4]]
    await DeferredList(answers, consumeErrors=True)
    assert time.monotonic() - asked < 10
    assert subject.kernel.open_networks() == {NETWORKS[0]}
    subject.tools.order()
    await subject.firewall.allow(GrantId(NETWORKS[5]), later(60)).addTimeout(20, reactor)
    await subject.firewall.revoke(GrantId(NETWORKS[0]))
    assert subject.kernel.open_networks() == {NETWORKS[5]}


@pytest.mark.parametrize("order", ["hang", "garble"])
@ensureDeferred
async def test_a_tool_that_does_not_answer_is_given_up(subject, order) -> None:
    """Within the 10 s that a client may wait for its answer 500."""
    await subject.firewall.open(SERVICE)
    subject.tools.order(order)
    asked = time.monotonic()
    await refused(subject.firewall.allow(GrantId(NETWORKS[0]), later(60)))
    assert time.monotonic() - asked < 10
    subject.tools.order()
    await subject.firewall.allow(GrantId(NETWORKS[1]), later(60)).addTimeout(20, reactor)
    # A tool that applied the change without an answer has let the client in: the next look
    # at the kernel removes that grant.
    await settled(lambda: subject.kernel.open_networks() == {NETWORKS[1]})


@ensureDeferred
async def test_a_tool_that_does_not_echo_is_run_once_per_transaction(subject) -> None:
    """Older versions of the tools need this."""
    subject.tools.order("silent")
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(GrantId(n), later(60)) for n in NETWORKS])
    assert subject.kernel.open_networks() == set(NETWORKS)
    await gatherResults([subject.firewall.revoke(GrantId(n)) for n in NETWORKS])
    assert subject.kernel.open_networks() == set()


@pytest.mark.parametrize("order", ["fail", "save-fails", "save-garbles"])
@ensureDeferred
async def test_a_failed_start_changes_nothing(subject, order) -> None:
    """And its error names the reason."""
    subject.tools.order(order)
    assert await refused(subject.firewall.open(SERVICE))
    assert subject.kernel.saved() == subject.before


@pytest.mark.parametrize("subject", ["legacy", "nftables"], indirect=True)
@ensureDeferred
async def test_close_reports_a_start_that_could_not_be_taken_back(subject) -> None:
    """The tool applies, dies before its answer, then refuses; the next start clears the rules."""
    subject.tools.order("die-before-echo@1", "fail@2")
    assert "told to fail" not in await refused(subject.firewall.open(SERVICE))
    assert subject.kernel.saved() != subject.before
    assert "the rules are still in force: " in await refused(subject.firewall.close())
    subject.tools.order()
    await subject.firewall.open(SERVICE)
    await subject.firewall.close()
    assert subject.kernel.saved() == subject.before


@pytest.mark.parametrize("subject", KINDS, indirect=True)
@ensureDeferred
async def test_where_the_tables_cannot_be_listed_the_filter_table_is_read_by_name(subject) -> None:
    """iptables-legacy finds no list of tables in some user namespaces; everything else works."""
    subject.tools.order("save-lists-no-tables")
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(NETWORKS[0]), later(60))
    assert subject.kernel.open_networks() == {NETWORKS[0]}
    await subject.firewall.close()
    assert subject.kernel.saved() == subject.before
    if subject.kernel.kind == "nft":
        # The service takes the table for one that was there before, and leaves it; other tests
        # count tables.
        subprocess.run([NFT, "delete table ip filter; delete table ip6 filter"], check=True)


@ensureDeferred
async def test_a_second_instance_is_refused_before_it_changes_any_rule(subject, tmp_path) -> None:
    """The first one goes on undisturbed."""
    await subject.firewall.open(SERVICE)
    rules = subject.kernel.saved()
    made = NftablesFirewall if subject.label == "inet" else IptablesFirewall
    second = made(reactor, Config(device="lo"), FirewallMetrics(new_registry()))
    assert "another envelope" in await refused(second.open(SERVICE))
    assert subject.kernel.saved() == rules


@pytest.mark.parametrize("where", ["_first_lines", "_confirm"])
@ensureDeferred
async def test_a_start_that_breaks_changes_nothing(subject, where) -> None:
    """By an error that nobody foresaw, in the last table, before or after it was written."""

    def broken(*_: object) -> None:
        raise RuntimeError("unforeseen")

    table, _ = subject.firewall._tables[-1]
    setattr(table, where, broken)
    with pytest.raises(RuntimeError, match="unforeseen"):
        await subject.firewall.open(SERVICE)
    assert subject.kernel.saved() == subject.before
    delattr(table, where)
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(NETWORKS[0]), later(60))
