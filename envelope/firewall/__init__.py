"""The firewall as the rest of the service sees it: one interface, several kernels behind it.

`iptables` drives the real kernel, `memory` is the twin that token-less services and tests use.
One contract suite (`tests/firewall/test_contract.py`) runs on every one of them.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface

from envelope.addresses import Network, PortRange


class FirewallError(Exception):
    """The firewall could not do as asked; the text is one line fit for an operator's log."""


class IFirewall(Interface):
    """Lets networks in and shuts them out again.

    The caller counts who shares a network (`envelope.sessions.sharing`); this interface knows
    networks only. Calls may overlap freely; each answer speaks of the kernel, not of a wish.
    """

    def open(service_ports: tuple[PortRange, ...]) -> Deferred[None]:
        """Put the baseline in force, clearing whatever a killed predecessor left behind.

        `service_ports` are the service's own, always let in. Fails with `FirewallError`, and then
        nothing is changed.
        """

    def allow(network: Network, until: float) -> Deferred[None]:
        """Let `network` in; fires once the rule is in force.

        `until` (seconds since the epoch) is when the session's deadline passes; the kernel ends
        the grant by itself a few seconds later. Asking again for a network replaces its end.
        Fails with `FirewallError`, and then nothing of it stays open: what a tool may have applied
        without saying so is taken away as soon as the tool allows. A network that was let in before
        keeps its end, but an earlier one that was asked for is tried until it holds. Cancelling is
        not supported: call `revoke`.
        """

    def revoke(network: Network) -> Deferred[None]:
        """Shut `network` out; fires once the kernel lets it in no more.

        Never fails: what the tool refuses is tried again until it holds or the grant's own end
        in the kernel has passed. Also fires when a later `allow` takes the network over.
        """

    def close() -> Deferred[None]:
        """Revoke everything, and put back what was there before `open` (or keep the default drop).

        Fails with `FirewallError` naming what is left in force when the tool refuses to the end.
        """

    def problems() -> list[str]:
        """What keeps the rules from holding right now, a line each; empty when all is well."""
