"""Our table of nftables, left behind for a service that uses iptables now."""

from __future__ import annotations

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.nftables.plan import is_ours, remove, was_loose
from envelope.firewall.nftables.rules import TABLE
from envelope.firewall.nftables.snapshot import NftSnapshot
from envelope.firewall.nftables.tool import Nft
from envelope.firewall.process import IProcessReactor, find_tool


class LeftTable:
    """See `envelope.firewall.leftovers.OtherTable`."""

    name = f"nftables' table {TABLE}"

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self.was_loose = False

    async def find(self) -> str:
        """See `OtherTable`."""
        found = await self._read()
        self.was_loose = was_loose(found)
        lines = remove(found)
        return f"nft '{'; '.join(lines)}'" if lines else ""

    async def clear(self) -> None:
        """See `OtherTable`."""
        if lines := remove(await self._read()):
            await self._nft.writer.apply_once(lines)

    async def _read(self) -> NftSnapshot:
        found = NftSnapshot.of(await self._nft.show())
        return found if is_ours(found) else NftSnapshot()


def other_tables(reactor: IProcessReactor, config: Config, search_path: str) -> list[LeftTable]:
    """The table, unless nft is not installed."""
    try:
        return [LeftTable(Nft(reactor, find_tool("nft", config.nft, search_path)))]
    except FirewallError:
        return []
