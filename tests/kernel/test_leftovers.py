"""A service that uses another backend than the one before it clears what that one left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from envelope.config import Config
from envelope.firewall import FirewallError, GrantId
from envelope.firewall.backends import make_firewall
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables.leftovers import LeftFilter
from envelope.firewall.iptables.tools import Paths, Tools
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import IPV4, IPV6
from envelope.metrics import new_registry
from tests.kernel.faultyiptables import FaultyTools
from tests.kernel.faultynft import NFT, FaultyNft
from tests.kernel.firewallundertest import (
    ALL_KINDS,
    FAMILY_TOOLS,
    SERVICE,
    Kernel,
    NftKernel,
    is_loose,
    later,
    settled,
)
from tests.kernel.killablereactor import KillableReactor
from tests.kernel.udpprobe import Listener, addresses
from tests.support.environment import need_own_network

pytestmark = pytest.mark.kernel

CLIENT, STRANGER = "203.0.113.2", "2001:db8::2"
CLIENT6 = "2001:db8::3"
# The backend of the first service, and of the next.
CHANGES = [*permutations(ALL_KINDS, 2)]
# An operator's own rules for `--baseline=operator` with nftables.
OPERATORS = ("add table inet envelope",
             "add chain inet envelope input { type filter hook input priority filter; }")


class World:
    """The rules of all backends, and services that use one or another."""

    def __init__(self, folder: Path) -> None:
        need_own_network()
        self.folder = folder
        self.nft, self.legacy = NftKernel(), Kernel("legacy", folder / "lock")
        self.made: list[tuple[KillableReactor, Any]] = []

    def saved(self) -> str:
        """All rules as text; nft's have those of iptables-nft among them."""
        return self.nft.saved() + self.legacy.saved()

    def make(self, kind: str, **options: Any) -> Any:
        """A firewall of one kind, with all backends' tools."""
        if kind == "nftables":
            options.setdefault("firewall", "nftables")
        else:
            paths = {name: Path(f"/usr/sbin/{name}-{kind}") for name in FAMILY_TOOLS.values()}
            options = {"firewall": "iptables", **paths, **options}
        own = KillableReactor()
        made = make_firewall(own, Config(device="lo", **options), FirewallMetrics(new_registry()),
                             "/usr/sbin")
        made._check_every = 0.1
        self.made.append((own, made))
        return made

    async def kill(self) -> None:
        """Kill the last one that was made, as `kill -9` does."""
        own, made = self.made.pop()
        await own.kill()
        made._release()

    def wipe(self) -> None:
        """Remove all rules, whatever a failed test left."""
        while self.made:
            blockon(Deferred.fromCoroutine(self.kill()))
        subprocess.run([NFT, "flush ruleset"], check=True)
        for family in FAMILY_TOOLS:
            for words in (("-P", "INPUT", "ACCEPT"), ("-P", "FORWARD", "ACCEPT"), ("-F",), ("-X",)):
                subprocess.run([self.legacy.tool(family), *words], check=True)


@contextmanager
def the_world(folder: Path) -> Iterator[World]:
    made = World(folder)
    made.wipe()
    try:
        yield made
    finally:
        made.wipe()


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with the_world(tmp_path) as made, addresses(CLIENT, STRANGER, CLIENT6):
        yield made


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as made:
        yield made


@pytest.mark.parametrize("there", ["nothing", "rules of others"])
@pytest.mark.parametrize("end", ["killed", "keep"])
@pytest.mark.parametrize(("first", "then"), CHANGES)
@ensureDeferred
async def test_another_backends_rules_are_cleared(world, listener, first, then, end, there) -> None:
    """A client is let in, and a clean stop restores the rules from before the first start."""
    if there != "nothing":
        world.nft.run("add table ip others", "add chain ip others theirs")
        for kernel in (Kernel("nft", world.folder / "lock"), world.legacy):
            kernel.change(4, "-P FORWARD DROP", "-A INPUT -s 198.51.100.7/32 -j DROP")
            kernel.change(6, "-A INPUT -s 2001:db8:9::/48 -j DROP")
    before = world.saved()
    assert is_loose()
    old = world.make(first, on_stop="keep" if end == "keep" else "restore")
    await old.open(SERVICE)
    await old.allow(GrantId(ip_network(f"{CLIENT}/32")), later(60))
    if end == "keep":
        await old.close()
    else:
        await world.kill()
    assert not listener.hears(CLIENT6)
    assert not is_loose()
    new = world.make(then)
    await new.open(SERVICE)
    assert not new.problems()
    assert not listener.hears(CLIENT)
    for client in (f"{CLIENT}/32", f"{CLIENT6}/128"):
        await new.allow(GrantId(ip_network(client)), later(60))
    assert listener.hears(CLIENT)
    assert listener.hears(CLIENT6)
    assert not listener.hears(STRANGER)
    await new.close()
    assert world.saved() == before
    assert is_loose()


@pytest.mark.parametrize(("first", "then"), CHANGES)
@ensureDeferred
async def test_what_grants_left_among_an_operators_rules_is_cleared(world, first, then) -> None:
    """The same with `--baseline=operator`: the operator's rules stay."""
    world.nft.run(*OPERATORS)
    before = world.saved()
    old = world.make(first, baseline="operator")
    await old.open(SERVICE)
    await old.allow(GrantId(ip_network(f"{CLIENT}/32")), later(60))
    await world.kill()
    assert world.saved() != before
    new = world.make(then, baseline="operator")
    await new.open(SERVICE)
    await new.close()
    assert world.saved() == before


@pytest.mark.parametrize(("one", "other"), [(4, 6), (6, 4)])
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@ensureDeferred
async def test_what_one_family_remembers_of_the_kernels_setting_both_do(
    world, kind, one, other
) -> None:
    """Others may remove one family's rules, and the other family's after the next start."""
    for family in (one, other):
        await world.make(kind).open(SERVICE)
        await world.kill()
        kernel = Kernel(kind, world.folder / "lock")
        kernel.change(family, "-P INPUT ACCEPT", "-F", "-X")
    assert not is_loose()
    last = world.make(kind)
    await last.open(SERVICE)
    await last.close()
    assert is_loose()


@pytest.mark.parametrize(("first", "then"), CHANGES)
@ensureDeferred
async def test_a_start_that_fails_leaves_the_leftovers_in_force(
    world, listener, first, then,
) -> None:
    """No moment is more open; the next start clears them."""
    before = world.saved()
    await world.make(first).open(SERVICE)
    await world.kill()
    left = world.saved()
    if then == "nftables":
        FaultyNft(world.folder).order("fail")
        failing = world.make(then, nft=world.folder / "nft")
    else:
        FaultyTools(world.folder, then).order("fail")
        failing = world.make(
            then, **{name: world.folder / name for name in FAMILY_TOOLS.values()})
    with pytest.raises(FirewallError):
        await failing.open(SERVICE)
    assert world.saved() == left
    assert not listener.hears(CLIENT)
    new = world.make(then)
    await new.open(SERVICE)
    await new.close()
    assert world.saved() == before


@pytest.mark.parametrize("then", ["nft", "legacy"])
@ensureDeferred
async def test_leftovers_that_cannot_be_removed_are_a_problem(world, listener, then) -> None:
    """The reason names the command that removes them, and the service tries again."""
    before = world.saved()
    await world.make("nftables").open(SERVICE)
    await world.kill()
    tools = FaultyNft(world.folder)
    tools.order("fail")
    new = world.make(then, nft=world.folder / "nft")
    await new.open(SERVICE)
    [problem] = new.problems()
    assert "nft 'add table inet envelope; delete table inet envelope'" in problem
    tools.order()
    await settled(lambda: not new.problems())
    await new.allow(GrantId(ip_network(f"{CLIENT}/32")), later(60))
    assert listener.hears(CLIENT)
    await new.close()
    assert world.saved() == before


@ensureDeferred
async def test_a_reading_that_fails_does_not_fail_the_start(world) -> None:
    """Nor is it a problem."""
    before = world.saved()
    FaultyNft(world.folder).order("save-fails")
    new = world.make("legacy", nft=world.folder / "nft")
    await new.open(SERVICE)
    assert not new.problems()
    await new.close()
    assert world.saved() == before


@ensureDeferred
async def test_the_command_for_iptables_lets_clients_in_again(world, listener) -> None:
    """As a shell runs it."""
    await world.make("legacy").open(SERVICE)
    await world.kill()
    for family in (IPV4, IPV6):
        tools = Tools(reactor, Paths.find(Config(), family, "/usr/sbin", "legacy"))
        command = await LeftFilter(family, "legacy", tools, None).find()
        subprocess.run(["sh", "-c", command], check=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"})
    assert listener.hears(CLIENT)
    assert listener.hears(CLIENT6)


@ensureDeferred
async def test_a_table_of_others_with_our_name_is_not_touched(world) -> None:
    """Not even if it has a chain `grants`."""
    world.nft.run("add table inet envelope", "add chain inet envelope grants")
    before = world.saved()
    new = world.make("legacy")
    await new.open(SERVICE)
    await new.close()
    assert world.saved() == before


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@ensureDeferred
async def test_a_plain_iptables_of_the_kind_is_enough(world, kind) -> None:
    """Where no tool bears the kind's name; and one of another kind finds nothing."""
    await world.make(kind).open(SERVICE)
    await world.kill()
    for plain in ("nft", "legacy"):
        tools = Tools(reactor, Paths.find(Config(), IPV4, "/usr/sbin", plain))
        found = await LeftFilter(IPV4, kind, tools, None).find()
        assert bool(found) is (plain == kind)


class _NeverRun(Tools):
    async def kind(self) -> Any:
        raise AssertionError("iptables-legacy makes the table that it is asked to show")


@pytest.mark.parametrize("names", [None, "", "nat\nmangle\n"])
@ensureDeferred
async def test_iptables_legacy_is_not_run_without_its_table(tmp_path, names) -> None:
    """The kernel's list of its tables tells."""
    if names is not None:
        (tmp_path / "ip_tables_names").write_text(names)
    tools = _NeverRun(reactor, Paths.find(Config(), IPV4, "/usr/sbin", "legacy"))
    assert await LeftFilter(IPV4, "legacy", tools, None, tmp_path).find() == ""


@ensureDeferred
async def test_a_list_of_tables_that_cannot_be_read_is_said(tmp_path) -> None:
    """It is an error of the reading."""
    (tmp_path / "ip_tables_names").mkdir()
    tools = _NeverRun(reactor, Paths.find(Config(), IPV4, "/usr/sbin", "legacy"))
    with pytest.raises(ToolFailed, match="ip_tables_names"):
        await LeftFilter(IPV4, "legacy", tools, None, tmp_path).find()
