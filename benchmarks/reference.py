"""The firewall of the service that this one replaces: an iptables process for each rule.

A grant is three rules, added by one process after the other and deleted in the same way; different
clients' processes run side by side. Everything else is this service, so that only the firewall
differs.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed

from envelope.addresses import Network, PortRange
from envelope.firewall import GrantId, IFirewall, RulesInForce, Traffic
from envelope.firewall.errors import ToolFailed
from envelope.firewall.process import run
from envelope.service import EnvelopeService
from envelope.twistd import Options

__all__ = ["Options", "ReferenceFirewall", "makeService"]

_TOOL = "/usr/sbin/iptables-nft"
_RULES = (
    ("-j", "ACCEPT"),
    ("-p", "tcp", "--dport", "80", "-j", "ACCEPT"),
    ("-p", "tcp", "--dport", "443", "-j", "ACCEPT"),
)
_PATIENCE = 30.0


class ReferenceFirewall:
    """As much of `IFirewall` as grants and revocations need."""

    def open(
        self, service_ports: tuple[PortRange, ...], _closed: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """Set the default drop, and open the service's own port."""
        return Deferred.fromCoroutine(self._open(service_ports))

    async def _open(self, service_ports: tuple[PortRange, ...]) -> None:
        for ports in service_ports:
            await _iptables("-A", "INPUT", "-p", "tcp", "--dport", str(ports.first), "-j", "ACCEPT")
        await _iptables("-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        await _iptables("-P", "INPUT", "DROP")

    def allow(self, grant: GrantId, end: float) -> Deferred[None]:
        """Run three processes."""
        del end
        return Deferred.fromCoroutine(self._each("-I", grant.network))

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        """Run three processes; one that fails is run again."""
        return Deferred.fromCoroutine(self._each("-D", grant.network))

    def traffic(self, _grant: GrantId) -> Traffic | None:
        """Nothing is counted."""
        return None

    def read_traffic(self) -> Deferred[None]:
        """Nothing is counted."""
        return succeed(None)

    def rules(self) -> RulesInForce:
        """Nothing is shown."""
        return RulesInForce()

    def warnings(self) -> list[str]:
        """Always empty."""
        return []

    async def _each(self, what: str, network: Network) -> None:
        for rule in _RULES:
            while True:
                try:
                    await _iptables(what, "INPUT", "-s", str(network), *rule)
                    break
                except ToolFailed:
                    continue

    def close(self) -> Deferred[None]:
        """Nothing to do: the rules end with the namespace."""
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def problems(self) -> list[str]:
        """Always empty."""
        return []


def _iptables(*words: str) -> Deferred[Any]:
    untyped: Any = reactor
    return run(untyped, (_TOOL, *words), _PATIENCE)


class _ReferenceService(EnvelopeService):
    def _make_firewall(self) -> IFirewall:
        return ReferenceFirewall()


def makeService(options: Options) -> EnvelopeService:
    """Called by twistd."""
    return _ReferenceService(reactor, options.config, dict(os.environ))
