"""Whole tables that others delete or leave: a stop removes only tables that are ours."""

from __future__ import annotations

import subprocess

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from envelope.config import Config
from envelope.firewall.iptables.tools import Paths, Tools
from envelope.firewall.policy import IPV4, IPV6
from tests.kernel.faultyiptables import FaultyTools
from tests.support.environment import need_own_network

pytestmark = pytest.mark.kernel

NFT = "/usr/sbin/nft"


@pytest.fixture
def tables():
    """Make a foreign table `filter` in each family; returns a function that lists the tables."""
    need_own_network()
    for family in ("ip", "ip6"):
        subprocess.run([NFT, f"add table {family} filter"], check=True)

    def there() -> set[str]:
        done = subprocess.run([NFT, "list", "tables"], check=True, capture_output=True, text=True)
        return {line.split()[1] for line in done.stdout.splitlines() if line.endswith(" filter")}

    yield there
    for family in there():
        subprocess.run([NFT, f"delete table {family} filter"], check=True)


@pytest.mark.parametrize(("kind", "goes"), [("nft", True), ("legacy", False)])
@ensureDeferred
async def test_only_iptables_nfts_own_tables_are_removed(tmp_path, tables, kind, goes) -> None:
    """iptables-legacy's table is not nft's of the same name, which stays."""
    FaultyTools(tmp_path, kind)
    config = Config(iptables=tmp_path / "iptables", ip6tables=tmp_path / "ip6tables")
    for family in (IPV4, IPV6):
        tools = Tools(reactor, Paths.find(config, family, ""))
        assert await tools.remove_table(family) is goes
        assert (family.nft not in tables()) is goes
