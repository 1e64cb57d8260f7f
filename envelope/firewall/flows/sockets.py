"""The sockets of this network namespace, listed and destroyed through sock_diag(7) as `ss -K` does.

A list takes 0.3 ms, mostly to walk the kernel's table of connections (262,144 places), and
6 µs for each connection that fits; destroying one takes 25 µs. A destroyed TCP socket
resets its peer, and its program reads ECONNABORTED. Destroying takes CAP_NET_ADMIN, and a kernel
with CONFIG_INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Final

from envelope.addresses import Address, Network
from envelope.firewall.flows.connections import Connection, Transport
from envelope.netlink import (
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
    Netlink,
    attribute,
    attributes,
)

# linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_LIST_BOTH, _LIST, _DESTROY = 18, 20, 21
_REQUEST: Final = struct.Struct("=BBBxI")
# What stands before and after a socket's name in the older request.
_BOTH, _END = struct.Struct("=BBBB"), struct.Struct("=II")
_BYTECODE, _INFO = 1, 2
_PEER_IN, _JUMP = 8, 1
_ENDPOINTS: Final = struct.Struct("!HH16s16s")
_WORD: Final = struct.Struct("=I")
_IDENTITY: Final = slice(4, 52)
_BOUND_AT: Final = 40
_QUEUE_AT, _ATTRIBUTES_AT = 60, 72
# Matches every socket.
_ANY: Final = _ENDPOINTS.pack(0, 0, b"", b"") + b"\xff" * 12
_NUMBERS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_ESTABLISHED, _SYN_SENT, _SYN_RECV, _FIN_WAIT2 = 1, 2, 3, 5
_TIME_WAIT, _CLOSE, _CLOSE_WAIT, _LISTEN, _NEW_SYN_RECV = 6, 7, 8, 10, 12
# A UDP socket is called established once it has a peer, and closed before.
_WITH_PEER: Final = {
    "tcp": 0x1FFE & ~(1 << _TIME_WAIT | 1 << _CLOSE | 1 << _LISTEN), "udp": 1 << _ESTABLISHED,
}
_WITHOUT_PEER: Final = {"tcp": 1 << _LISTEN, "udp": 1 << _CLOSE}
# Places in linux/tcp.h's tcp_info: bytes_acked, notsent_bytes, bytes_sent and bytes_retrans.
_LONG: Final = struct.Struct("=Q")
_ACKED, _NOT_SENT, _SENT, _SENT_AGAIN, _INFO_SIZE = 120, 144, 200, 208, 216
# linux/rtnetlink.h
_GET_ROUTE, _ROUTE_SIZE, _TO, _FROM, _OUT = 26, 12, 1, 2, 4


class KernelSockets:
    """See `envelope.firewall.flows.connections.SocketTable`."""

    def __init__(self, proc: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> None:
        self._sockets = Netlink(NETLINK_SOCK_DIAG)
        self._routes = Netlink(NETLINK_ROUTE)
        self._ephemeral = proc

    def prepare(self) -> None:
        """See `SocketTable`."""
        self._sockets.open()
        self._routes.open()

    def connections(
        self, transport: Transport, networks: Sequence[Network] = ()
    ) -> Iterator[Connection]:
        """See `SocketTable`."""
        program = attribute(_BYTECODE, bytecode(networks)) if networks else b""
        states = _WITH_PEER[transport]
        if transport == "tcp":
            # The older request lists both families in one walk through the kernel's table.
            head = _BOTH.pack(0, 0, 0, 1 << _INFO - 1)
            asked = [(_LIST_BOTH, head + _ANY + _END.pack(states, 0))]
        else:
            families = (socket.AF_INET, socket.AF_INET6)
            asked = [(_LIST, _request(each, transport, states, _ANY)) for each in families]
        for kind, request in asked:
            for message in self._sockets.dump(kind, request + program):
                yield read_connection(transport, message)

    def again(self, seen: Connection) -> Connection | None:
        """See `SocketTable`."""
        try:
            return read_connection(seen.transport, self._sockets.ask(_LIST, _one(seen)))
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def served_ports(self, transport: Transport) -> set[int]:
        """See `SocketTable`."""
        served: set[int] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _request(family, transport, _WITHOUT_PEER[transport], _ANY)
            for message in self._sockets.dump(_LIST, body):
                port, _, address, _ = _ENDPOINTS.unpack_from(message, _IDENTITY.start)
                if not _address(family == socket.AF_INET6, address).is_loopback:
                    served.add(port)
        return served

    def destroy(self, connection: Connection) -> None:
        """See `SocketTable`."""
        try:
            self._sockets.do(_DESTROY, _one(connection))
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def why_indestructible(self) -> str:
        """See `SocketTable`."""
        nobody = socket.inet_aton("127.0.0.1")
        # No socket has the cookie 0 (sock_gen_cookie). Without one, a server that listens on the
        # port would be found, and destroyed.
        name = _ENDPOINTS.pack(1, 1, nobody, nobody) + _ANY[-12:-8] + bytes(8)
        try:
            for _ in self.connections("tcp", (ip_network("192.0.2.1/32"),)):
                pass
            self._sockets.do(_DESTROY, _request(socket.AF_INET, "tcp", 0, name))
        except OSError as error:
            return "" if error.errno in _GONE else str(error.strerror)
        return ""

    def device_towards(self, remote: Address, local: Address, bound_to: int = 0) -> str:
        """See `SocketTable`."""
        family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
        bits = remote.max_prefixlen
        asking = bytes((family, bits, bits)).ljust(_ROUTE_SIZE, b"\0") + attribute(
            _TO, remote.packed) + attribute(_FROM, local.packed)
        try:
            if not bound_to:
                answer = self._routes.ask(_GET_ROUTE, asking)
                bound_to, = _WORD.unpack(attributes(answer, _ROUTE_SIZE)[_OUT])
            return socket.if_indextoname(bound_to)
        except (OSError, KeyError):
            return ""

    def ephemeral_ports(self) -> range:
        """See `SocketTable`."""
        first, last = self._ephemeral.read_text().split()
        return range(int(first), int(last) + 1)

    def close(self) -> None:
        """See `SocketTable`."""
        self._sockets.close()
        self._routes.close()


_GONE: Final = (errno.ENOENT, errno.ESTALE)


def _request(family: int, transport: Transport, states: int, name: bytes) -> bytes:
    return _REQUEST.pack(family, _NUMBERS[transport], 1 << _INFO - 1, states) + name


def _one(connection: Connection) -> bytes:
    family = socket.AF_INET6 if connection.is_ipv6 else socket.AF_INET
    return _request(family, connection.transport, 0, connection.identity)


def bytecode(networks: Sequence[Network]) -> bytes:
    """The kernel's program for "the peer is in one of these networks". Pure.

    Behind each condition stands a jump to the end, which accepts; a condition that is not met skips
    that jump. A jump beyond the end rejects (inet_diag_bc_run).
    """
    program = b""
    for network in reversed(networks):
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        address = network.network_address.packed
        size = 12 + len(address)
        # The port -1 is any port.
        operands = struct.pack("=BB2xi", family, network.prefixlen, -1) + address
        jump = struct.pack("=BBH", _JUMP, 4, 4 + len(program)) if program else b""
        program = struct.pack("=BBH", _PEER_IN, size, size + 4) + operands + jump + program
    return program


def read_connection(transport: Transport, message: bytes) -> Connection:
    """One connection out of the kernel's answer, an inet_diag_msg with its attributes. Pure."""
    is_ipv6, state = message[0] == socket.AF_INET6, message[1]
    local_port, remote_port, local, remote = _ENDPOINTS.unpack_from(message, _IDENTITY.start)
    opened: bool | None = None
    if transport == "tcp":
        queue, = _WORD.unpack_from(message, _QUEUE_AT)
        info = attributes(message, _ATTRIBUTES_AT).get(_INFO, b"")
        opened = opened_here(state, queue, info)
    return Connection(
        transport, is_ipv6, _address(is_ipv6, local), local_port,
        _address(is_ipv6, remote), remote_port, opened,
        _WORD.unpack_from(message, _BOUND_AT)[0], message[_IDENTITY],
    )


def _address(is_ipv6: bool, packed: bytes) -> Address:
    if not is_ipv6:
        return IPv4Address(packed[:4])
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def opened_here(state: int, queue: int, info: bytes) -> bool | None:
    """Whether this host opened a TCP connection; None when its counters do not tell. Pure.

    The kernel counts the sequence numbers that the peer has acknowledged. On the side that
    connected, the SYN's is among them; on the side that accepted, counting begins behind it
    (tcp_snd_una_update, tcp_create_openreq_child). So what was acknowledged or is on its way is
    what was sent, repetitions aside, and one more if the SYN was ours. `queue` are the bytes not
    yet acknowledged, `info` the kernel's tcp_info. Nothing that a peer sends changes the
    difference.
    """
    if state == _SYN_SENT:
        return True
    if state in (_SYN_RECV, _NEW_SYN_RECV):
        return False
    if len(info) < _INFO_SIZE:
        return None
    (acknowledged,), (sent,), (again,) = (
        _LONG.unpack_from(info, place) for place in (_ACKED, _SENT, _SENT_AGAIN)
    )
    waiting, = _WORD.unpack_from(info, _NOT_SENT)
    more = acknowledged + queue - waiting - (sent - again)
    if state in (_ESTABLISHED, _CLOSE_WAIT):
        return {0: False, 1: True}.get(more)
    # A FIN of ours counts once it is sent; until it is acknowledged, that does not show.
    return {1: False, 2: True}.get(more) if state == _FIN_WAIT2 else {0: False, 2: True}.get(more)
