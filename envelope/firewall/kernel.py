"""What the reconciler asks of a table of the kernel, whichever tool writes it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Final, Generic, Protocol, TypeVar

from envelope.firewall import Key as Key
from envelope.firewall import RulesInForce, Traffic

# One grant, as its table writes it: lines of iptables, or the second at which nftables
# lets an element end. Equal values mean that the kernel has nothing to change.
W = TypeVar("W")

# A grant must be answered within 10 s: the tool gives up first, then we do, then the caller.
ANSWER_WAIT: Final = 7.0

# The networks that `--proxy-port` is open to: all of one family, while one of them has a grant.
EVERYONE: Final = {4: Key("0.0.0.0/0"), 6: Key("::/0")}
NO_CLIENTS: Final = frozenset(EVERYONE.values())


def service_of(key: Key) -> int:
    """The number of a key's service."""
    return int(key.partition(" ")[2] or 0)


def network_text_of(key: Key) -> str:
    """A key's network as the tools print it."""
    return key.partition(" ")[0]


def version_of(key: Key) -> int:
    """The address family of a key's network, 4 or 6."""
    return 6 if ":" in key else 4


def parts_of(key: Key) -> tuple[bytes, int]:
    """A network's address in network order, and its prefix; raise `ValueError` for no network.

    The tools print networks as ipaddress does, which takes ten times as long to read one.
    """
    address, _, prefix = key.partition(" ")[0].partition("/")
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        raise ValueError(key) from None
    if int(prefix) > 8 * len(packed):
        raise ValueError(key)
    return packed, int(prefix)


def address_text(packed: bytes) -> str:
    """An address in network order as keys have it, which is as ipaddress prints it."""
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    text = socket.inet_ntop(socket.AF_INET6, packed)
    # inet_ntop(3) writes some addresses in a mixed form, and ipaddress does not.
    return str(IPv6Address(packed)) if "." in text else text


class TableLabel(StrEnum):
    """A kernel table in messages and in the label `family` of the metrics.

    iptables has a table for each address family, nftables one for both.
    """

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    INET = "inet"


class Outcome(StrEnum):
    """How a transaction ended: label `outcome` of `envelope_firewall_transactions_total`."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"


class DriftKind(StrEnum):
    """What differs from the rules as written: label `kind` of `envelope_firewall_drift_total`."""

    POLICY = "policy"
    JUMP = "jump"
    CHAIN = "chain"
    BASELINE = "baseline"
    GRANT = "grant"
    STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Seen(Generic[W]):
    """What the kernel was found to hold.

    `mending` are the lines that put the structure right, `kinds` the kinds of differences that
    they mend, one for each, and `grants` the networks that are let in, each with its grant.
    `moving` are the lines that move our jump back to its place, where others have put rules that
    let packets in before it. `openings` are rules of others in our own chains that can let packets
    in; they stay.
    """

    mending: Sequence[str]
    kinds: Sequence[DriftKind]
    grants: Mapping[Key, W]
    moving: Sequence[str] = ()
    openings: Sequence[str] = ()


class KernelTable(Protocol[W]):
    """One table of the kernel, as the reconciler sees it; it makes one call at a time."""

    @property
    def label(self) -> TableLabel:
        """The table's name in metrics and messages."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The address families that it filters."""

    def guard(self, also: tuple[str, ...]) -> None:
        """Guard these devices besides the one; the lines to do so are part of the next look."""

    def written(self, key: Key, end: float) -> W:
        """The grant that lets a network in until `end` (reactor seconds), as it is written.

        The kernel ends it by itself `policy.BACKSTOP` seconds later.
        """

    def is_over(self, grant: W) -> bool:
        """Whether the kernel has ended this grant by itself, though its rule may still stand."""

    def rules(self, wanted: Mapping[Key, W], in_force: Mapping[Key, W]) -> RulesInForce:
        """Our structure with these grants; see `IFirewall.rules`. Reads nothing."""

    async def counts(self) -> Mapping[Key, Traffic]:
        """What the rules of each grant that stand now have counted; may run beside another call.

        Raises `ToolFailed` or `UnreadableRules`. `Traffic.exact` is not looked at.
        """

    def deleted(self) -> Sequence[tuple[Key, Traffic]]:
        """What rules of grants had counted that were deleted since the last call, in their order.

        It is called after each `write`. Others may have deleted them. `exact`: they had counted no
        more. A rule that is replaced counts as deleted; one whose count is not known is left out.
        """

    def lost(self) -> bool:
        """Whether `deleted` may have left out any since the last call of this."""

    async def look(self, in_force: Mapping[Key, W]) -> Seen[W] | None:
        """Read the kernel's rules; None when they are known to be as written.

        Raises `ToolFailed` or `UnreadableRules`.
        """

    async def write(
        self,
        mending: Sequence[str],
        in_force: Mapping[Key, W],
        wants: Mapping[Key, W | None],
        patience: float,
    ) -> None:
        """Apply `mending` and give each network in `wants` that grant, or none, in one transaction.

        `in_force` is what every network has now. Raises `ToolFailed` after `patience` seconds at
        most; then only a look tells what the kernel holds.
        """
