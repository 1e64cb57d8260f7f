"""What a host needs from its link stays open, and what is refused is refused at once."""

from __future__ import annotations

import re
import subprocess

import pytest

from envelope.lab import Host
from tests.end_to_end.harness import BARE_PYTHON, Lines, Rig, every_kind

pytestmark = pytest.mark.kernel

# A datagram socket that prints what it hears: arguments are the address and the port.
HEAR = """
import socket, sys
heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
heard.bind(("::", int(sys.argv[1])))
print("up", flush=True)
while True:
    print(heard.recv(99).decode(), flush=True)
"""
# Sends its last argument: from this address and port, to that address and port.
SEND = """
import socket, sys
source, sport, target, dport, text = sys.argv[1:]
scope = socket.if_nametoindex("eth0")
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
    sender.bind((source, int(sport), 0, scope))
    sender.sendto(text.encode(), (target, int(dport), 0, scope))
"""
# Sends ICMPv6 of these types to the host's link-local address, with MLD's hop-by-hop option
# (RFC 2710 section 3); prints nothing.
SEND_ICMP = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
    alert = bytes.fromhex("0000050200000100")
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, alert)
    target = ("fe80::1", 0, 0, socket.if_nametoindex("eth0"))
    for kind in sys.argv[1:]:
        sender.sendto(bytes([int(kind), *[0] * 23]), target)
"""
# Prints the numbers of these protocols whose packets get through, over IPv4 or IPv6.
COUNT4 = """
import select, socket, sys
opened = {}
for number in sys.argv[1:]:
    opened[socket.socket(socket.AF_INET, socket.SOCK_RAW, int(number))] = number
print("up", flush=True)
while True:
    for ready in select.select([*opened], [], [])[0]:
        ready.recv(99)
        print(opened[ready], flush=True)
"""
COUNT6 = COUNT4.replace("AF_INET,", "AF_INET6,")
# Sends a packet of each of these protocols to an address, with a body that none of them has.
SEND_RAW = """
import socket, sys
target, *numbers = sys.argv[1:]
family = socket.AF_INET6 if ":" in target else socket.AF_INET
for number in numbers:
    with socket.socket(family, socket.SOCK_RAW, int(number)) as sender:
        sender.sendto(bytes(24), (target, 0))
"""
# Connects so many times to a port; prints how often that was refused, and how many SYNs were sent
# again because nothing came back (TCPSynRetrans, of this host since it was made).
KNOCK = """
import socket, sys
refused = 0
for _ in range(int(sys.argv[3])):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).close()
    except ConnectionRefusedError:
        refused += 1
with open("/proc/net/netstat") as file:
    names, values = [line.split() for line in file if line.startswith("TcpExt:")]
print(refused, dict(zip(names, values))["TCPSynRetrans"])
"""
# An operator's own rules for nft, which refuse the admin port.
OPERATORS = (
    "add table inet envelope",
    "add chain inet envelope input { type filter hook input priority filter; policy accept; }",
    "add rule inet envelope input iifname lo accept",
    "add rule inet envelope input iifname eth0 tcp dport { 8881, 9990 } reject with tcp reset",
)


def program(host: Host, source: str, *words: str) -> str:
    """Run a Python program on `host` to its end; what it prints."""
    return host.run([*BARE_PYTHON, "-c", source, *words], check=True).stdout.strip()


def hear(rig: Rig, port: int) -> Lines:
    """Print what the host hears at a UDP port."""
    process = rig.lab.host.popen([*BARE_PYTHON, "-c", HEAR, str(port)], stdout=subprocess.PIPE,
                                 text=True)
    lines = Lines(process)
    rig.keep(lines)
    assert lines.next() == "up"
    return lines


@every_kind
def test_a_dhcpv6_server_on_the_link_is_heard(rig) -> None:
    """Its answers come from a link-local address and port 547; nothing else is let in by that."""
    rig.lab.host.ip("address add fe80::1/64 dev eth0 nodad")
    rig.lab.client().ip("address add fe80::7/64 dev eth0 nodad")
    client = hear(rig, 546)
    rig.start()
    for source, sport in (("fe80::7", "548"), (rig.lab.client().address6, "547")):
        target = "fe80::1" if source.startswith("fe80") else rig.lab.host.address6
        program(rig.lab.client(), SEND, source, sport, target, "546", "refused")
    program(rig.lab.client(), SEND, "fe80::7", "547", "fe80::1", "546", "answer")
    assert client.next() == "answer"


@every_kind
def test_icmpv6_that_a_link_needs_is_heard(rig) -> None:
    """Packet too big, multicast listener queries, router and neighbour discovery."""
    rig.lab.host.ip("address add fe80::1/64 dev eth0 nodad")
    rig.lab.client().ip("address add fe80::7/64 dev eth0 nodad")
    rig.start()
    for host in (rig.lab.host, rig.lab.client()):
        host.ip("neigh flush dev eth0")
    kinds = {"2", "130", "134", "135", "136"}
    program(rig.lab.client(), SEND_ICMP, *kinds)
    counted = rig.lab.host.run(["cat", "/proc/net/snmp6"], check=True).stdout
    assert kinds <= set(re.findall(r"Icmp6InType(\d+)", counted))


@every_kind
def test_sixty_connections_are_refused_at_once(rig) -> None:
    """The kernel's limit of ICMP errors for each peer does not make any of them wait."""
    rig.start()
    for address in (rig.lab.host.address4, rig.lab.host.address6):
        assert program(rig.lab.client(), KNOCK, address, "9000", "60") == "60 0"


@every_kind
def test_protocols_without_ports_are_let_in_by_name_or_number(rig) -> None:
    """And no other; the rules stand as written, whatever the tool prints for a number."""
    wanted, other = {"2", "50", "112", "253"}, {"47", "132"}
    service = rig.start("--allow=igmp", "--allow=esp", "--allow=112", "--allow=proto/253",
                        "--allow=ah")
    for source, target in ((COUNT4, rig.lab.host.address4), (COUNT6, rig.lab.host.address6)):
        process = rig.lab.host.popen([*BARE_PYTHON, "-c", source, *wanted, *other],
                                     stdout=subprocess.PIPE, text=True)
        lines = Lines(process)
        rig.keep(lines)
        assert lines.next() == "up"
        program(rig.lab.client(), SEND_RAW, target, *other, *wanted)
        assert {lines.next() for _ in wanted} == wanted
    assert service.stop() == 0
    assert not any("changed the rules" in line for line in service.seen)


@every_kind
@pytest.mark.parametrize("baseline", ["service", "operator"])
def test_a_grant_opens_no_admin_port(rig, baseline) -> None:
    """An operator's own rules decide about it; ours refuse it, unless `--allow` names it.

    The same for the port of the status page.
    """
    if baseline == "operator":
        refuse_admin(rig)
    service = rig.start("--admin=:9990", "--status=:8881", f"--baseline={baseline}")
    rig.serve(9000)
    for to in (rig.lab.host.address4, rig.lab.host.address6):
        client = rig.client(rig.token(), to=to)
        assert client.event()["status"] == 101
        for port in ("9990", "8881"):
            assert program(rig.lab.client(), KNOCK, to, port, "1").startswith("1 ")
        assert rig.reaches(9000, to)
        client.tell("close")
        assert client.event()["code"] == 1000
    assert service.stop() == 0
    if baseline == "service":
        rig.start("--admin=:9990", "--allow=tcp/9990")
        assert program(rig.lab.client(), KNOCK, to, "9990", "1").startswith("0 ")


def refuse_admin(rig: Rig) -> None:
    """Rules of an operator that refuse the admin port, and let in everything else."""
    if rig.kind == "nftables":
        rig.lab.host.run(["nft", "; ".join(OPERATORS)], check=True)
        return
    for tool in (f"iptables-{rig.kind}", f"ip6tables-{rig.kind}"):
        rig.lab.host.run([tool, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"], check=True)
        for port in ("9990", "8881"):
            rig.lab.host.run([tool, "-A", "INPUT", "-i", "eth0", "-p", "tcp", "--dport", port,
                              "-j", "REJECT", "--reject-with", "tcp-reset"], check=True)
