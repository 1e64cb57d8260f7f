"""Reads one address family's filter table, as a whole or, where that fails, our part of it."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from envelope.firewall.errors import ToolFailed, ToolTimeout, UnreadableRules
from envelope.firewall.iptables.bychain import chain_by_chain
from envelope.firewall.iptables.ends import END_NAME, end_chain
from envelope.firewall.iptables.snapshot import INCOMPATIBLE, Snapshot, text_of
from envelope.firewall.iptables.tools import Tools
from envelope.firewall.policy import Family

_log = Logger(namespace="envelope.firewall")


class Reader:
    """All methods raise `ToolFailed` or `UnreadableRules`."""

    def __init__(self, family: Family, tools: Tools) -> None:
        self._family = family
        self._tools = tools
        # Why iptables-save could not print the table, as it was logged.
        self._unprintable = ""

    async def text(self, ends: Iterable[int] | None = None) -> str:
        """The rules as iptables-save prints them; INPUT and our chains alone where it cannot.

        `ends` are those of the chains that grants may end by; None: they are looked for.
        """
        try:
            text = text_of(await self._tools.save())
            if INCOMPATIBLE not in text:
                self._unprintable = ""
                return text
            raise UnreadableRules("iptables-save cannot print a rule that nft wrote")
        except (ToolFailed, UnreadableRules) as error:
            if isinstance(error, ToolTimeout):
                raise
            if ends is None:
                unused = await self._tools.chains_named(self._family, END_NAME)
            else:
                unused = [end_chain(end) for end in ends]
            text = await chain_by_chain(self._tools.list_chain, unused)
            if str(error) != self._unprintable:
                self._unprintable = str(error)
                _log.warn("{family}: {error} ({where}); reading INPUT and our own chains alone",
                          family=self._family.label, error=str(error),
                          where=await self._tools.unprintable())
            return text

    async def read(self) -> Snapshot:
        """The table, which exists."""
        return Snapshot.parse(await self.text())

    async def read_first(self) -> Snapshot:
        """The table, which may not exist."""
        listed = await self._tools.list_all()
        if listed is not None and INCOMPATIBLE not in text_of(listed):
            return Snapshot.of(listed)
        return await self.read() if await self._tools.exists(self._family) else Snapshot()
