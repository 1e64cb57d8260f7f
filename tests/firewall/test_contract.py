"""What every `IFirewall` promises: one suite over the one in memory and the real kernels."""

from __future__ import annotations

import inspect
import re
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall import GrantId, IFirewall, RulesInForce
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.iptables.rules import GRANTS, read_grant
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.memory import MemoryFirewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import NftablesFirewall
from envelope.metrics import as_text, new_registry
from tests.support.environment import need_own_network

SERVICE = (PortRange("tcp", 8880, 8880),)
A4, B4 = ip_network("203.0.113.7/32"), ip_network("203.0.113.8/32")
A6 = ip_network("2001:db8::7/128")


class Memory:
    """The firewall in memory, and what it holds."""

    def __init__(self) -> None:
        self.firewall = MemoryFirewall()

    def open_networks(self) -> set[object]:
        return {grant.network for grant in self.firewall.grants}

    def baseline_holds(self) -> bool:
        return self.firewall.is_open

    def close(self) -> None:
        blockon(self.firewall.close())


    def harm(self, chain: bool) -> list[str]:
        return []


class Nftables:
    """The real firewall with nftables, and what nft shows of its table."""

    table = "inet"

    def __init__(self) -> None:
        need_own_network()
        self.registry = new_registry()
        metrics = FirewallMetrics(self.registry)
        self.firewall = NftablesFirewall(reactor, Config(device="lo"), metrics)

    def harm(self, chain: bool) -> list[str]:
        """Make the kernel differ: remove a chain, or add a rule; returns what is then told."""
        if chain:
            subprocess.run(["nft", "flush", "chain", "inet", "envelope", "grants"], check=True)
            return ["nft add rule inet envelope grants ip saddr @grants4 accept"]
        rule = "add rule inet envelope baseline ip saddr 203.0.113.99 accept"
        subprocess.run(["nft", *rule.split()], check=True)
        return [f"nft {rule}"]

    def ruleset(self) -> str:
        return subprocess.run(
            ["nft", "list", "ruleset"], check=True, capture_output=True, text=True
        ).stdout

    def open_networks(self) -> set[object]:
        elements = ",".join(re.findall(r"elements = \{([^}]*)\}", self.ruleset()))
        return {ip_network(each.split()[0]) for each in elements.split(",") if each.strip()}

    def baseline_holds(self) -> bool:
        return "policy drop;\n\t\tjump baseline\n" in self.ruleset()

    def close(self) -> None:
        blockon(self.firewall.close())
        assert "envelope" not in self.ruleset()


class Kernel:
    """The real firewall and what iptables-save shows of it."""

    table = "ipv4"

    def __init__(self, kind: str) -> None:
        need_own_network()
        self.tools = [Path(f"/usr/sbin/{name}-{kind}") for name in ("iptables", "ip6tables")]
        config = Config(device="lo", iptables=self.tools[0], ip6tables=self.tools[1])
        self.registry = new_registry()
        self.firewall = IptablesFirewall(reactor, config, FirewallMetrics(self.registry))

    def harm(self, chain: bool) -> list[str]:
        """Make the kernel differ: remove rules, or add one; returns what is then told."""
        if chain:
            subprocess.run([self.tools[1], "-F", "ENVELOPE"], check=True)
            return [
                "ip6tables -A ENVELOPE -j ENVELOPE-GRANTS",
                "ip6tables -A ENVELOPE -p tcp -m tcp --dport 8880 -j ACCEPT",
            ]
        rule = "-A ENVELOPE -s 203.0.113.99/32 -j ACCEPT"
        subprocess.run([self.tools[0], *rule.split()], check=True)
        return [f"iptables {rule}"]

    def snapshots(self) -> list[Snapshot]:
        return [
            Snapshot.parse(subprocess.run(
                [f"{tool}-save", "-t", "filter"], check=True, capture_output=True, text=True,
            ).stdout)
            for tool in self.tools
        ]

    def open_networks(self) -> set[object]:
        found = set()
        for snapshot in self.snapshots():
            grants = {
                read_grant(rule)
                for chain, rules in snapshot.rules.items() if chain.startswith(GRANTS)
                for rule in rules if f"-j {GRANTS}-" not in rule
            }
            assert None not in grants
            found |= {ip_network(key) for key, _ in grants}
        return found

    def baseline_holds(self) -> bool:
        return all(
            s.policy == "DROP" and s.rules["INPUT"][:1] == ("-j ENVELOPE",)
            for s in self.snapshots()
        )

    def close(self) -> None:
        blockon(self.firewall.close())
        assert all(not s.own_chains and s.policy == "ACCEPT" for s in self.snapshots())


SUBJECTS = {
    "memory": Memory, "nft": lambda: Kernel("nft"), "legacy": lambda: Kernel("legacy"),
    "nftables": Nftables,
}


@pytest.fixture(params=[
    pytest.param(name, marks=() if name == "memory" else pytest.mark.process) for name in SUBJECTS
])
def subject(request):
    made = SUBJECTS[request.param]()
    yield made
    made.close()


def test_it_is_an_ifirewall(subject) -> None:
    """Every method is there with its arguments."""
    promised = {
        name: [*inspect.signature(method).parameters][1:]
        for name, method in vars(IFirewall).items() if inspect.isfunction(method) and name[0] != "_"
    }
    assert len(promised) == 9
    for name, parameters in promised.items():
        assert [*inspect.signature(getattr(subject.firewall, name)).parameters] == parameters


@ensureDeferred
async def test_the_baseline_stands_while_it_is_open(subject) -> None:
    """From open to close."""
    await subject.firewall.open(SERVICE)
    assert subject.baseline_holds()
    assert subject.firewall.problems() == []


@ensureDeferred
async def test_an_answer_speaks_of_the_kernel(subject) -> None:
    """Allowed is in force when it fires, revoked is gone when it fires; both families."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    await gatherResults([firewall.allow(GrantId(n), reactor.seconds() + 60) for n in (A4, B4, A6)])
    assert subject.open_networks() == {A4, B4, A6}
    await firewall.revoke(GrantId(A4))
    assert subject.open_networks() == {B4, A6}
    await gatherResults([firewall.revoke(GrantId(B4)), firewall.revoke(GrantId(A6))])
    assert subject.open_networks() == set()


@ensureDeferred
async def test_asking_again_replaces_the_end(subject) -> None:
    """And leaves one grant, not two."""
    await subject.firewall.open(SERVICE)
    for lasts in (60, 600, 30):
        await subject.firewall.allow(GrantId(A4), reactor.seconds() + lasts)
        assert subject.open_networks() == {A4}
    await subject.firewall.revoke(GrantId(A4))
    assert subject.open_networks() == set()


@ensureDeferred
async def test_revoking_what_is_not_open_is_no_error(subject) -> None:
    """It fires, and nothing has changed."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.revoke(GrantId(A4))
    assert subject.open_networks() == set()


@ensureDeferred
async def test_the_last_word_counts(subject) -> None:
    """Calls that overlap leave the kernel as the last of them asked."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    pending = []
    for _ in range(5):
        allowed = firewall.allow(GrantId(A4), reactor.seconds() + 60)
        pending.append(allowed.addErrback(lambda _: None))
        pending.append(firewall.revoke(GrantId(A4)))
    pending.append(firewall.allow(GrantId(B4), reactor.seconds() + 60))
    await gatherResults(pending)
    assert subject.open_networks() == {B4}


@ensureDeferred
async def test_close_takes_the_grants_along(subject) -> None:
    """Nothing of ours is left."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(GrantId(A4), reactor.seconds() + 60)
    await subject.firewall.close()
    assert subject.open_networks() == set()


@ensureDeferred
async def test_many_at_once_share_transactions(subject) -> None:
    """A hundred clients cost a handful of transactions, not a hundred."""
    await subject.firewall.open(SERVICE)
    networks = [ip_network(f"198.51.100.{i}/32") for i in range(100)]
    end = reactor.seconds() + 60
    await gatherResults([subject.firewall.allow(GrantId(n), end) for n in networks])
    assert subject.open_networks() == set(networks)
    if not isinstance(subject, Memory):
        text = as_text(subject.registry).decode()
        (line,) = [x for x in text.splitlines() if x.startswith(
            "envelope_firewall_transactions_total") and subject.table in x and '"ok"' in x]
        assert float(line.split()[-1]) <= 4
    await gatherResults([subject.firewall.revoke(GrantId(n)) for n in networks])
    assert subject.open_networks() == set()


@ensureDeferred
async def test_many_come_and_go_and_leave_no_trace(subject) -> None:
    """However the rules are arranged when there are many, each network is let in and shut out."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    await firewall.allow(GrantId(A4), reactor.seconds() + 60)
    many = [ip_network(f"198.51.{i}.{7 * i % 256}/32") for i in range(60)]
    many += [ip_network(f"2001:db8::{i:x}:{7 * i:x}/128") for i in range(60)]
    for network in many:
        await firewall.allow(GrantId(network), reactor.seconds() + 60)
    assert subject.open_networks() == {A4, *many}
    for network in many[::-1]:
        await firewall.revoke(GrantId(network))
    assert subject.open_networks() == {A4}
    await firewall.revoke(GrantId(A4))
    assert subject.open_networks() == set()
    assert firewall.problems() == []


@ensureDeferred
async def test_the_rules_are_told_as_wanted_and_as_held(subject) -> None:
    """Both alike, each line once; grants come and go in them."""
    firewall = subject.firewall
    assert firewall.rules() == RulesInForce()
    await firewall.open(SERVICE)
    before = firewall.rules()
    await gatherResults([firewall.allow(GrantId(n), reactor.seconds() + 60) for n in (A4, A6)])
    rules = firewall.rules()
    assert rules.wanted == rules.held
    assert len(set(rules.held)) == len(rules.held)
    await gatherResults([firewall.revoke(GrantId(A4)), firewall.revoke(GrantId(A6))])
    assert firewall.rules() == before
    if isinstance(subject, Memory):
        return
    # With iptables the chains that the grants end by come, too.
    new = {line for line in {*rules.held} - {*before.held} if " ENVELOPE-END-" not in line[:30]}
    assert len(new) == 2
    for network in (A4, A6):
        assert any(str(network.network_address) in line for line in new)
    for tool in ["nft"] if subject.table == "inet" else ["iptables", "ip6tables"]:
        assert any(line.startswith(f"{tool} ") and "ELOPE" in line.upper() for line in before.held)


@ensureDeferred
async def test_a_rule_of_others_in_our_chains_is_told_as_a_stray(subject) -> None:
    """After the next look, and it stays one."""
    await subject.firewall.open(SERVICE)
    lines = subject.harm(chain=False)
    for _ in range(2):
        await look(subject.firewall)
        rules = subject.firewall.rules()
        assert [line for line in rules.held if line not in rules.wanted] == lines
        assert {*rules.wanted} <= {*rules.held}


@ensureDeferred
async def test_rules_that_nobody_changed_are_read_once(subject) -> None:
    """The kernel counts transactions, but not those of iptables-legacy."""
    if isinstance(subject, Memory):
        return
    await subject.firewall.open(SERVICE)
    await look(subject.firewall)
    legacy = isinstance(subject, Kernel) and "legacy" in subject.tools[0].name
    for table, _ in subject.firewall._tables:
        assert (await table.look({}) is None) is not legacy
    subject.harm(chain=False)
    for table, _ in subject.firewall._tables:
        assert await table.look({}) is not None


@ensureDeferred
async def test_what_cannot_be_mended_is_told_as_missing(subject, monkeypatch) -> None:
    """And no more once it is mended."""
    if isinstance(subject, Memory):
        return
    firewall = subject.firewall
    await firewall.open(SERVICE)
    lines = subject.harm(chain=True)
    table = firewall._tables[-1][0]
    with monkeypatch.context() as patch:
        patch.setattr(table, "write", refuse)
        await look(firewall)
    rules = firewall.rules()
    assert {*lines} <= {*rules.wanted} - {*rules.held}
    assert {*rules.held} <= {*rules.wanted}
    await look(firewall)
    rules = firewall.rules()
    assert sorted(rules.wanted) == sorted(rules.held)


async def refuse(*_args: object) -> None:
    raise ToolFailed("refused by the test")


async def look(firewall: IFirewall) -> None:
    """Let the firewall compare the kernel's rules with ours, and wait until it has."""
    if isinstance(firewall, MemoryFirewall):
        return
    for _, reconciler in firewall._tables:
        reconciler.check()
        while reconciler._is_working:
            await deferLater(reactor, 0.01)
