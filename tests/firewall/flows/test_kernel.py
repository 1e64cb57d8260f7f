"""Sockets and tracked flows, asked of this kernel in a network of the tests' own."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from envelope.firewall.flows.connections import Connection, UdpFlow
from envelope.firewall.flows.conntrack import Conntrack, read_flow
from envelope.firewall.flows.sockets import KernelSockets, bytecode, opened_here
from tests.support.environment import need_own_network
from tests.support.flowkernel import connection

# They need a network of their own, which the fast tests do not have.
pytestmark = [pytest.mark.kernel, pytest.mark.process]


@pytest.fixture
def sockets() -> Iterator[KernelSockets]:
    """This network's sockets."""
    need_own_network()
    table = KernelSockets()
    yield table
    table.close()


@pytest.fixture
def tracking() -> Iterator[Conntrack]:
    """This network's tracking."""
    need_own_network()
    conntrack = Conntrack()
    yield conntrack
    conntrack.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from one IPv4 address of loopback to another, the server's end of IPv6."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(
            ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        near = stack.enter_context(socket.socket())
        near.bind(("127.0.0.2", 0))
        near.connect(("127.0.0.3", listener.getsockname()[1]))
        yield near, stack.enter_context(listener.accept()[0])


def found(sockets: KernelSockets, one: socket.socket) -> Connection:
    """A TCP socket in the kernel's list."""
    ports = one.getsockname()[1], one.getpeername()[1]
    seen, = (each for each in sockets.connections("tcp")
             if (each.local_port, each.remote_port) == ports)
    return seen


def test_a_socket_tells_which_side_opened_it(sockets, pair) -> None:
    """Whatever has been sent, acknowledged or read, also once one side has closed."""
    near, far = pair
    far.setblocking(False)

    def holds() -> bool:
        return (found(sockets, near).opened, found(sockets, far).opened) == (True, False)

    assert holds()
    near.send(b"x" * 100)
    assert holds()
    sent = 0
    while True:
        try:
            sent += far.send(b"y" * 100000)
        except BlockingIOError:
            break
    assert holds()
    while sent:
        sent -= len(near.recv(1 << 16))
        assert holds()
    far.recv(1000)
    far.shutdown(socket.SHUT_WR)
    # Until the kernel has acknowledged that, some 40 ms, it cannot be told.
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
    assert found(sockets, far).remote == ip_address("127.0.0.2")
    assert found(sockets, far).is_ipv6


def test_half_a_handshake_tells_it_too() -> None:
    """Whatever the counters are; a kernel before 4.19 has none of them."""
    syn_sent, syn_received, established, last_ack = 2, 3, 1, 9
    info = bytes(280)
    assert opened_here(syn_sent, 0, info) is True
    assert opened_here(syn_received, 0, info) is False
    assert opened_here(established, 0, info) is False
    assert opened_here(established, 0, info[:192]) is None
    assert opened_here(established, 5, info) is None
    assert opened_here(last_ack, 0, info) is False
    assert opened_here(last_ack, 1, info) is None
    assert opened_here(last_ack, 2, info) is True


def test_a_list_can_be_of_several_networks(sockets, pair) -> None:
    """Of either family; a mapped address is an IPv4 one."""
    near, far = pair
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener, \
            socket.create_connection(listener.getsockname()[:2]) as six:
        for networks, ends in [
            (["127.0.0.2/32"], [far]), (["127.0.0.3/32", "127.0.0.9/32"], [near]),
            (["192.0.2.0/24", "127.0.0.0/30", "::/128"], [near, far]),
            (["2001:db8::/32", "::1/128"], [six]), (["0.0.0.0/0"], [near, far]),
            (["192.0.2.1/32", "::2/128"], []),
        ]:
            listed = list(sockets.connections("tcp", [ip_network(each) for each in networks]))
            ports = {each.local_port for each in listed}
            for one in (near, far, six):
                assert (one.getsockname()[1] in ports) is (one in ends), (networks, one)


def test_as_many_networks_as_share_a_list_fit_into_one_program(sockets, pair) -> None:
    """The last of them is found."""
    far = pair[1]
    many = [*(ip_network((0x20010DB8 << 96 | n, 128)) for n in range(127)),
            ip_network("127.0.0.2/32")]
    assert [each.local_port for each in sockets.connections("tcp", many)] == [far.getsockname()[1]]
    assert len(bytecode(many)) < 1 << 16


def test_a_destroyed_socket_is_gone_at_both_ends(sockets, pair) -> None:
    """Once more does no harm, nor does a name of the past."""
    near, far = pair
    seen = found(sockets, far)
    # A server on the port that is tried goes on.
    with socket.create_server(("", 1)) as server:
        assert sockets.why_indestructible() == ""
        with socket.create_connection(("127.0.0.1", 1)), server.accept()[0]:
            pass
    assert sockets.again(seen) == seen
    sockets.destroy(seen)
    sockets.destroy(seen)
    assert sockets.again(seen) is None
    for one, number in ((far, errno.ECONNABORTED), (near, errno.ECONNRESET)):
        with pytest.raises(OSError, match=f"Errno {number}"):
            one.recv(1)


def test_a_connected_udp_socket_is_listed_and_destroyed(sockets) -> None:
    """One without a peer serves its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        far.bind(("0.0.0.0", 0))
        near.connect(("127.0.0.1", far.getsockname()[1]))
        assert far.getsockname()[1] in sockets.served_ports("udp")
        seen, = sockets.connections("udp", [ip_network("127.0.0.1/32")])
        assert (seen.local_port, seen.opened) == (near.getsockname()[1], None)
        sockets.destroy(seen)
        assert not list(sockets.connections("udp"))


def test_devices_ports_and_addresses_are_the_kernels(sockets) -> None:
    """As this network has them."""
    here = ip_address("127.0.0.1")
    assert sockets.device_towards(ip_address("127.0.0.9"), here) == "lo"
    assert sockets.device_towards(ip_address("203.0.113.99"), here) == ""
    assert sockets.device_towards(ip_address("203.0.113.99"), here, 1) == "lo"
    assert sockets.device_towards(ip_address("::1"), ip_address("::1")) == "lo"
    assert sockets.ephemeral_ports()[0] >= 1024


OWN, OWN6 = connection(True, remote_port=443), connection(
    True, remote="2001:db8::7", local="2001:db8::1")


@pytest.mark.parametrize("own", [OWN, OWN6, connection(True, "udp", remote_port=53)])
def test_what_tracking_is_told_it_knows(tracking, own) -> None:
    """Until then it is new; after that it is not."""
    assert tracking.tell(own)
    assert not tracking.tell(own)
    known = Path("/proc/net/nf_conntrack").read_text()
    assert f"{own.transport} " in known
    assert f"sport={own.local_port} dport={own.remote_port}" in known


def test_a_connection_that_tracking_has_the_wrong_way_round_is_put_right(tracking) -> None:
    """Of TCP the socket knows better; of UDP tracking does."""
    for transport in ("tcp", "udp"):
        own = connection(True, transport, 6000, remote_port=6001)
        other = connection(True, transport, 6001, own.local, own.remote, 6000)
        assert tracking.tell(other)
        assert tracking.tell(own) is (transport == "tcp")
        assert tracking.tell(own) is False


def test_udp_flows_are_held_on_to(tracking) -> None:
    """The way they are, or turned round."""
    for port, turned in ((7000, False), (7001, True)):
        client = connection(True, "udp", 40000, "203.0.113.1", "203.0.113.7", port)
        flow = UdpFlow(client.local, 40000, client.remote, port)
        server = connection(True, "udp", port, client.local, client.remote, 40000)
        tracking.tell(server if turned else client)
        assert (flow.turned if turned else flow) in list(tracking.udp_flows(4))
        tracking.fix(flow, turned)
        tracking.fix(flow, False)
        assert flow in list(tracking.udp_flows(4))
        line, = (line for line in Path("/proc/net/nf_conntrack").read_text().splitlines()
                 if f"port={port} " in line)
        assert 3500 < int(line.split()[4]) <= 3600


def test_what_is_no_udp_flow_or_is_translated_is_passed_over() -> None:
    """A message of TCP, and one whose answers come from elsewhere."""
    def message(number: int, back: str) -> bytes:
        def flow(kind: int, source: str, target: str, ports: tuple[int, int]) -> bytes:
            addresses = b"".join(
                struct.pack("=HH", 8, at) + socket.inet_aton(address)
                for at, address in ((1, source), (2, target)))
            protocol = struct.pack("=HHB3xHH", 5, 1, number, 6, 2) + struct.pack("!H2x", ports[0])
            protocol += struct.pack("=HH", 6, 3) + struct.pack("!H2x", ports[1])
            parts = (struct.pack("=HH", 4 + len(addresses), 1) + addresses
                     + struct.pack("=HH", 4 + len(protocol), 2) + protocol)
            return struct.pack("=HH", 4 + len(parts), kind) + parts
        return (bytes((socket.AF_INET, 0, 0, 0)) + flow(1, "192.0.2.1", "192.0.2.2", (1, 2))
                + flow(2, back, "192.0.2.1", (2, 1)))
    assert read_flow(message(17, "192.0.2.2")) == UdpFlow(
        ip_address("192.0.2.1"), 1, ip_address("192.0.2.2"), 2)
    assert read_flow(message(6, "192.0.2.2")) is None
    assert read_flow(message(17, "10.0.0.2")) is None


def test_the_setting_is_read_and_written(tracking, tmp_path) -> None:
    """The kernel's own; and a machine without it says so."""
    assert tracking.loose()
    tracking.set_loose(False)
    assert not tracking.loose()
    tracking.set_loose(True)
    assert tracking.loose()
    with closing(Conntrack(tmp_path / "nothing")) as nothing, pytest.raises(FileNotFoundError):
        nothing.loose()
