"""A host of our own to send packets to: the guarded device's name and addresses, and servers."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final

from envelope.addresses import Address, fold
from envelope.preflight.packets import Target, accepted, first_packet
from envelope.preflight.wire import PEER, Wire

_ALL_PROTOCOLS: Final = 0x0003  # ETH_P_ALL of linux/if_ether.h
# Clients: a rule of others may refuse some networks (a ban), but hardly all of these. They are
# addresses as real clients have them, because ranges for documentation or private use are refused
# by many rule sets; no packet to or from them leaves the network that a trial makes for itself.
CLIENTS: Final[dict[int, tuple[Address, ...]]] = {
    4: tuple(map(ip_address, ("23.44.181.9", "81.200.66.20", "190.112.7.33"))),
    6: tuple(map(ip_address, (
        "2001:41d0:1:9::7", "2600:1f00:5::9", "2804:14c:3::5"))),
}
# What the host is called if the device has no address.
_NAMELESS: Final = {4: ip_address("81.201.9.9"), 6: ip_address("2a02:2e0:12::9")}
# Seconds in which answers are waited for. The kernel delivers within the call that sends.
_PATIENCE: Final = 0.15
# Targets in a row that a slow packet does not reach either; no limit of a rate refuses so many.
_GIVE_UP: Final = 16


class Sandbox:
    """This process's network, with a cable to clients; raises `OSError` where it cannot be made.

    `addresses` are the host's on `device`, `versions` the families to try, `others` the names of
    further devices that rules name.
    """

    def __init__(
        self, device: str, addresses: Iterable[Address], versions: Sequence[int],
        others: Iterable[str],
    ) -> None:
        self._stack = ExitStack()
        wire = Wire()
        self._stack.callback(wire.close)
        wire.cable(device)
        wire.others(each for each in others if each not in (device, PEER, "lo"))
        self._host: dict[int, Address] = {}
        usable = [each for each in addresses if not each.is_link_local]
        for version in versions:
            own = [each for each in usable if each.version == version]
            self._host[version] = next(iter(own), _NAMELESS[version])
            for address in own or [self._host[version]]:
                wire.address(device, address)
            wire.default_route(device, version)
            for client in CLIENTS[version]:
                wire.neighbour(device, client)
        self._raw = self._keep(socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ALL_PROTOCOLS)))
        self._raw.bind((PEER, 0))
        self._datagrams: dict[socket.socket, Target] = {}
        self._source_port = 20_000

    def close(self) -> None:
        """Close all sockets."""
        self._stack.close()

    def serve(self, targets: Iterable[Target]) -> None:
        """Listen at `targets`."""
        for target in targets:
            family = socket.AF_INET if target.version == 4 else socket.AF_INET6
            tcp = target.protocol == "tcp"
            server = self._keep(socket.socket(
                family, (socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK))
            if target.version == 6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind(("", target.port))
            if tcp:
                server.listen(16)
            else:
                self._datagrams[server] = target

    def reached(self, targets: Iterable[Target]) -> set[Target]:
        """Those of `targets` that at least one client reaches now."""
        missing = set(targets)
        for number in range(len(CLIENTS[4])):
            if missing:
                self._send(missing, number)
                missing -= self._arrived(missing)
        return set(targets) - missing

    def reached_slowly(self, targets: Iterable[Target]) -> set[Target]:
        """The same with one client and one packet after the other, for rules that limit a rate."""
        found = set[Target]()
        failed = 0
        for target in sorted(targets):
            if failed == _GIVE_UP:
                break
            select.select([], [], [], _PATIENCE)
            self._send([target], 0)
            arrived = self._arrived({target})
            failed = 0 if arrived else failed + 1
            found |= arrived
        return found

    def _send(self, targets: Iterable[Target], number: int) -> None:
        for target in targets:
            client, host = CLIENTS[target.version][number], self._host[target.version]
            # Another port each time: connection tracking knows the last one.
            self._source_port += 1
            self._raw.send(first_packet(target, client, host, self._source_port))

    def _arrived(self, expected: set[Target]) -> set[Target]:
        found = set[Target]()
        end = time.monotonic() + _PATIENCE
        while found != expected and (left := end - time.monotonic()) > 0:
            found |= self._heard(left) & expected
        return found

    def _heard(self, patience: float) -> set[Target]:
        ready, _, _ = select.select([self._raw, *self._datagrams], [], [], patience)
        heard = set()
        for each in ready:
            data, sender = each.recvfrom(2048)
            if each is not self._raw:
                if fold(sender[0]) in CLIENTS[self._datagrams[each].version]:
                    heard.add(self._datagrams[each])
            elif (answer := accepted(data)) is not None:
                heard.add(answer[0])
        return heard

    def _keep(self, opened: socket.socket) -> socket.socket:
        return self._stack.enter_context(opened)
