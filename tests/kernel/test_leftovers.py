"""A service that uses another backend than the one before it clears what that one left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from envelope.config import Config
from envelope.firewall import FirewallError, GrantId
from envelope.firewall.iptables.leftovers import LeftFilter
from envelope.firewall.iptables.tools import Paths, Tools
from envelope.firewall.policy import IPV4, IPV6
from tests.kernel.faultyiptables import FaultyTools
from tests.kernel.faultynft import FaultyNft
from tests.kernel.firewallundertest import FAMILY_TOOLS, SERVICE, Kernel, is_loose, later, settled
from tests.kernel.leftovers import CHANGES, CLIENT, CLIENT6, OPERATORS, STRANGER
from tests.kernel.udpprobe import Listener

pytestmark = pytest.mark.kernel


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
