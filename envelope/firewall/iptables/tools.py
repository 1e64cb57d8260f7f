"""The programs that one address family's rules are read and written with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from twisted.internet.defer import Deferred

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.dialect import Dialect
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.iptables.snapshot import text_of
from envelope.firewall.opentool import OpenTool
from envelope.firewall.policy import IPV4, IPV6, Family
from envelope.firewall.process import IProcessReactor, find_tool, run
from envelope.text import printable

SAVE_WAIT: Final = 5.0
FAMILIES: Final = (IPV4, IPV6)
# What a tool writes to: nf_tables, or the older tables, which nf_tables does not show.
Kind: TypeAlias = Literal["nft", "legacy"]

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

    tool: Path
    save: Path
    restore: Path
    nft: Path | None

    @classmethod
    def find(
        cls, config: Config, family: Family, search_path: str, kind: Kind | None = None
    ) -> Paths:
        """Find the tools that `config` asks for, or those that bear the name of `kind`.

        Raises `FirewallError` naming what is missing.
        """
        chosen, name = (
            (config.iptables, "iptables") if family is IPV4 else (config.ip6tables, "ip6tables")
        )
        if kind is not None:
            chosen, name = None, f"{name}-{kind}"
        base = find_tool(name, chosen, search_path)
        companions = [
            find_tool(f"{base}-{part}", base.with_name(f"{base.name}-{part}"), search_path)
            for part in ("save", "restore")
        ]
        try:
            nft = find_tool("nft", config.nft, search_path)
        except FirewallError:
            nft = None
        return cls(base, companions[0], companions[1], nft)


class Tools:
    """One family's tools, ready to run."""

    def __init__(self, reactor: IProcessReactor, paths: Paths) -> None:
        self.reactor = reactor
        self._paths = paths
        self.restorer = OpenTool(reactor, paths.restore, DIALECT)

    def save(self, counters: bool = False) -> Deferred[bytes]:
        """The filter table's rules as the tool prints them; fails with `ToolFailed`.

        With `counters`, each with what it has counted.
        """
        argv = (str(self._paths.save), "-t", "filter", *(["-c"] if counters else []))
        return run(self.reactor, argv, SAVE_WAIT).addCallback(lambda finished: finished.output)

    async def list_all(self) -> bytes | None:
        """Every table as the tool prints it, which tells an absent filter table from an empty one.

        Asked for one table by name, iptables-nft-save shows it whether or not it exists, and
        iptables-legacy-save creates it. None when not every table can be listed: the kernel may
        hide its list (/proc/net/ip_tables_names) from iptables-legacy in a user namespace.
        """
        try:
            return (await run(self.reactor, (str(self._paths.save),), SAVE_WAIT)).output
        except ToolTimeout:
            raise
        except ToolFailed as error:
            # A rule of others in another table, which cannot be printed.
            if b"\nCOMMIT\n" in error.output.partition(b"*filter\n")[2]:
                return error.output.rpartition(b"\n*")[0] + b"\n"
            return None

    async def kind(self) -> Kind:
        """What the tools write to; raises `ToolFailed`."""
        version = await run(self.reactor, (str(self._paths.save), "-V"), SAVE_WAIT)
        return "nft" if b"nf_tables" in version.output else "legacy"

    async def exists(self, family: Family) -> bool:
        """Whether there is a filter table; where that cannot be told, there is.

        With iptables-legacy there is one for good once it has been run.
        """
        tables = await self._nft(f"list tables {family.nft}")
        return tables is None or f"table {family.nft} filter\n".encode() in tables

    async def list_chain(self, chain: str) -> bytes | None:
        """One chain of the filter table as `iptables -S` prints it; None when there is none."""
        argv = (str(self._paths.tool), "-w", str(LOCK_WAIT), "-S", chain)
        try:
            return (await run(self.reactor, argv, SAVE_WAIT)).output
        except ToolFailed as error:
            if "No chain/target/match by that name" in str(error):
                return None
            raise

    async def chains_named(self, family: Family, name: str) -> list[str]:
        """The chains of the filter table whose names match, where iptables-save cannot print it.

        Only nft lists them; without it there are none.
        """
        listed = text_of(await self._nft(f"list chains {family.nft}") or b"")
        table = listed.partition(f"table {family.nft} filter {{\n")[2].partition("\n}")[0]
        return re.findall(rf"(?m)^\tchain ({name}) {{", table)

    async def unprintable(self) -> str:
        """Where the rules are that iptables-save cannot print, for the log, as well as is known."""
        try:
            await run(self.reactor, (str(self._paths.save), "-t", "filter"), SAVE_WAIT)
        except ToolFailed as error:
            found = []
            for chain in re.findall(r"(?m)^:(\S+) ", text_of(error.output)):
                try:
                    await self.list_chain(chain)
                except ToolFailed:
                    found.append(printable(chain))
            return f"table filter, chain {', '.join(found)}" if found else "table filter"
        return "table filter; nft list table shows its rules"

    async def remove_table(self, family: Family) -> bool:
        """Remove the whole filter table in one transaction; whether that worked.

        iptables-nft has no command for it, so nft does it; without nft the empty table stays. It
        stays with iptables-legacy too, which keeps a table for good: nft's table of that name is
        another one, and not ours.
        """
        return await self._nft(f"delete table {family.nft} filter") is not None

    async def _nft(self, command: str) -> bytes | None:
        """What nft prints for a command about the table of iptables-nft; None when it cannot."""
        if self._paths.nft is None:
            return None
        try:
            if await self.kind() != "nft":
                return None
            return (await run(self.reactor, (str(self._paths.nft), command), SAVE_WAIT)).output
        except ToolFailed:
            return None
