"""Others change our nftables table: repaired in one transaction, counted, and logged once."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from envelope.firewall import GrantId
from tests.kernel.firewallundertest import SERVICE, FirewallUnderTest, NftKernel, later, settled
from tests.kernel.test_interference import Complaints

pytestmark = pytest.mark.kernel

LIVE, OTHER = ip_network("203.0.113.1/32"), ip_network("203.0.113.2/32")
OURS = "inet envelope"
# By name: the commands (`{jump}` and `{fourth}`: handles of our rules) and their kinds of drift.
INTERFERENCE: dict[str, tuple[list[str], set[str]]] = {
    "our chain flushed": ([f"flush chain {OURS} baseline"], {"baseline"}),
    "one of our rules deleted": ([f"delete rule {OURS} baseline handle {{fourth}}"], {"baseline"}),
    "our rules out of order": (
        [f"delete rule {OURS} baseline handle {{fourth}}",
         f"add rule {OURS} baseline tcp dport 8880 accept"], {"baseline"}),
    "the grants' rules flushed": ([f"flush chain {OURS} grants"], {"baseline"}),
    "the grants flushed": ([f"flush set {OURS} grants4"], {"grant"}),
    "a live grant deleted": ([f"delete element {OURS} grants4 {{{{ 203.0.113.1 }}}}"], {"grant"}),
    "a live grant for ever": (
        [f"delete element {OURS} grants4 {{{{ 203.0.113.1 }}}}",
         f"add element {OURS} grants4 {{{{ 203.0.113.1 }}}}"], {"grant"}),
    "a live grant that ends too late": (
        [f"delete element {OURS} grants4 {{{{ 203.0.113.1 }}}}",
         f"add element {OURS} grants4 {{{{ 203.0.113.1 timeout 90s }}}}"], {"grant"}),
    "a grant nobody asked for": (
        [f"add element {OURS} grants6 {{{{ 2001:db8::9 timeout 1h }}}}"], {"stray"}),
    "a grant for ever with a comment": (
        [f'add element {OURS} grants4 {{{{ 203.0.113.9 comment "a, b }}}} expires 4s" }}}}'],
        {"stray"}),
    "a set of another kind": (
        [f"flush chain {OURS} grants", f"delete set {OURS} grants4",
         f"add set {OURS} grants4 {{{{ type ipv4_addr; flags interval; }}}}",
         f"add element {OURS} grants4 {{{{ 10.0.0.0/8 }}}}"], {"chain", "baseline", "grant"}),
    "a set that does not count": (
        [f"flush chain {OURS} grants", f"delete set {OURS} grants4",
         f"add set {OURS} grants4 {{{{ type ipv4_addr; flags timeout; }}}}"],
        {"chain", "baseline", "grant"}),
    "a set gone": (
        [f"flush chain {OURS} grants", f"delete set {OURS} grants6"], {"chain", "baseline"}),
    "the jump deleted": ([f"delete rule {OURS} input handle {{jump}}"], {"jump"}),
    "the jump doubled": ([f"add rule {OURS} input jump baseline"], {"jump"}),
    "the policy reset": ([f"add chain {OURS} input {{{{ policy accept; }}}}"], {"policy"}),
    "a rule above us": ([f"insert rule {OURS} input ip saddr 9.9.9.9 accept"], {"jump"}),
    "another hook": (
        [f"flush chain {OURS} input", f"delete chain {OURS} input",
         f"add chain {OURS} input {{{{ type filter hook output priority filter; }}}}",
         f"add rule {OURS} input jump baseline"], {"chain", "jump"}),
    "our chain without its hook": (
        [f"flush chain {OURS} input", f"delete chain {OURS} input",
         f"add chain {OURS} input"], {"chain", "jump"}),
    "a chain of ours gone": (
        [f"flush chain {OURS} input", f"flush chain {OURS} baseline",
         f"delete chain {OURS} baseline"], {"chain", "jump"}),
    "the table put to sleep": ([f"add table {OURS} {{{{ flags dormant; }}}}"], {"policy"}),
    "the table deleted": ([f"delete table {OURS}"], {"chain", "grant"}),
    "everything deleted": (["flush ruleset"], {"chain", "grant"}),
}
FOREIGN = [
    f"add rule {OURS} input ip saddr 9.9.9.8 drop",
    f"add rule {OURS} baseline ip saddr 9.9.9.6 drop",
    f"insert rule {OURS} baseline ip saddr 9.9.9.5 drop",
    f"add rule {OURS} grants ip saddr 9.9.9.4 drop",
    f"add chain {OURS} theirs",
    f"add rule {OURS} theirs ip saddr 9.9.9.3 drop",
    "add table ip others",
    "add chain ip others input",
    "add rule ip others input ip saddr 9.9.9.2 drop",
]


def interfere(kernel: NftKernel, commands: list[str]) -> None:
    """Run an entry's commands in one transaction."""
    listed = kernel.run(f"list table {OURS}")
    handles = {
        name: re.search(rf"{rule} # handle (\d+)", listed)[1]
        for name, rule in (("jump", "jump baseline"), ("fourth", "tcp dport 8880 accept"))
    }
    kernel.run(*(command.format(**handles) for command in commands))


@pytest.fixture
def subject(tmp_path):
    # What other tests left would go with everything that is deleted here.
    NftKernel().run("flush ruleset")
    made = FirewallUnderTest(tmp_path, "nftables")
    yield made
    made.kernel.run("add table ip others", "delete table ip others")
    made.close()


def foreign(rules: str) -> list[str]:
    return [line.strip() for line in rules.splitlines() if "9.9.9." in line]


def ours(rules: str) -> list[str]:
    """Our rules in their order, without timeouts: a repair writes those anew."""
    return [re.sub(r"timeout \w+", "timeout", line) for line in rules.splitlines()
            if "9.9.9." not in line]


@pytest.mark.parametrize("what", INTERFERENCE)
@ensureDeferred
async def test_interference_is_repaired_in_one_transaction(subject, what) -> None:
    """It is counted by kind and logged once; our rules, live grants included, are as before."""
    commands, kinds = INTERFERENCE[what]
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    await gatherResults([firewall.allow(GrantId(n), later(600)) for n in (LIVE, OTHER)])
    good = kernel.saved()
    await subject.at_rest()
    before = subject.transactions()
    with Complaints() as complaints:
        interfere(kernel, commands)
        await settled(lambda: subject.transactions() > before)
        await settled(lambda: sorted(ours(kernel.saved())) == sorted(ours(good)))
        # Another look finds nothing to repair, and the ones after it list nothing.
        await subject.listed()
        await subject.looked(3)
        await subject.at_rest()
    assert subject.transactions() == before + 1
    assert len(complaints.seen) == 1
    counted = {kind for kind in ("policy", "jump", "chain", "baseline", "grant", "stray")
               if subject.drift(kind)}
    assert counted == kinds
    assert foreign(kernel.saved()) == (["ip saddr 9.9.9.9 accept"] if "above" in what else [])


@ensureDeferred
async def test_a_dormant_table_with_another_hook_is_repaired_in_two_transactions(subject) -> None:
    """The kernel refuses both changes in one."""
    await subject.firewall.open(SERVICE)
    good = subject.kernel.saved()
    await subject.at_rest()
    interfere(subject.kernel, INTERFERENCE["another hook"][0])
    interfere(subject.kernel, INTERFERENCE["the table put to sleep"][0])
    await settled(lambda: sorted(ours(subject.kernel.saved())) == sorted(ours(good)))
    assert subject.transactions(outcomes=("failed",)) == 0


KEPT = [
    what for what, (commands, _) in INTERFERENCE.items()
    if not re.search("flush (chain|ruleset)|delete (chain|table)", " ".join(commands))
]


@pytest.mark.parametrize("what", KEPT)
@ensureDeferred
async def test_rules_of_others_keep_their_place(subject, what) -> None:
    """In every chain, ours included, a repair keeps them and their order."""
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    await gatherResults([firewall.allow(GrantId(n), later(600)) for n in (LIVE, OTHER)])
    good = kernel.saved()
    kernel.run(*FOREIGN)
    await subject.at_rest()
    before = subject.transactions()
    interfere(kernel, INTERFERENCE[what][0])
    theirs = foreign(kernel.saved())
    await settled(lambda: subject.transactions() > before)
    await subject.at_rest()
    now = kernel.saved()
    assert foreign(now) == theirs
    assert set(ours(now)) - {"\tchain theirs {", "\tchain input {", "table ip others {"} <= set(
        ours(good))


@pytest.mark.parametrize("what", ["the grants flushed", "our chain flushed"])
@ensureDeferred
async def test_interference_is_repaired_once_the_tool_works_again(subject, what) -> None:
    """However often the tool refuses; it is logged once, and counted once."""
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    await gatherResults([firewall.allow(GrantId(n), later(600)) for n in (LIVE, OTHER)])
    good = kernel.saved()
    await subject.at_rest()
    with Complaints() as complaints:
        subject.tools.order("fail")
        interfere(kernel, INTERFERENCE[what][0])
        await settled(lambda: subject.transactions(outcomes=("failed",)) >= 4)
        assert "told to fail" in firewall.problems()[0]
        subject.tools.order()
        await settled(lambda: not firewall.problems())
    assert ours(kernel.saved()) == ours(good)
    assert len(complaints.seen) == 1
    (kind,) = INTERFERENCE[what][1]
    assert subject.drift(kind) == (2 if kind == "grant" else 1)


@ensureDeferred
async def test_another_that_insists_on_the_first_place_is_not_fought_for_ever(subject) -> None:
    """After five moves there are pauses; a warning says so, and grants go on."""
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    rule = "iifname \"wg0\" accept"
    for moves in range(1, 7):
        kernel.run(f"insert rule {OURS} input {rule}")
        if moves < 6:
            await settled(lambda moves=moves: subject.drift("jump") == moves and (
                kernel.saved().index("jump baseline") < kernel.saved().index(rule)))
            await subject.at_rest()
    await settled(lambda: firewall.warnings() != [])
    await firewall.allow(GrantId(LIVE), later(60))
    assert LIVE in kernel.open_networks()
    assert firewall.problems() == []
    assert subject.drift("jump") == 5
    assert kernel.saved().index("jump baseline") > kernel.saved().index(rule)


@ensureDeferred
async def test_a_rule_of_others_in_our_chains_that_lets_packets_in_is_a_warning(subject) -> None:
    """It stays, and is logged once, whatever it counts."""
    await subject.firewall.open(SERVICE)
    subject.kernel.run(f"insert rule {OURS} baseline counter accept")
    await settled(lambda: subject.firewall.warnings() != [])
    (warning,) = subject.firewall.warnings()
    assert "baseline: counter accept" in warning
    subject.kernel.run(f"add rule {OURS} baseline ip saddr 9.9.9.9 drop")
    await subject.listed()
    assert subject.firewall.warnings() == [warning]
    assert subject.firewall.problems() == []
