"""The way of the service that this one replaces: an iptables process for each rule.

Three rules let a client in, one process after the other, and three processes take them out
again; different clients' processes run side by side. The rest of the service is ours, so that
nothing but the way differs.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from envelope.addresses import Network, PortRange
from envelope.firewall import IFirewall
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
    """Just enough of `IFirewall` to let clients in and out."""

    def open(self, service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """Default drop, and the service's own port."""
        return Deferred.fromCoroutine(self._open(service_ports))

    async def _open(self, service_ports: tuple[PortRange, ...]) -> None:
        for ports in service_ports:
            await _iptables("-A", "INPUT", "-p", "tcp", "--dport", str(ports.first), "-j", "ACCEPT")
        await _iptables("-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
        await _iptables("-P", "INPUT", "DROP")

    def allow(self, network: Network, end: float) -> Deferred[None]:
        """Three processes."""
        del end
        return Deferred.fromCoroutine(self._each("-I", network))

    def revoke(self, network: Network) -> Deferred[None]:
        """Three processes; one that fails is tried again."""
        return Deferred.fromCoroutine(self._each("-D", network))

    async def _each(self, what: str, network: Network) -> None:
        for rule in _RULES:
            while True:
                try:
                    await _iptables(what, "INPUT", "-s", str(network), *rule)
                    break
                except ToolFailed:
                    continue

    def close(self) -> Deferred[None]:
        """Leave all to the end of the namespace."""
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def problems(self) -> list[str]:
        """None are kept."""
        return []


def _iptables(*words: str) -> Deferred[Any]:
    untyped: Any = reactor
    return run(untyped, (_TOOL, *words), _PATIENCE)


class _ReferenceService(EnvelopeService):
    def _make_firewall(self) -> IFirewall:
        return ReferenceFirewall()


def makeService(options: Options) -> EnvelopeService:
    """For twistd."""
    return _ReferenceService(reactor, options.config, dict(os.environ))
