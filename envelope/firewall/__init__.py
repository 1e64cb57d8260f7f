"""The firewall as the rest of the service sees it: one interface, several kernels behind it.

`iptables` and `nftables` drive the real kernel, `memory` is their twin for services without tokens
and for tests. One suite (`tests/firewall/test_contract.py`) holds all of them to the interface.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import NewType, Protocol

from twisted.internet.defer import Deferred

from envelope.addresses import Network, PortRange

# A grant as a text (`grant_key`): thousands of them are looked up when the kernel's rules are
# compared, and ipaddress computes its hashes in Python.
Key = NewType("Key", str)


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


class GrantId:
    """A grant: a network, let in to one of the services (`envelope.config.subjects.Service`).

    Those with the same `key` are equal. The key is made once, since ipaddress computes the text and
    the hash of a network in Python.
    """

    __slots__ = ("key", "network", "service")

    def __init__(self, network: Network, service: int = 0) -> None:
        self.network = network
        self.service = service
        self.key = grant_key(str(network), service)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GrantId) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"GrantId({self.key})"


def grant_key(network: str, service: int) -> Key:
    """The key of a grant: its network as the tools print it, and its service unless that is 0.

    `203.0.113.7/32`, or `203.0.113.7/32 2`. Interned: thousands are compared at each look, mostly
    with themselves.
    """
    return Key(sys.intern(f"{network} {service}" if service else network))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a grant has let in, as the kernel counted it.

    `exact`: nothing that was let in is missing. Otherwise it is what the last reading showed.
    `unused`: the grant is over, and never let a packet in, also not for earlier sessions.
    """

    packets: int
    bytes: int
    exact: bool
    unused: bool = field(default=False, compare=False)


class IFirewall(Protocol):
    """Lets networks in to services and shuts them out again.

    The caller counts the sessions of a grant (`envelope.sessions.sharing`); this interface knows
    grants only, and those of one network are independent of each other. Calls may overlap freely.
    An answer says what the kernel holds, not what is planned.
    """

    def open(
        self, service_ports: tuple[PortRange, ...], closed_ports: tuple[PortRange, ...] = ()
    ) -> Deferred[None]:
        """Put the baseline in force, and clear whatever a killed service left behind.

        `service_ports` are always let in. `closed_ports`, of the admin endpoints, are never opened
        by a grant, only by `--allow`. Fails with `FirewallError`, and then nothing is changed.
        """

    def allow(self, grant: GrantId, end: float) -> Deferred[None]:
        """Let the grant's network in; fires once the rule is in force.

        `end` (reactor seconds) is when the session's deadline passes; the kernel ends the grant by
        itself a few seconds later. Asking again for a grant replaces its end. Fails with
        `FirewallError`, and then nothing of it stays open: what a tool may have applied without
        saying so is taken away as soon as the tool allows. A grant that was made before keeps
        its end, unless an earlier one was asked for, which is tried until it holds. Cancelling is
        not supported: call `revoke`.
        """

    def revoke(self, grant: GrantId) -> Deferred[Traffic | None]:
        """End a grant; fires once the kernel lets nothing in by it any more.

        The result is all that it has let in; None where that is not known. Never fails: what the
        tool refuses is tried again until it holds or the grant's own end in the kernel has passed.
        Also fires when a later `allow` takes the grant over.
        """

    def traffic(self, grant: GrantId) -> Traffic | None:
        """What a grant has let in, as of the last `read_traffic`; None where that is not known."""

    def read_traffic(self) -> Deferred[None]:
        """Read the kernel's counters now; never fails."""

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
