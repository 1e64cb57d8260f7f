"""The firewall in the kernel: its tables behind `IFirewall`, whichever tool writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from envelope.addresses import Network, PortRange
from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.claim import Claim, ClaimTaken, ClaimUnavailable
from envelope.firewall.kernel import KernelTable, W, key_of
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import Layout
from envelope.firewall.reconcile.reconciler import Reconciler

_log = Logger(namespace="envelope.firewall")

# How often (seconds) the kernel's rules are compared with ours; the contract allows 30.
CHECK_EVERY: Final = 10.0


class Table(KernelTable[W], Protocol[W]):
    """A table of the kernel with its structure; see `envelope.firewall.lifecycle`."""

    async def install(self, layout: Layout) -> None:
        """Put the structure in force; raise `FirewallError`, and then nothing is changed."""

    async def abandon(self) -> None:
        """Take a start back, because another table's failed."""

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""


class KernelFirewall:
    """See `IFirewall`. One instance guards a network; a second one's start is refused.

    Each table has its reconciler. All of them compare the kernel's rules with ours every
    `check_every` seconds.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        config: Config,
        metrics: FirewallMetrics,
        tables: Sequence[Table[Any]],
        check_every: float,
    ) -> None:
        self._config = config
        self._tables = [(table, Reconciler(reactor, table, metrics)) for table in tables]
        self._by_version = {
            version: reconciler
            for table, reconciler in self._tables for version in table.versions
        }
        self._check_every = check_every
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        self._claimed: Claim | None = None

    def open(self, service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """See `IFirewall.open`."""
        return Deferred.fromCoroutine(self._open(service_ports))

    async def _open(self, service_ports: tuple[PortRange, ...]) -> None:
        self._claim()
        layout = Layout.of(self._config, service_ports)
        installed: list[Table[Any]] = []
        try:
            for table, _ in self._tables:
                await table.install(layout)
                installed.append(table)
        except BaseException:
            for table in installed:
                await table.abandon()
            self._release()
            raise
        for _, reconciler in self._tables:
            reconciler.start(bool(layout.proxy_port))
        self._checks.start(self._check_every, now=False)

    def allow(self, network: Network, end: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        reconciler = self._by_version.get(network.version)
        if reconciler is None:
            answer: Deferred[None] = Deferred()
            answer.errback(FirewallError("this kernel does not speak the client's family"))
            return answer
        return reconciler.allow(key_of(network), end)

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        reconciler = self._by_version.get(network.version)
        return succeed(None) if reconciler is None else reconciler.revoke(key_of(network))

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._checks.running:
            self._checks.stop()
        left: list[str] = []
        for table, reconciler in self._tables:
            await reconciler.finish()
            try:
                await table.uninstall()
            except FirewallError as error:
                left.append(str(error))
            else:
                reconciler.dismiss()
        self._release()
        if left:
            raise FirewallError("; ".join(left))

    def problems(self) -> list[str]:
        """See `IFirewall.problems`."""
        return [reconciler.problem for _, reconciler in self._tables if reconciler.problem]

    def _check(self) -> None:
        for _, reconciler in self._tables:
            reconciler.check()

    def _claim(self) -> None:
        try:
            self._claimed = Claim()
        except ClaimTaken:
            raise FirewallError(
                "another envelope already guards this machine's network"
            ) from None
        except ClaimUnavailable as error:
            _log.warn(
                "a second envelope in this network would not be refused: {why}", why=str(error))

    def _release(self) -> None:
        if self._claimed is not None:
            self._claimed.release()
            self._claimed = None
