"""What the reconciler asks of a kernel's rules, whichever tool they are written with.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType, Protocol, TypeAlias

from envelope.addresses import Network

# A network as the tools print it, `203.0.113.7/32`. A text, because thousands of them are looked
# up when the kernel's rules are compared, and ipaddress computes its hashes in Python.
Key = NewType("Key", str)
# What a network's grant consists of in the kernel, in the table's own words, sorted.
Rules: TypeAlias = tuple[str, ...]

# Whom `--proxy-port` is open to: all networks of one family, as long as one of them has a grant.
EVERYONE: Final = {4: Key("0.0.0.0/0"), 6: Key("::/0")}
NO_CLIENTS: Final = frozenset(EVERYONE.values())


def key_of(network: Network) -> Key:
    """The key of a network."""
    return one_key(str(network))


def one_key(text: str) -> Key:
    """The one object for a key, however it was come by: thousands are compared at each look."""
    return Key(sys.intern(text))


def version_of(key: Key) -> int:
    """The address family of a key's network, 4 or 6."""
    return 6 if ":" in key else 4


def parts_of(key: Key) -> tuple[bytes, int]:
    """A network's address in network order, and its prefix; raise `ValueError` for no network.

    The tools print networks as ipaddress does, which takes ten times as long to read one.
    """
    address, _, prefix = key.partition("/")
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        raise ValueError(key) from None
    if int(prefix) > 8 * len(packed):
        raise ValueError(key)
    return packed, int(prefix)


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
class Seen:
    """What a look at the kernel found.

    `mending` are the lines that put the structure right, `kinds` what kinds of differences they
    mend, `grants` the networks let in, each with its
    rules.
    """

    mending: Sequence[str]
    kinds: Sequence[DriftKind]
    grants: Mapping[Key, Rules]


class KernelTable(Protocol):
    """One table of the kernel's; only the reconciler writes grants into it, one call at a time."""

    @property
    def label(self) -> TableLabel:
        """The table's name in metrics and in messages."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The address families that it filters."""

    @property
    def by_time_of_day(self) -> bool:
        """Whether the kernel ends grants at a time of day, which moves when the clock is set."""

    @property
    def comers_apart(self) -> bool:
        """Whether who comes should not share a transaction with who leaves, and go first.

        That is so where the kernel lets the next one wait that adds something after one has
        deleted something.
        """

    def rules(self, key: Key, end: int) -> Rules:
        """What lets a network in until `end` (seconds since the epoch)."""

    def end_of(self, rules: Rules) -> int | None:
        """When the kernel ends a network's rules by itself; None for no rules."""

    async def look(self, in_force: Mapping[Key, Rules]) -> Seen | None:
        """Read what the kernel holds; None when it is known to be just what is in force.

        Raises `ToolFailed` or `UnreadableRules`.
        """

    async def write(
        self,
        mending: Sequence[str],
        in_force: Mapping[Key, Rules],
        wants: Mapping[Key, Rules],
        patience: float,
    ) -> None:
        """Apply `mending` and let the networks in `wants` have those rules, in one transaction.

        No rules means that the network is shut out. `in_force` is what every network has now.
        Raises `ToolFailed` after `patience` seconds at most; then only a look tells what holds.
        """


# A grant must be answered within 10 s, so the tool gives up first, then we do, then the caller.
ANSWER_WAIT: Final = 7.0
