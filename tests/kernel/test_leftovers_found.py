"""How a start looks for rules that another backend has left, and what it takes for ours."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from envelope.config import Config
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables.leftovers import LeftFilter
from envelope.firewall.iptables.tools import Paths, Tools
from envelope.firewall.policy import IPV4
from tests.kernel.faultynft import FaultyNft
from tests.kernel.firewallundertest import SERVICE

pytestmark = pytest.mark.kernel


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
