"""The programs that one address family's rules are read and written with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.dialect import Dialect
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.flows import carried_flows
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.opentool import OpenTool
from envelope.firewall.policy import IPV4, IPV6, Family, Layout
from envelope.firewall.process import IProcessReactor, find_tool, run

SAVE_WAIT: Final = 5.0
FAMILIES: Final = (IPV4, IPV6)

# Seconds that the tool waits for the lock which iptables-legacy shares across the machine: less
# than `kernel.ANSWER_WAIT`, so that the tool itself says why it gave up.
LOCK_WAIT: Final = 6
_ARGUMENTS: Final = ("--noflush", "-v", "-w", str(LOCK_WAIT))
# `iptables-restore --noflush -v` stays open between transactions and echoes a comment line once it
# has committed what came before it (iptables 1.8.9, both kinds: 0.07 ms a change instead of the
# 50 ms that a process per rule takes). A child killed halfway through a transaction has applied
# nothing of it.
DIALECT: Final = Dialect(
    open=_ARGUMENTS, once=_ARGUMENTS, header="*filter\n", joint="\n", footer="\nCOMMIT\n",
    asks="#", answers_on=1,
)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a family's tools are; `-save` and `-restore` are found by adding to iptables' name."""

    save: Path
    restore: Path
    nft: Path | None

    @classmethod
    def find(cls, config: Config, family: Family, search_path: str) -> Paths:
        """Find the tools that `config` asks for; raise `FirewallError` naming what is missing."""
        chosen, name = (
            (config.iptables, "iptables") if family is IPV4 else (config.ip6tables, "ip6tables")
        )
        base = find_tool(name, chosen, search_path)
        companions = [
            find_tool(f"{base}-{kind}", base.with_name(f"{base.name}-{kind}"), search_path)
            for kind in ("save", "restore")
        ]
        try:
            nft = find_tool("nft", config.nft, search_path)
        except FirewallError:
            nft = None
        return cls(companions[0], companions[1], nft)


class Tools:
    """One family's tools, ready to run."""

    def __init__(self, reactor: IProcessReactor, paths: Paths) -> None:
        self.reactor = reactor
        self._paths = paths
        self.restorer = OpenTool(reactor, paths.restore, DIALECT)

    def save(self) -> Deferred[bytes]:
        """The filter table's rules as the tool prints them; fails with `ToolFailed`."""
        argv = (str(self._paths.save), "-t", "filter")
        return run(self.reactor, argv, SAVE_WAIT).addCallback(lambda finished: finished.output)

    async def find(self) -> Snapshot:
        """Read the filter table, and tell an absent one from an empty one.

        That takes a listing of every table: asked for one table by name, iptables-nft-save shows
        it whether or not it exists, and iptables-legacy-save creates it. In a user namespace the
        kernel may hide its list of tables (/proc/net/ip_tables_names) from iptables-legacy: then
        the table counts as existing, as it does for good once iptables-legacy has been run.
        """
        try:
            shown = (await run(self.reactor, (str(self._paths.save),), SAVE_WAIT)).output
        except ToolTimeout:
            raise
        except ToolFailed:
            shown = await self.save()
        return Snapshot.of(shown)

    def carried_flows(self, layout: Layout, family: Family) -> tuple[str, ...]:
        """Rules for the host's own connections of before the start."""
        return tuple(flow.as_iptables for flow in carried_flows(layout, family.version))

    async def remove_table(self, family: Family) -> bool:
        """Remove the whole filter table in one transaction; whether that worked.

        iptables-nft has no command for it, so nft does it; without nft the empty table stays. It
        stays with iptables-legacy too, which keeps a table for good: nft's table of that name is
        another one, and not ours.
        """
        if self._paths.nft is None:
            return False
        try:
            version = await run(self.reactor, (str(self._paths.save), "-V"), SAVE_WAIT)
            if b"nf_tables" not in version.output:
                return False
            command = f"delete table {family.nft} filter"
            await run(self.reactor, (str(self._paths.nft), command), SAVE_WAIT)
        except ToolFailed:
            return False
        return True
