"""Rules of others that iptables-save cannot print: the service starts, serves and stops."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults
from twisted.logger import LogLevel, globalLogPublisher

from envelope.firewall import GrantId
from tests.kernel.firewallundertest import SERVICE, FirewallUnderTest, later, settled

pytestmark = pytest.mark.kernel

A4, B4 = ip_network("203.0.113.1/32"), ip_network("203.0.113.2/32")
A6 = ip_network("2001:db8::1/128")

# Each by the table and the chain that it is in.
FOREIGN = {
    "a set in a chain of theirs": ("filter", "theirs", "ip saddr @some drop"),
    "a mark in a chain of theirs": ("filter", "theirs", "meta mark set 1"),
    "a fib lookup": ("filter", "theirs", "fib daddr type local accept"),
    "a map": ("filter", "theirs", "ct state vmap { established : accept }"),
    "a set in nat": ("nat", "theirs", "ip saddr @some meta mark set 1"),
    "a mark behind our jump": ("filter", "INPUT", "meta mark set 7"),
}


# In INPUT, before our jump, such a rule cannot be told from one that lets everybody in.
BEFORE = [name for name in FOREIGN if name != "a mark behind our jump"]


def nft(*commands: str) -> str:
    return subprocess.run(
        ["nft", "; ".join(commands)], check=True, capture_output=True, text=True).stdout


def save(family: str = "ip") -> str:
    """What nft shows of an address family, without counters."""
    return subprocess.run(["nft", "-s", "list", "ruleset", family], check=True,
                            capture_output=True, text=True).stdout


@pytest.fixture(params=FOREIGN)
def foreign(request):
    table, chain, rule = FOREIGN[request.param]
    yield table, chain, rule
    for each in ("ip filter", "ip nat", "ip6 filter"):
        subprocess.run(["nft", f"add table {each}; delete table {each}"], check=True)


def add(foreign: tuple[str, str, str]) -> None:
    table, chain, rule = foreign
    base = "{ type filter hook input priority 0; }" if chain == "INPUT" else ""
    nft(f"add table ip {table}", f"add chain ip {table} {chain} {base}",
        f"add set ip {table} some {{ type ipv4_addr; }}", f"add rule ip {table} {chain} {rule}")


@pytest.fixture
def warnings():
    told: list[str] = []

    def note(event: dict[str, Any]) -> None:
        if event["log_level"] is LogLevel.warn and "error" in event:
            told.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(note)
    yield told
    globalLogPublisher.removeObserver(note)


async def serve(subject: FirewallUnderTest) -> None:
    """Clients of both families come and go, and rules that others delete come back."""
    firewall = subject.firewall
    await gatherResults([firewall.allow(GrantId(n), later(60)) for n in (A4, B4, A6)])
    await firewall.revoke(GrantId(A4))
    listed = nft("list chain ip filter ENVELOPE-GRANTS")
    assert str(B4[0]) in listed
    assert str(A4[0]) not in listed
    nft("flush chain ip filter ENVELOPE-GRANTS")
    await settled(lambda: str(B4[0]) in nft("list chain ip filter ENVELOPE-GRANTS"))
    assert firewall.problems() == []
    await gatherResults([firewall.revoke(GrantId(n)) for n in (B4, A6)])


@pytest.mark.parametrize("foreign", BEFORE, indirect=True)
@ensureDeferred
async def test_before_the_start(tmp_path, foreign, warnings) -> None:
    """It starts, and its stop gives back what was there."""
    # The built-in chains, which iptables adds to a table of that name for good.
    subprocess.run(["iptables-nft", "-S"], check=True, capture_output=True)
    subprocess.run(["iptables-nft", "-P", "INPUT", "ACCEPT"], check=True)
    add(foreign)
    before = save()
    subject = FirewallUnderTest(tmp_path, "nft", before="")
    await subject.firewall.open(SERVICE)
    await serve(subject)
    await subject.firewall.close()
    assert save() == before


@ensureDeferred
async def test_while_it_runs(tmp_path, foreign, warnings) -> None:
    """It goes on, says where the rule is, and so does the next one after a stop."""
    subject = FirewallUnderTest(tmp_path, "nft")
    await subject.firewall.open(SERVICE)
    add(foreign)
    await serve(subject)
    done = subprocess.run(["iptables-nft-save", "-t", "filter"], capture_output=True, text=True)
    # This version drops a set from a rule that it prints, instead of failing.
    if done.returncode or "incompatible" in done.stdout:
        await settled(lambda: any("table filter" in each for each in warnings))
    await subject.firewall.close()
    after = save()
    assert "ENVELOPE" not in after
    assert "policy drop" not in after
    again = FirewallUnderTest(tmp_path, "nft", before="")
    if foreign[1] != "INPUT":
        await again.firewall.open(SERVICE)
        await serve(again)
        await again.firewall.close()
        assert save() == after


@pytest.mark.parametrize("foreign", ["a mark in a chain of theirs", "a map"], indirect=True)
@ensureDeferred
async def test_chains_that_no_rule_leads_to_are_cleared(tmp_path, foreign) -> None:
    """A service that was killed has left them, made ahead of time."""
    subprocess.run(["iptables-nft", "-P", "INPUT", "ACCEPT"], check=True)
    add(foreign)
    before = save()
    killed = FirewallUnderTest(tmp_path, "nft", before="")
    await killed.firewall.open(SERVICE)
    await killed.firewall.allow(GrantId(A4), later(60))
    assert save().count("chain ENVELOPE-END-") > 1
    await killed.reactor.kill()
    killed.firewall._release()
    subject = FirewallUnderTest(tmp_path, "nft", before="")
    await subject.firewall.open(SERVICE)
    assert "ENVELOPE-END-" not in save()
    await serve(subject)
    await subject.firewall.close()
    assert save() == before


@pytest.mark.parametrize("kind", ["nft", "legacy", "nftables"])
@ensureDeferred
async def test_a_reader_that_is_gone_for_a_while(tmp_path, kind) -> None:
    """As in an upgrade of its package: clients come and leave, and a stop takes all away."""
    subject = FirewallUnderTest(tmp_path, kind)
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(GrantId(n), later(60)) for n in (A4, A6)])
    subject.tools.order("save-fails")
    if kind == "nftables":
        # While nobody else changes rules, nothing is read.
        nft("add table ip others", "delete table ip others")
    await settled(lambda: subject.firewall.problems() != [])
    allowed = subject.firewall.allow(GrantId(B4), later(60))
    await gatherResults([subject.firewall.revoke(GrantId(A4)), allowed])
    assert subject.kernel.open_networks((4, 6)) == {B4, A6}
    await subject.firewall.close()
    assert subject.kernel.saved() == subject.before
