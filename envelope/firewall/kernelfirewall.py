"""What every firewall in the kernel has in common, whichever tables it is made of.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from envelope.addresses import Network, PortRange
from envelope.config import Config
from envelope.firewall import FirewallError, IFirewall
from envelope.firewall.clocks import WATCH_EVERY, ClockWatch
from envelope.firewall.kernel import KernelTable
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import Layout
from envelope.firewall.reconcile.reconciler import Reconciler

_log = Logger(namespace="envelope.firewall")

# How often (seconds) the kernel's rules are compared with ours; the contract allows 30.
CHECK_EVERY: Final = 10.0
# An abstract socket belongs to one network namespace, as the rules do, and dies with its owner.
_INSTANCE: Final = "\0envelope-firewall"


class InstalledTable(KernelTable, Protocol):
    """A table whose structure comes and goes."""

    async def install(self, layout: Layout) -> None:
        """Put the baseline in force; raise `FirewallError`, and then nothing is changed."""

    async def abandon(self) -> None:
        """Take a start back because another table's failed."""

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""


@implementer(IFirewall)
class KernelFirewall:
    """Tables behind the one interface: one instance per network, compared every so often."""

    def __init__(
        self,
        reactor: IReactorTime,
        config: Config,
        metrics: FirewallMetrics,
        tables: Sequence[InstalledTable],
        wall: Callable[[], float],
        check_every: float,
    ) -> None:
        self._config = config
        self._tables = [(table, Reconciler(reactor, table, metrics, wall)) for table in tables]
        self._by_version = {
            version: reconciler
            for table, reconciler in self._tables for version in table.versions
        }
        self._check_every = check_every
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        self._clock = ClockWatch(wall, reactor.seconds)
        self._watching = LoopingCall(self._watch_clock)
        self._watching.clock = reactor
        self._instance: socket.socket | None = None

    def open(self, service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """See `IFirewall.open`."""
        return Deferred.fromCoroutine(self._open(service_ports))

    async def _open(self, service_ports: tuple[PortRange, ...]) -> None:
        self._claim()
        layout = Layout.of(self._config, service_ports)
        installed: list[InstalledTable] = []
        try:
            for table, _ in self._tables:
                await table.install(layout)
                installed.append(table)
        except FirewallError:
            for table in installed:
                await table.abandon()
            self._release()
            raise
        for _, reconciler in self._tables:
            reconciler.start(bool(layout.proxy_port))
        self._checks.start(self._check_every, now=False)
        self._watching.start(WATCH_EVERY)

    def allow(self, network: Network, until: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        reconciler = self._by_version.get(network.version)
        if reconciler is None:
            answer: Deferred[None] = Deferred()
            answer.errback(FirewallError("this kernel does not speak the client's family"))
            return answer
        # A step that was not noticed yet is none for a grant that is told in the new time.
        self._watch_clock()
        return reconciler.allow(network, until)

    def revoke(self, network: Network) -> Deferred[None]:
        """See `IFirewall.revoke`."""
        reconciler = self._by_version.get(network.version)
        return succeed(None) if reconciler is None else reconciler.revoke(network)

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        for loop in (self._checks, self._watching):
            if loop.running:
                loop.stop()
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

    def _watch_clock(self) -> None:
        if step := self._clock.step():
            _log.info("the clock was set by {step} s: so are the ends of all grants", step=step)
            for _, reconciler in self._tables:
                reconciler.clock_set(step)

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
