"""The firewall in the kernel: its tables behind `IFirewall`, whichever tool writes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall import FirewallError, GrantId, RulesInForce, Traffic
from envelope.firewall.claim import Claim, ClaimTaken, ClaimUnavailable
from envelope.firewall.devicewatch import DeviceWatch
from envelope.firewall.flows import Flows
from envelope.firewall.flows.conntrack import Conntrack
from envelope.firewall.flows.sockets import KernelSockets
from envelope.firewall.granted import Granted
from envelope.firewall.kernel import KernelTable, W
from envelope.firewall.leftovers import Leftovers, OtherTable
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.policy import RuleChoices
from envelope.firewall.process import IProcessReactor
from envelope.firewall.reconcile.reconciler import Reconciler

_Counted: TypeAlias = Traffic | None
_log = Logger(namespace="envelope.firewall")

# How often (seconds) the kernel's rules are compared with ours; the contract allows 30.
CHECK_EVERY: Final = 10.0


class Table(KernelTable[W], Protocol[W]):
    """A table of the kernel with its structure; see `envelope.firewall.lifecycle`."""

    was_loose: bool

    async def marks_loose(self) -> bool:
        """Whether the rules remember that nf_conntrack_tcp_loose was 1; raise `FirewallError`."""

    async def install(self, choices: RuleChoices, loose: bool) -> None:
        """Put the structure in force; raise `FirewallError`, and then nothing is changed.

        With `loose` the rules remember that nf_conntrack_tcp_loose was 1; `was_loose` tells whether
        they do.
        """

    async def forget(self) -> None:
        """Remember no longer that nf_conntrack_tcp_loose was 1; raise `FirewallError`."""

    async def abandon(self) -> None:
        """Take a start back, because another table's failed."""

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""


class KernelFirewall:
    """See `IFirewall`. One instance guards a network; a second one's start is refused.

    Each table has its reconciler. All of them compare the kernel's rules with ours every
    `check_every` seconds, and look at the guarded device, of which they also hear at once.
    `others` are the tables of other backends, which a start clears of our rules.
    """

    def __init__(
        self,
        reactor: IProcessReactor,
        config: Config,
        metrics: FirewallMetrics,
        tables: Sequence[Table[Any]],
        check_every: float,
        others: Sequence[OtherTable],
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
        self._devices = DeviceWatch(reactor, config.device, self._guard)
        self._flows = Flows(reactor, KernelSockets(), Conntrack())
        self._granted = Granted(config.services, bool(config.proxy_port))
        self._services = config.services
        self._leftovers = Leftovers(others)

    def open(
        self, service_ports: tuple[PortRange, ...], closed_ports: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """See `IFirewall.open`."""
        return Deferred.fromCoroutine(
            self._open(RuleChoices.of(self._config, service_ports, closed_ports))
        )

    async def _open(self, choices: RuleChoices) -> None:
        self._claim()
        installed: list[Table[Any]] = []
        try:
            if choices.baseline == "service":
                self._devices.start()
            loose = await self._leftovers.find()
            loose |= await self._flows.prepare(choices)
            if choices.baseline == "service" and choices.established == "cut":
                # What one table remembers, all do: others may remove the rules of any.
                for table, _ in self._tables[1:]:
                    loose = loose or await table.marks_loose()
            for table, _ in self._tables:
                await table.install(choices, loose)
                loose = table.was_loose
                installed.append(table)
            restored = await self._flows.start(any(table.was_loose for table in installed))
            for table in installed if restored else ():
                await table.forget()
        except BaseException:
            self._flows.stop(failed=True)
            for table in installed:
                await table.abandon()
            self._release()
            raise
        await self._leftovers.clear()
        for _, reconciler in self._tables:
            reconciler.start(bool(choices.proxy_port))
        self._devices.follow()
        self._checks.start(self._check_every, now=False)

    def allow(self, grant: GrantId, end: float) -> Deferred[None]:
        """See `IFirewall.allow`."""
        network = grant.network
        reconciler = self._by_version.get(network.version)
        if reconciler is None:
            answer: Deferred[None] = Deferred()
            answer.errback(FirewallError("this kernel does not speak the client's family"))
            return answer
        is_new = self._granted.add(grant)
        self._flows.granted(network, self._services[grant.service].ports)

        def refused(failure: Failure) -> Failure:
            # One that was let in before keeps its grant.
            if is_new:
                self._granted.remove(grant)
            return failure

        return reconciler.allow(grant.key, end).addErrback(refused)

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        """See `IFirewall.revoke`."""
        reconciler = self._by_version.get(grant.network.version)
        if reconciler is None:
            return succeed(None)
        self._granted.remove(grant)
        return reconciler.revoke(grant.key).addCallback(partial(self._ended, grant))

    def _ended(self, grant: GrantId, traffic: _Counted) -> Deferred[_Counted] | _Counted:
        cut = self._granted.ended(grant, traffic)
        ending = None if cut is None else self._flows.ended(cut)
        return traffic if ending is None else ending.addCallback(lambda _: traffic)

    def traffic(self, grant: GrantId) -> Traffic | None:
        """See `IFirewall.traffic`."""
        reconciler = self._by_version.get(grant.network.version)
        return reconciler.counting.traffic(grant.key) if reconciler else None

    def read_traffic(self) -> Deferred[None]:
        """See `IFirewall.read_traffic`."""
        reading = [reconciler.counting.read() for _, reconciler in self._tables]
        return gatherResults(reading).addCallback(lambda _: None)

    def close(self) -> Deferred[None]:
        """See `IFirewall.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._checks.running:
            self._checks.stop()
        self._devices.stop()
        self._flows.stop()
        left: list[str] = []
        for table, reconciler in self._tables:
            await reconciler.finish()
            try:
                await table.uninstall()
            except FirewallError as error:
                left.append(str(error))
            else:
                reconciler.dismiss()
        if self._leftovers.problems:
            await self._leftovers.clear()
            left += self._leftovers.problems
        self._release()
        if left:
            raise FirewallError("; ".join(left))

    def warnings(self) -> list[str]:
        """See `IFirewall.warnings`."""
        return [line for _, reconciler in self._tables for line in reconciler.warnings]

    def problems(self) -> list[str]:
        """See `IFirewall.problems`."""
        device = [self._devices.problem] if self._devices.problem else []
        return device + self._leftovers.problems + [
            reconciler.problem for _, reconciler in self._tables if reconciler.problem
        ]

    def rules(self) -> RulesInForce:
        """See `IFirewall.rules`."""
        found = [reconciler.rules() for _, reconciler in self._tables if self._checks.running]
        wanted = tuple(line for each in found for line in each.wanted)
        return RulesInForce(wanted, tuple(line for each in found for line in each.held))

    def _guard(self, names: tuple[str, ...]) -> None:
        also = tuple(name for name in names if name != self._config.device)
        for _, reconciler in self._tables:
            reconciler.guard(also)
        self._flows.guard(names)

    def _check(self) -> None:
        self._devices.look()
        for _, reconciler in self._tables:
            reconciler.check()
        if self._leftovers.problems:
            Deferred.fromCoroutine(self._leftovers.clear())
        Deferred.fromCoroutine(self._flows.look(self._granted.networks)).addErrback(
            lambda failure: _log.failure("looking at flows broke", failure=failure)
        )

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
        self._devices.stop()
        self._flows.close()
        if self._claimed is not None:
            self._claimed.release()
            self._claimed = None
