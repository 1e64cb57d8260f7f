"""The firewall as the rest of the service sees it: one interface, several kernels behind it.

`iptables` and `nftables` drive the real kernel, `memory` is their twin for services without tokens
and for tests. One suite (`tests/firewall/test_contract.py`) holds all of them to the interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from envelope.addresses import Network, PortRange


class FirewallError(Exception):
    """The firewall could not do as asked; the text is one line for the operator's log."""


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The rules that should be in force and those that are, each as the command that writes it.

    A rule that is `wanted` and not `held` is missing; one that is `held` and not `wanted` is a
    stray. No line stands twice in either.
    """

    wanted: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


class IFirewall(Protocol):
    """Lets networks in and shuts them out again.

    The caller counts the sessions of a network (`envelope.sessions.sharing`); this interface knows
    networks only. Calls may overlap freely. An answer says what the kernel holds, not what is
    planned.
    """

    def open(
        self, service_ports: tuple[PortRange, ...], closed_ports: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """Put the baseline in force, and clear whatever a killed service left behind.

        `service_ports` are always let in. `closed_ports`, of the admin endpoints, are never opened
        by a grant, only by `--allow`. Fails with `FirewallError`, and then nothing is changed.
        """

    def allow(self, network: Network, end: float) -> Deferred[None]:
        """Let `network` in; fires once the rule is in force.

        `end` (reactor seconds) is when the session's deadline passes; the kernel ends the grant by
        itself a few seconds later. Asking again for a network replaces its end. Fails with
        `FirewallError`, and then nothing of it stays open: what a tool may have applied without
        saying so is taken away as soon as the tool allows. A network that was let in before keeps
        its end, unless an earlier one was asked for, which is tried until it holds. Cancelling is
        not supported: call `revoke`.
        """

    def revoke(self, network: Network) -> Deferred[None]:
        """Shut `network` out; fires once the kernel lets it in no more.

        Never fails: what the tool refuses is tried again until it holds or the grant's own end in
        the kernel has passed. Also fires when a later `allow` takes the network over.
        """

    def close(self) -> Deferred[None]:
        """Revoke everything, and put back the rules from before `open` (or keep the default drop).

        Fails with `FirewallError` naming what is left in force when the tool refuses to the end.
        """

    def problems(self) -> list[str]:
        """What keeps the rules from holding right now, a line each; empty when all is well."""

    def warnings(self) -> list[str]:
        """What an operator should look after although the rules are written, a line each."""

    def rules(self) -> RulesInForce:
        """Our rules, grants included, as the last look found them and what was written since.

        Nothing is read for it. A rule that others have removed is still `held` until the next look,
        at most 10 s later.
        """
