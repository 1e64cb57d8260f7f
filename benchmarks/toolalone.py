"""The service with the least that a firewall can be: the tool that stays open, and nothing else.

It writes each grant and each revocation to the tool, and answers when the tool has acknowledged.
What is asked for while the tool is busy shares a transaction. Nothing ends by itself, is counted,
compared with the kernel, tried again or cut off, so this is no firewall. It shows what any firewall
costs that goes through Twisted and the kernel's own tool.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from envelope import twistd
from envelope.addresses import PortRange
from envelope.firewall import GrantId
from envelope.firewall.dialect import Dialect
from envelope.firewall.iptables.tools import DIALECT as IPTABLES
from envelope.firewall.memory import MemoryFirewall
from envelope.firewall.nftables.tool import DIALECT as NFT
from envelope.firewall.opentool import OpenTool
from envelope.service import EnvelopeService
from envelope.twistd import Options

__all__ = ["Options", "ToolAlone", "makeService"]


class ToolAlone(MemoryFirewall):
    """As much of `IFirewall` as grants and revocations need; `_lines` says how they are written."""

    def __init__(self, tool: str, dialect: Dialect) -> None:
        super().__init__()
        untyped: Any = reactor
        self._tool = OpenTool(untyped, Path(tool), dialect)
        self._lines: list[str] = []
        self._asked: list[Deferred[None]] = []
        self._busy = False

    def open(
        self, service_ports: tuple[PortRange, ...], _closed: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """Set the default drop, and open the service's own port."""
        return self._ask(*self._first([str(each.first) for each in service_ports]))

    def allow(self, grant: GrantId, end: float) -> Deferred[None]:
        """Write one line."""
        del end
        return self._ask(self._in(str(grant.network.network_address)))

    def revoke(self, grant: GrantId) -> Deferred[Any]:
        """Write one line."""
        return self._ask(self._out(str(grant.network.network_address)))

    def _ask(self, *lines: str) -> Deferred[None]:
        answer: Deferred[None] = Deferred()
        self._lines += lines
        self._asked.append(answer)
        if not self._busy:
            self._write()
        return answer

    def _write(self) -> None:
        self._busy = True
        asked, self._asked = self._asked, []
        lines, self._lines = self._lines, []
        self._tool.apply(lines).addCallback(self._wrote, asked)

    def _wrote(self, _: None, asked: list[Deferred[None]]) -> None:
        for each in asked:
            each.callback(None)
        self._busy = False
        if self._lines:
            self._write()

    def _first(self, ports: list[str]) -> list[str]:
        raise NotImplementedError

    def _in(self, address: str) -> str:
        raise NotImplementedError

    def _out(self, address: str) -> str:
        raise NotImplementedError


class _NftAlone(ToolAlone):
    def _first(self, ports: list[str]) -> list[str]:
        table = "inet alone"
        return [
            f"add table {table}",
            f"add set {table} grants {{ type ipv4_addr; flags timeout; }}",
            f"add chain {table} input {{ type filter hook input priority 0; policy drop; }}",
            f"add rule {table} input tcp dport {{ {', '.join(ports)} }} accept",
            f"add rule {table} input iif lo accept",
            f"add rule {table} input ip saddr @grants accept",
        ]

    def _in(self, address: str) -> str:
        return f"add element inet alone grants {{ {address} timeout 1h }}"

    def _out(self, address: str) -> str:
        return f"delete element inet alone grants {{ {address} }}"


class _IptablesAlone(ToolAlone):
    def _first(self, ports: list[str]) -> list[str]:
        return [
            "-P INPUT DROP",
            "-A INPUT -i lo -j ACCEPT",
            *(f"-A INPUT -p tcp --dport {port} -j ACCEPT" for port in ports),
        ]

    def _in(self, address: str) -> str:
        return f"-A INPUT -s {address} -j ACCEPT"

    def _out(self, address: str) -> str:
        return f"-D INPUT -s {address} -j ACCEPT"


def _firewall(service: EnvelopeService) -> ToolAlone:
    if service._config.firewall == "nftables":
        return _NftAlone("/usr/sbin/nft", NFT)
    return _IptablesAlone("/usr/sbin/iptables-nft-restore", IPTABLES)


def makeService(options: Options) -> EnvelopeService:
    """The service that twistd is to run; all but its firewall is as always."""
    EnvelopeService._make_firewall = _firewall
    return twistd.makeService(options)
