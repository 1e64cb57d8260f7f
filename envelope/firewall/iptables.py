"""The real firewall: iptables and ip6tables, of either kind, driven through iptables-restore.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from envelope.config import Config, Network, PortRange
from envelope.firewall import FirewallError, IFirewall
from envelope.firewall.process import IProcessReactor
from envelope.firewall.ruleset import Family, Layout
from envelope.firewall.table import FilterTable
from envelope.firewall.tools import FAMILIES, Paths, Tools
from envelope.metrics import Metrics

# How often (seconds) the kernel's rules are compared with ours; the contract allows 30.
CHECK_EVERY: Final = 10.0
# An abstract socket belongs to one network namespace, as the rules do, and dies with its owner.
_INSTANCE: Final = "\0envelope-firewall"


def families_of_this_kernel(proc: Path = Path("/proc/net/if_inet6")) -> tuple[Family, ...]:
    """The address families that the kernel speaks; IPv6 can be compiled or booted away."""
    return FAMILIES if proc.exists() else FAMILIES[:1]


@implementer(IFirewall)
class IptablesFirewall:
    """Both families' filter tables behind the one interface."""

    def __init__(
        self,
        reactor: IProcessReactor,
        config: Config,
        metrics: Metrics,
        search_path: str = "",
        wall: Callable[[], float] = time.time,
        check_every: float = CHECK_EVERY,
    ) -> None:
        self._config = config
        self._tables: dict[int, FilterTable] = {
            family.version: FilterTable(
                reactor, family, Tools(reactor, Paths.find(config, family, search_path)),
                metrics, wall,
            )
            for family in families_of_this_kernel()
        }
        self._check_every = check_every
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        self._instance: socket.socket | None = None

    def open(self, service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """See `IFirewall.open`."""
        return Deferred.fromCoroutine(self._open(service_ports))

    async def _open(self, service_ports: tuple[PortRange, ...]) -> None:
        self._claim()
        layout = Layout.of(self._config, service_ports)
        installed: list[FilterTable] = []
        try:
            for table in self._tables.values():
                await table.install(layout)
                installed.append(table)
        except FirewallError:
            for table in installed:
                await table.abandon()
            self._release()
            raise
        self._checks.start(self._check_every, now=False)

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        table = self._tables.get(network.version)
        if table is None:
            answer: Deferred[None] = Deferred()
            answer.errback(FirewallError("this kernel does not speak the client's family"))
            return answer
        return table.allow(network, until)

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        table = self._tables.get(network.version)
        return succeed(None) if table is None else table.revoke(network)

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._checks.running:
            self._checks.stop()
        left: list[str] = []
        for table in self._tables.values():
            try:
                await table.uninstall()
            except FirewallError as error:
                left.append(str(error))
        self._release()
        if left:
            raise FirewallError("; ".join(left))

    def problems(self) -> list[str]:
        """See `IFirewall.problems`."""
        return [table.problem for table in self._tables.values() if table.problem]

    def _check(self) -> None:
        for table in self._tables.values():
            table.check()

    def _claim(self) -> None:
        self._instance = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._instance.bind(_INSTANCE)
        except OSError:
            self._release()
            raise FirewallError(
                "another envelope already guards this machine's network"
            ) from None

    def _release(self) -> None:
        if self._instance is not None:
            self._instance.close()
            self._instance = None


def search_path() -> str:
    """The PATH that tools are looked for on."""
    return os.environ.get("PATH", "")
