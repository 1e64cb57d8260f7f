"""Connections as the kernel's sockets show them. Pure.

`SocketTable` and `Tracking` are what has to be asked of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, TypeAlias

from envelope.addresses import Address, Network, Opening

Transport: TypeAlias = Literal["tcp", "udp"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "udp")
# Connections or flows that one turn of the reactor deals with: read (10 µs each), or judged and
# then destroyed or told of (80 µs each).
READ_AT_ONCE: Final = 100
JUDGED_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Connection:
    """A socket of this network namespace that has a peer.

    `opened` says whether this host opened the connection; None where its socket does not tell.
    `is_ipv6` is the family of the socket: one of IPv6 may have an IPv4 peer. `bound_to` is the
    number of the device that it is bound to, or 0; `identity` is the kernel's name for it.
    """

    transport: Transport
    is_ipv6: bool
    local: Address
    local_port: int
    remote: Address
    remote_port: int
    opened: bool | None
    bound_to: int
    identity: bytes


class SocketTable(Protocol):
    """The sockets of this network namespace; every call may raise `OSError`."""

    def prepare(self) -> None:
        """Take the descriptors that everything else needs; raises `OSError`."""

    def connections(
        self, transport: Transport, networks: Sequence[Network] = ()
    ) -> Iterator[Connection]:
        """All connections, or those whose peer is in one of `networks`, read as they are asked for.
        """

    def again(self, seen: Connection) -> Connection | None:
        """The same connection as it is now; None when it is gone."""

    def served_ports(self, transport: Transport) -> set[int]:
        """The ports of sockets without a peer, listening (TCP) or bound (UDP), not loopback's."""

    def destroy(self, connection: Connection) -> None:
        """End a connection at once, telling its peer and its program; nothing if it is gone."""

    def why_indestructible(self) -> str:
        """Why this process cannot destroy sockets here; empty when it can."""

    def device_towards(self, remote: Address, local: Address, bound_to: int = 0) -> str:
        """The device that packets from `local` to `remote` leave by; empty when there is none."""

    def ephemeral_ports(self) -> range:
        """The ports that the kernel gives to sockets which ask for none."""

    def close(self) -> None:
        """Close the sockets to the kernel; the next call opens them again."""


class Tracking(Protocol):
    """The kernel's connection tracking; every call may raise `OSError`."""

    def loose(self) -> bool:
        """Whether TCP connections are picked up midway (`nf_conntrack_tcp_loose`)."""

    def set_loose(self, loose: bool) -> None:
        """Set whether they are."""

    def tell(self, own: Connection) -> bool:
        """Enter that this host opened a connection; return whether that was not known."""

    def udp_flows(self, version: int) -> Iterator[UdpFlow]:
        """A family's UDP flows that no address translation changes, read as they are asked for."""

    def fix(self, flow: UdpFlow, turned: bool) -> None:
        """Pin a flow for `FIXED_FOR` seconds, as one that its source began.

        `turned` says that tracking sees it the other way round.
        """

    def close(self) -> None:
        """Close the sockets to the kernel; the next call opens them again."""


# Seconds for which a UDP flow of a client's is remembered as such, however silent it is.
FIXED_FOR: Final = 3600


@dataclass(frozen=True, slots=True)
class UdpFlow:
    """A UDP flow as tracking knows it: its first packet's source and target."""

    source: Address
    source_port: int
    target: Address
    target_port: int

    @property
    def turned(self) -> UdpFlow:
        """The same with its ends exchanged."""
        return UdpFlow(self.target, self.target_port, self.source, self.source_port)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a network may no longer use: all ports of this host but `still_open`.

    With `ports`, only those of them.
    """

    network: Network
    still_open: tuple[Opening, ...] = ()
    ports: tuple[Opening, ...] = ()

    def covers(self, transport: Transport, port: int) -> bool:
        """Whether a flow to a port of this host is to end."""
        return not _covered(self.still_open, transport, port) and (
            not self.ports or _covered(self.ports, transport, port)
        )


    def without(self, ports: tuple[Opening, ...]) -> Ended:
        """The same, but that these ports are open again."""
        return replace(self, still_open=(*self.still_open, *ports))


def _covered(openings: Iterable[Opening], transport: Transport, port: int) -> bool:
    return any(each.covers(transport, port) for each in openings)


class Clients:
    """Finds out which of many networks an address is in, at a cost that does not grow with them."""

    def __init__(self, ended: Iterable[Ended]) -> None:
        self._by_prefix: dict[tuple[int, int, int], Ended] = {}
        self._lengths: set[tuple[int, int]] = set()
        self.add(ended)

    def add(self, ended: Iterable[Ended]) -> tuple[()]:
        """Add these."""
        for each in ended:
            prefix = _prefix(each.network.network_address, each.network.prefixlen)
            self._by_prefix[prefix] = each
            self._lengths.add(prefix[:2])
        return ()

    def __bool__(self) -> bool:
        return bool(self._by_prefix)

    @property
    def versions(self) -> set[int]:
        """Their address families."""
        return {version for version, _ in self._lengths}

    @property
    def networks(self) -> list[Network]:
        """All of them."""
        return [each.network for each in self._by_prefix.values()]

    def spare(self, network: Network, ports: tuple[Opening, ...] = ()) -> None:
        """Leave one out, or these ports of it."""
        prefix = _prefix(network.network_address, network.prefixlen)
        ended = self._by_prefix.pop(prefix, None)
        if ports and ended is not None:
            self._by_prefix[prefix] = ended.without(ports)

    def lose(self, remote: Address, transport: Transport, port: int) -> bool:
        """Whether a flow of `remote` to a port of this host is to end."""
        found = (
            self._by_prefix.get(_prefix(remote, length))
            for version, length in self._lengths if version == remote.version
        )
        return any(each is not None and each.covers(transport, port) for each in found)


def _prefix(address: Address, length: int) -> tuple[int, int, int]:
    return address.version, length, int(address) >> address.max_prefixlen - length


def how_cut_holds(indestructible: str, fixed: str) -> tuple[bool, str]:
    """Whether `cut` holds, and the line for the log that says how.

    `indestructible` is why sockets cannot be destroyed, and `fixed` why connection tracking goes on
    to pick up connections midway; both empty at best.
    """
    destroys = "the sockets of a grant's clients are destroyed with it"
    setting = "net.netfilter.nf_conntrack_tcp_loose"
    if not indestructible and not fixed:
        return True, f"cut: {destroys}, and {setting} is 0"
    if not indestructible:
        return True, f"cut: {destroys} ({setting} cannot be set: {fixed})"
    if not fixed:
        return True, f"cut: {setting} is 0 (sockets cannot be destroyed: {indestructible})"
    return False, (
        "cut: a client may keep a connection open after its grant: sockets cannot be destroyed "
        f"({indestructible}), and {setting} cannot be set ({fixed})"
    )
