"""Our rules in the filter tables of a kind of iptables that the service does not use now."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables.plan import is_all_ours, remove
from envelope.firewall.iptables.reader import Reader
from envelope.firewall.iptables.structure import before, was_loose
from envelope.firewall.iptables.tools import FAMILIES, Kind, Paths, Tools
from envelope.firewall.policy import Family
from envelope.firewall.process import IProcessReactor

_NAMES_OF_LEGACY: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}


class LeftFilter:
    """See `envelope.firewall.leftovers.OtherTable`.

    `kind` is the table's kind of iptables. `own` are the tools that the service itself uses, if it
    uses iptables: a table of their kind is no other backend's.
    """

    def __init__(
        self, family: Family, kind: Kind, tools: Tools, own: Tools | None,
        proc: Path = Path("/proc/net"),
    ) -> None:
        self.name = f"iptables-{kind}'s filter table ({family.label})"
        self.was_loose = False
        self._family = family
        self._kind = kind
        self._tools = tools
        self._own = own
        self._reader = Reader(family, tools)
        self._names = proc / _NAMES_OF_LEGACY[family.version]

    async def find(self) -> str:
        """See `OtherTable`."""
        self.was_loose = False
        if not await self._is_another():
            return ""
        found = await self._reader.read_first()
        self.was_loose = was_loose(found)
        tool = f"{'iptables' if self._family.version == 4 else 'ip6tables'}-{self._kind}"
        # The chains that nothing jumps to may stay.
        return "; ".join(
            f"{tool} {line}" for line in remove(found) if line.startswith(("-D ", "-P "))
        ) or (f"{tool} -X" if found.own_chains else "")

    async def clear(self) -> None:
        """See `OtherTable`."""
        now = await self._reader.read_first()
        if before(now) == "ABSENT" and is_all_ours(now) and await self._tools.remove_table(
                self._family):
            return
        if lines := remove(now):
            await self._tools.restorer.apply_once(lines)

    async def _is_another(self) -> bool:
        if self._kind == "legacy" and not self._legacy_exists():
            return False
        if await self._tools.kind() != self._kind:
            return False
        return self._own is None or await self._own.kind() != self._kind

    def _legacy_exists(self) -> bool:
        """Whether there is a table: iptables-legacy would make one to show it."""
        try:
            return "filter" in self._names.read_text().split()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ToolFailed(f"{self._names}: {error.strerror}") from None


def other_tables(
    reactor: IProcessReactor, config: Config, search_path: str
) -> list[LeftFilter]:
    """Both families' tables of both kinds, without those whose tools are not installed."""
    tables: list[LeftFilter] = []
    for family in FAMILIES:
        plain = _tools(reactor, config, family, search_path)
        own = plain if config.firewall == "iptables" else None
        kinds: tuple[Kind, ...] = ("nft", "legacy")
        for kind in kinds:
            # Where no tool bears the kind's name, the plain one may be of this kind.
            tools = _tools(reactor, config, family, search_path, kind) or plain
            if tools is not None:
                tables.append(LeftFilter(family, kind, tools, own))
    return tables


def _tools(
    reactor: IProcessReactor, config: Config, family: Family, search_path: str,
    kind: Kind | None = None,
) -> Tools | None:
    try:
        return Tools(reactor, Paths.find(config, family, search_path, kind))
    except FirewallError:
        return None
