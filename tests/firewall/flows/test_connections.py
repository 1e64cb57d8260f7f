"""Which flows a grant's end covers, and who opened a connection."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from envelope.addresses import PortRange
from envelope.firewall.flows.connections import Clients, Ended, how_cut_holds
from envelope.firewall.flows.judge import Judge, is_own
from tests.support.flowkernel import MemorySockets, connection

SSH, WEB = PortRange.parse("tcp/22"), PortRange.parse("tcp/80-81")
EPHEMERAL = range(32768, 61000)


def test_a_grants_end_covers_what_its_network_may_no_longer_use() -> None:
    """All ports but those that stay open to it, or certain ports alone."""
    clients = Clients([
        Ended(ip_network("203.0.113.0/24"), still_open=(SSH,)),
        Ended(ip_network("2001:db8::7/128")),
        Ended(ip_network("0.0.0.0/0"), ports=(WEB,)),
    ])
    for address, port, lost in [
        ("203.0.113.9", 5000, True), ("203.0.113.9", 22, False), ("203.0.114.9", 5000, False),
        ("203.0.114.9", 81, True), ("2001:db8::7", 22, True), ("2001:db8::8", 5000, False),
        ("2001:db8::8", 80, False),
    ]:
        assert clients.lose(ip_address(address), "tcp", port) is lost, (address, port)
    assert clients.lose(ip_address("203.0.113.9"), "udp", 22)
    clients.spare(ip_network("203.0.113.0/24"))
    assert not clients.lose(ip_address("203.0.113.9"), "tcp", 5000)
    assert len(clients.networks) == 2


def test_nobody_loses_anything_without_ends() -> None:
    """An empty list of them is false."""
    assert not Clients([])
    assert not Clients([]).lose(ip_address("203.0.113.9"), "tcp", 5000)


@pytest.mark.parametrize("opened", [True, False])
def test_the_socket_is_believed_first(opened) -> None:
    """Whatever its port looks like."""
    assert is_own(connection(opened, port=40000), {40000}, EPHEMERAL) is opened
    assert is_own(connection(opened, port=22), set(), EPHEMERAL) is opened


@pytest.mark.parametrize(("port", "served", "own"), [
    (40000, set(), True), (40000, {40000}, False), (5000, set(), False), (5000, {5000}, False),
])
def test_without_its_word_the_port_decides(port, served, own) -> None:
    """It has to be one that the kernel chose, and that nobody serves."""
    assert is_own(connection(None, port=port), served, EPHEMERAL) is own


def test_counters_in_the_middle_of_a_change_are_read_again() -> None:
    """Two readings have to agree, else the port decides; one that is gone is nobody's."""
    sockets = MemorySockets()
    sockets.open = [connection(None, port=40000), connection(True, port=41000)]
    judge = Judge(sockets, ("eth0",), "tcp")
    for later, own in [
        ([False, False], False), ([True, True], True), ([True, False, False], False),
        ([None, None, None], True), ([False, True, False], True),
    ]:
        sockets.later = [*later]
        assert judge.is_own(sockets.open[0]) is own, later
    sockets.later = [False, False]
    assert judge.is_own(sockets.open[1]) is False
    assert judge.is_own(connection(None, port=40001)) is None


def test_only_the_guarded_devices_connections_are_judged() -> None:
    """Those whose peer is reached through it, or not at all; loopback never."""
    sockets = MemorySockets()
    sockets.devices = {ip_address("198.51.100.7"): "lab1", ip_address("203.0.113.9"): ""}
    judge = Judge(sockets, ("eth0",), "udp")
    for remote, local, own in [
        ("203.0.113.7", "203.0.113.1", True), ("203.0.113.9", "203.0.113.1", True),
        ("192.0.2.1", "198.51.100.1", True), ("198.51.100.7", "203.0.113.1", None),
        ("127.0.0.1", "127.0.0.1", None),
    ]:
        made = connection(True, "udp", remote=remote, local=local)
        assert judge.is_own(made) is own, remote
    assert judge.is_own(replace(connection(True, "udp"), bound_to=3)) is None


def test_the_log_says_which_way_cut_holds() -> None:
    """Both, either, or none, which is a warning."""
    assert how_cut_holds("", "") == (True, (
        "cut: the sockets of a grant's clients are destroyed with it, and "
        "net.netfilter.nf_conntrack_tcp_loose is 0"))
    holds, line = how_cut_holds("", "Read-only file system")
    assert holds
    assert line.endswith("tcp_loose cannot be set: Read-only file system)")
    holds, line = how_cut_holds("Operation not permitted", "")
    assert holds
    assert line.endswith("is 0 (sockets cannot be destroyed: Operation not permitted)")
    holds, line = how_cut_holds("Operation not permitted", "Read-only file system")
    assert not holds
    assert "a client may keep a connection open after its grant" in line
