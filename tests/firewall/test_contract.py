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

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall import IFirewall
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
        return set(self.firewall.open_networks)

    def baseline_holds(self) -> bool:
        return self.firewall.is_open

    def close(self) -> None:
        blockon(self.firewall.close())


class Nftables:
    """The real firewall with nftables, and what nft shows of its table."""

    table = "inet"

    def __init__(self) -> None:
        need_own_network()
        self.registry = new_registry()
        metrics = FirewallMetrics(self.registry)
        self.firewall = NftablesFirewall(reactor, Config(device="lo"), metrics)

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
                for rule in rules if " -j ENVELOPE-" not in rule
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
    assert len(promised) == 6
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
    await gatherResults([firewall.allow(n, reactor.seconds() + 60) for n in (A4, B4, A6)])
    assert subject.open_networks() == {A4, B4, A6}
    await firewall.revoke(A4)
    assert subject.open_networks() == {B4, A6}
    await gatherResults([firewall.revoke(B4), firewall.revoke(A6)])
    assert subject.open_networks() == set()


@ensureDeferred
async def test_asking_again_replaces_the_end(subject) -> None:
    """And leaves one grant, not two."""
    await subject.firewall.open(SERVICE)
    for lasts in (60, 600, 30):
        await subject.firewall.allow(A4, reactor.seconds() + lasts)
        assert subject.open_networks() == {A4}
    await subject.firewall.revoke(A4)
    assert subject.open_networks() == set()


@ensureDeferred
async def test_revoking_what_is_not_open_is_no_error(subject) -> None:
    """It fires, and nothing has changed."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.revoke(A4)
    assert subject.open_networks() == set()


@ensureDeferred
async def test_the_last_word_counts(subject) -> None:
    """Calls that overlap leave the kernel as the last of them asked."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    pending = []
    for _ in range(5):
        pending.append(firewall.allow(A4, reactor.seconds() + 60).addErrback(lambda _: None))
        pending.append(firewall.revoke(A4))
    pending.append(firewall.allow(B4, reactor.seconds() + 60))
    await gatherResults(pending)
    assert subject.open_networks() == {B4}


@ensureDeferred
async def test_close_takes_the_grants_along(subject) -> None:
    """Nothing of ours is left."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(A4, reactor.seconds() + 60)
    await subject.firewall.close()
    assert subject.open_networks() == set()


@ensureDeferred
async def test_many_at_once_share_transactions(subject) -> None:
    """A hundred clients cost a handful of transactions, not a hundred."""
    await subject.firewall.open(SERVICE)
    networks = [ip_network(f"198.51.100.{i}/32") for i in range(100)]
    await gatherResults([subject.firewall.allow(n, reactor.seconds() + 60) for n in networks])
    assert subject.open_networks() == set(networks)
    if not isinstance(subject, Memory):
        text = as_text(subject.registry).decode()
        (line,) = [x for x in text.splitlines() if x.startswith(
            "envelope_firewall_transactions_total") and subject.table in x and '"ok"' in x]
        assert float(line.split()[-1]) <= 4
    await gatherResults([subject.firewall.revoke(n) for n in networks])
    assert subject.open_networks() == set()


@ensureDeferred
async def test_many_come_and_go_and_leave_no_trace(subject) -> None:
    """However the rules are arranged when there are many, each network is let in and shut out."""
    firewall = subject.firewall
    await firewall.open(SERVICE)
    await firewall.allow(A4, reactor.seconds() + 60)
    many = [ip_network(f"198.51.{i}.{7 * i % 256}/32") for i in range(60)]
    many += [ip_network(f"2001:db8::{i:x}:{7 * i:x}/128") for i in range(60)]
    for network in many:
        await firewall.allow(network, reactor.seconds() + 60)
    assert subject.open_networks() == {A4, *many}
    for network in many[::-1]:
        await firewall.revoke(network)
    assert subject.open_networks() == {A4}
    await firewall.revoke(A4)
    assert subject.open_networks() == set()
    assert firewall.problems() == []
