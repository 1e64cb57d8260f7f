"""Each judgement of `envelope check` by itself, over what was gathered."""

from __future__ import annotations

import errno
import json
import socket
import struct
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.config.listen import parse_listen
from envelope.config.subjects import Subject
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.netlink import attribute
from envelope.preflight.blame import Chain, blame, chains, read_chains
from envelope.preflight.examination import find_other
from envelope.preflight.features import try_features
from envelope.preflight.findings import Finding, Level
from envelope.preflight.hostrules import HostRules, Part
from envelope.preflight.machine import (
    find_clock,
    find_ipv6,
    ipv6_is_on,
    judge_device,
    read_default_route,
)
from envelope.preflight.packets import CLIENT_MAC, HOST_MAC, Target, accepted, first_packet
from envelope.preflight.ports import find_control, listeners
from envelope.preflight.strangers import judge_diversions, judge_mixture
from envelope.preflight.targets import grant_targets, named_ports, service_targets
from envelope.runtime.inbound import serving_ports

CONFIG = Config(device="eth0")


# -- the machine -----------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "level"), [
    (0x2001, Level.OK), (0x0040, Level.WARN), (0x2041, Level.WARN),
])
def test_a_clock_that_nothing_keeps_right_is_a_warning(status: int, level: Level) -> None:
    found, = find_clock(CONFIG, {}, lambda: status)
    assert found.level == level


def test_a_clock_that_the_kernel_says_nothing_of_is_a_warning() -> None:
    def forbidden() -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    found, = find_clock(CONFIG, {}, forbidden)
    assert (found.level, "not permitted" in found.what) == (Level.WARN, True)
    assert find_clock(replace(CONFIG, token_required=False), {}, forbidden) == []


@pytest.mark.parametrize(("carriers", "level", "said"), [
    (["eth0"], Level.OK, "carries the default route"),
    (["net1", "eth0"], Level.OK, "carries"),
    (["net1"], Level.WARN, "leads over net1, and not over eth0"),
    ([], Level.WARN, "there is no default route"),
])
def test_the_guarded_device_carries_the_default_route(
    carriers: list[str], level: Level, said: str
) -> None:
    found = judge_device("eth0", carriers)
    assert (found.level, said in found.what) == (level, True)
    assert bool(found.do) == (level != Level.OK)


@pytest.mark.parametrize(("length", "kind", "flags", "index"), [
    (0, 1, 0, 7), (24, 1, 0, 0), (0, 2, 0, 0), (0, 7, 0, 0), (0, 1, 0x200, 0),
])
def test_which_routes_are_default_routes(length: int, kind: int, flags: int, index: int) -> None:
    body = struct.pack("=8BI", socket.AF_INET, length, 0, 0, 254, 0, 0, kind, flags)
    found = {index} if index else set()
    assert read_default_route(body + attribute(4, struct.pack("=I", 7))) == found
    assert read_default_route(body) == set()


def test_a_default_route_over_several_devices_leads_to_each() -> None:
    """As with `ip route add default nexthop dev a nexthop via ADDRESS dev b`."""
    gateway = attribute(5, bytes(4))
    hops = (struct.pack("=HBBi", 8, 0, 0, 7)
            + struct.pack("=HBBi", 8 + len(gateway), 0, 0, 9) + gateway)
    body = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0)
    assert read_default_route(body + attribute(9, hops)) == {7, 9}
    assert read_default_route(body + attribute(9, hops[:5])) == set()
    assert read_default_route(body + attribute(9, bytes(16))) == set()


def test_ipv6_is_off_when_the_kernel_or_the_device_says_so(tmp_path: Path) -> None:
    assert not ipv6_is_on("eth0", tmp_path)
    found, = find_ipv6(CONFIG, {}, tmp_path)
    assert found.level == Level.WARN
    (tmp_path / "net").mkdir()
    (tmp_path / "net/if_inet6").touch()
    assert ipv6_is_on("eth0", tmp_path)
    folder = tmp_path / "sys/net/ipv6/conf/eth0"
    folder.mkdir(parents=True)
    (folder / "disable_ipv6").write_text("1\n")
    assert not ipv6_is_on("eth0", tmp_path)
    assert find_ipv6(replace(CONFIG, firewall="none"), {}, tmp_path) == []


def test_another_envelope_is_seen_by_its_queue(tmp_path: Path) -> None:
    queues = tmp_path / "netfilter/nfnetlink_queue"
    queues.parent.mkdir()
    for text, level in (
        ("", Level.OK), ("    0  4711     0 2 65531     0     0        0  1\n", Level.OK),
        ("59934  4711     0 0     0     0     0        0  1\n", Level.FAIL),
    ):
        queues.write_text(text)
        found = find_other(CONFIG, tmp_path)
        assert found is not None
        assert found.level == level
    assert find_other(replace(CONFIG, firewall="none"), tmp_path) is None


def test_a_control_socket_can_be_made_or_is_in_the_way(tmp_path: Path) -> None:
    def find(path: Path) -> Finding:
        found, = find_control(replace(CONFIG, control=path), {})
        return found

    def level(path: Path) -> Level:
        return find(path).level

    assert level(tmp_path / "new" / "control") == Level.OK
    assert list(tmp_path.iterdir()) == []
    assert level(tmp_path / ("x" * 200)) == Level.FAIL
    (tmp_path / "file").touch()
    assert level(tmp_path / "file") == level(tmp_path / "file" / "control") == Level.FAIL
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(1)
        assert level(path) == Level.FAIL
        assert find(path).do == "stop that one, or name another path"
        # The default is no reason to refuse a start.
        found, = find_control(CONFIG, {"RUNTIME_DIRECTORY": str(tmp_path)})
        assert found.level == Level.WARN
    assert level(path) == Level.OK
    assert find_control(replace(CONFIG, control="none"), {}) == []


# -- rules of others -------------------------------------------------------------------------

DOCKER = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -j ELSEWHERE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER -i docker0 -j REDIRECT --to-ports 1
-A ELSEWHERE -j REDIRECT --to-ports 2
COMMIT
*filter
:INPUT ACCEPT [0:0]
COMMIT
"""
NFT_NAT = """table inet lb {
\tchain pre {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tct status dnat tcp dport 7 accept
\t\tiifname "eth0" jump inside
\t\tiifname "lo" tcp dport 1 redirect to :2
\t\tiifname != "eth0" tcp dport 3 redirect to :4
\t}

\tchain inside {
\t\ttcp dport 80 dnat ip to 10.0.0.1
\t}

\tchain out {
\t\ttype nat hook output priority -100; policy accept;
\t\ttcp dport 5 redirect to :6
\t}
}
"""


def rules(saved: dict[tuple[str, str], str] | None = None, **tables: str) -> HostRules:
    found = HostRules()
    for (tool, kind), text in (saved or {}).items():
        found.saved[tool, kind] = Part(  # type: ignore[index]
            f"{tool}-{kind}", text, (f"/sbin/{tool}-{kind}-restore",))
    for name, text in tables.items():
        found.tables[name] = Part(f"table {name}", text, ("nft", "-f", "-"))
    return found


def test_rules_that_lead_strangers_past_input_are_named() -> None:
    found = judge_diversions(rules({("iptables", "nft"): DOCKER}, lb=NFT_NAT), "eth0", {})
    assert found.level == Level.WARN
    for said in ("--dport 8080 -j DNAT", "chain DOCKER of iptables-nft's table nat",
                 "tcp dport 80 dnat ip to 10.0.0.1", "chain inside of table lb"):
        assert said in found.what
    # Loopback's, the host's own traffic, and other devices.
    assert "REDIRECT" not in found.what
    assert "redirect" not in found.what
    assert "status" not in found.what


def test_many_such_rules_are_counted() -> None:
    many = "".join(f"-A PREROUTING -p tcp --dport {n} -j DNAT --to 10.0.0.1\n" for n in range(9))
    found = judge_diversions(rules({("iptables", "nft"): f"*nat\n{many}COMMIT\n"}), "eth0", {})
    assert found.what.endswith(", and 4 more")


@pytest.mark.parametrize(("rule", "named"), [
    # As Docker writes them for ports that are published on one address.
    ("-d 127.0.0.1/32 ! -i docker0 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.2:80", False),
    ("-d 10.1.1.1/32 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", False),
    ("-d 203.0.113.1/32 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", True),
    ("-d 198.51.100.7/32 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", True),
    ("-d 10.1.1.0/24 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", True),
    ("! -d 127.0.0.1/32 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", True),
    ('-m comment --comment "no \\"dnat, -j DNAT or redirect" -j RETURN', False),
    ("-m comment --comment redirect -j RETURN", False),
    ('-m comment --comment "not -i lo" -j REDIRECT --to-ports 8080', True),
    ('-m comment --comment "not -d 127.0.0.1 " -j REDIRECT --to-ports 8080', True),
])
def test_which_rules_are_for_strangers(rule: str, named: bool) -> None:
    """Neither those for other addresses than the guarded device's, nor words in a comment."""
    addresses = {"eth0": {ip_address("203.0.113.1")}, "net1": {ip_address("10.1.1.1")}}
    saved = rules({("iptables", "nft"): f"*nat\n-A PREROUTING {rule}\nCOMMIT\n"})
    found = judge_diversions(saved, "eth0", addresses)
    assert (found.level == Level.WARN) is named


@pytest.mark.parametrize(("rule", "named"), [
    ("ip daddr 127.0.0.1 tcp dport 80 dnat to 172.17.0.2", False),
    ("ip6 daddr ::1 tcp dport 80 dnat to [fd00::2]:80", False),
    ("ip6 daddr fd00::1 tcp dport 80 dnat to [fd00::2]:80", False),
    ("ip daddr != 127.0.0.1 tcp dport 80 dnat to 172.17.0.2", True),
    ("ip daddr { 127.0.0.1, 203.0.113.1 } tcp dport 80 dnat to 172.17.0.2", True),
    ('tcp dport 80 counter packets 0 bytes 0 comment "redirect dnat"', False),
    ('iifname "eth0" tcp dport 80 redirect to :81 comment "web"', True),
    ('iifname != "eth0" tcp dport 80 redirect to :81 comment "web"', False),
    ("iifname @public tcp dport 80 redirect to :81", True),
    ('iifname vmap { "eth0" : jump more }', True),
    ('iifname { "eth0", "net1" } tcp dport 80 redirect to :81', True),
    ('iif "net1" tcp dport 80 redirect to :81', False),
    ('iifname "eth*" tcp dport 80 redirect to :81', True),
])
def test_which_rules_of_nftables_are_for_strangers(rule: str, named: bool) -> None:
    text = ("table inet nat {\n\tchain pre {\n\t\ttype nat hook prerouting priority -100;\n"
            f"\t\t{rule}\n\t}}\n\n\tchain more {{\n\t\ttcp dport 80 redirect to :81\n\t}}\n}}\n")
    found = judge_diversions(rules(nat=text), "eth0", {"net1": {ip_address("fd00::1")}})
    assert (found.level == Level.WARN) is named


def test_without_such_rules_all_is_well() -> None:
    assert judge_diversions(rules(), "eth0", {}).level == Level.OK


FULL = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n"
DROPS = "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
EMPTY = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"


@pytest.mark.parametrize(("legacy", "nft", "tables", "level"), [
    (FULL, FULL, {}, Level.WARN), (DROPS, EMPTY, {"lb": NFT_NAT}, Level.WARN),
    (EMPTY, FULL, {}, Level.OK), (FULL, EMPTY, {}, Level.OK),
])
def test_rules_of_both_kinds_are_a_warning(
    legacy: str, nft: str, tables: dict[str, str], level: Level
) -> None:
    found = rules({("iptables", "legacy"): legacy, ("iptables", "nft"): nft}, **tables)
    assert judge_mixture(found).level == level


def test_what_cannot_be_loaded_is_named() -> None:
    def run(argv: Any, text: str) -> str:
        if "lb" in text:
            raise ToolFailed("nft: no")
        return ""

    found = rules({("iptables", "nft"): FULL}, lb=NFT_NAT)
    found.sets = Part("sets of ipset", "create a\n", ("ipset", "restore"))
    assert [part.name for part in found.parts()] == ["sets of ipset", "iptables-nft", "table lb"]
    assert found.load(run) == ["table lb (nft: no)"]


# -- packets ---------------------------------------------------------------------------------

CLIENT, HOST = ip_address("23.44.181.9"), ip_address("192.0.2.1")


def test_an_answer_tells_which_connection_was_accepted() -> None:
    """What the client sent, turned round and with SYN and ACK, is such an answer."""
    for version, client, host in ((4, CLIENT, HOST),
                                  (6, ip_address("2a02::9"), ip_address("2001:db8::1"))):
        target = Target(version, "tcp", 5201)  # type: ignore[arg-type]
        sent = first_packet(target, client, host, 20_001)
        assert sent[:12] == HOST_MAC + CLIENT_MAC
        assert accepted(sent) is None
        size = len(client.packed)
        start = 14 + (12 if version == 4 else 8)
        segment = bytearray(sent[start + 2 * size:])
        segment[0:4] = segment[2:4] + segment[0:2]
        segment[13] = 0x12
        head = sent[:start] + host.packed + client.packed
        assert accepted(bytes(head + segment)) == (target, client, 20_001)
        segment[13] = 0x14  # a reset
        assert accepted(bytes(head + segment)) is None


def test_other_frames_are_no_answers() -> None:
    datagram = first_packet(Target(4, "udp", 53), CLIENT, HOST, 9)
    for frame in (b"", bytes(14), bytes(60), datagram):
        assert accepted(frame) is None


def test_checksums_are_right() -> None:
    """The sum over the pseudo header and the segment, its checksum included, is all ones."""
    for protocol, number in (("tcp", 6), ("udp", 17)):
        frame = first_packet(Target(4, protocol, 80), CLIENT, HOST, 9)  # type: ignore[arg-type]
        body = frame[34:]
        data = CLIENT.packed + HOST.packed + struct.pack("!IxxxB", len(body), number) + body
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


# -- ports -----------------------------------------------------------------------------------


def test_packets_go_to_what_is_served_and_to_the_ends_of_what_a_grant_opens() -> None:
    config = replace(
        CONFIG, grant_port=(PortRange("tcp", 5000, 5010), PortRange("udp", 53, 53)),
        listen=(parse_listen(":5000"), parse_listen("127.0.0.1:5001")))
    found = grant_targets(config, [("tcp", 5005), ("tcp", 22), ("udp", 5005)], (4,))
    # udp/53 is open to everyone, tcp/5000 is the service's own.
    assert [str(each) for each in found] == ["tcp/5005 over IPv4", "tcp/5010 over IPv4"]
    assert service_targets(config, (4, 6)) == [Target(4, "tcp", 5000), Target(6, "tcp", 5000)]


def test_a_grant_that_opens_everything_is_tried_at_few_ports() -> None:
    found = grant_targets(CONFIG, [("tcp", port) for port in range(1, 100)], (4, 6))
    assert {(each.version, each.protocol) for each in found} == {
        (4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")}
    assert len(found) == 2 * (8 + 1 + 1)


NAMING = """table inet others {
\tset p {
\t\ttype inet_service
\t\tflags interval
\t\telements = { 7000, 7100-7105,
\t\t\t     7200 }
\t}
\tset h {
\t\ttype ipv4_addr . inet_service
\t\telements = { 10.0.0.1 . 81 timeout 1m expires 50s }
\t}
\tchain input {
\t\ttype filter hook input priority 10; policy accept;
\t\ttcp dport vmap { 33 : drop, 44 : jump more }
\t\tudp dport 99 limit rate 10/second counter packets 5 bytes 6 accept
\t\tip6 saddr 2001:db8::1 th dport != 70-71 reject
\t}
}
"""


@pytest.mark.parametrize(("text", "ports"), [
    (NAMING, {"tcp": [33, 44, 70, 71, 7000, 7100, 7105, 7200, 81, 34, 45, 72, 7001, 7106, 7201, 82],
              "udp": [70, 71, 7000, 7100, 7105, 7200, 81, 99, 72, 7001, 7106, 7201, 82, 100]}),
    ("-A INPUT -p tcp -m tcp --dport 5000:5010 -j ACCEPT\n"
     "-A INPUT -p tcp -m multiport --dports 1,3:65535 -j DROP\n",
     {"tcp": [1, 3, 65535, 5000, 5010, 2, 5011], "udp": []}),
    ("-A DOCKER -d 172.17.0.2 -p tcp --sport 6 --dport 8080 -j DNAT --to-destination 10.0.0.2:80",
     {"tcp": [8080, 8081], "udp": []}),
    (":INPUT DROP [7:80]\n-A INPUT -s 10.0.0.0/8 -j DROP\n", {"tcp": [], "udp": []}),
])
def test_ports_that_rules_name(text: str, ports: dict[str, list[int]]) -> None:
    found = named_ports([text])
    assert {each: [port for kind, port in found if kind == each] for each in ports} == ports


def test_ports_that_rules_name_are_tried_if_a_grant_opens_them() -> None:
    named = named_ports(["".join(f"tcp dport {port} drop\n" for port in range(60, 0, -2))])
    config = replace(CONFIG, grant_port=(PortRange("tcp", 40, 90),))
    assert [each.port for each in grant_targets(config, [("tcp", 58)], (4,), named)] == [
        58, 40, 90, 60, 56, 54, 52, 50, 48, 46, 44, 42, 61, 59, 57, 55, 53, 51, 49]
    everything = grant_targets(CONFIG, [], (4,), named)
    assert [str(each) for each in everything] == [
        "tcp/50505 over IPv4", *(f"tcp/{port} over IPv4" for port in range(60, 30, -2)),
        "udp/50505 over IPv4"]


def test_the_ports_of_a_subject_are_tried_although_another_one_has_all() -> None:
    config = replace(CONFIG, subject=(
        Subject("ndt"), Subject("wehe", (PortRange("tcp", 7000, 7005),))))
    found = grant_targets(config, [("tcp", port) for port in (80, 7001)], (4,))
    assert [str(each) for each in found] == [
        "tcp/7001 over IPv4", "tcp/7000 over IPv4", "tcp/7005 over IPv4", "tcp/80 over IPv4",
        "tcp/50505 over IPv4", "udp/50505 over IPv4"]


def test_ports_that_are_open_while_there_is_a_grant_are_tried() -> None:
    config = replace(CONFIG, grant_port=(PortRange("udp", 7000, 7000),), proxy_port=(80, 443))
    assert [str(each) for each in grant_targets(config, [("tcp", 443)], (4,))] == [
        "tcp/443 over IPv4", "tcp/80 over IPv4", "udp/7000 over IPv4"]


def test_ports_that_only_loopback_reaches_are_not_served(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st\n"
    (tmp_path / "tcp").write_text(
        head + "   0: 00000000:0050 00000000:0000 0A\n   1: 0100007F:0051 00000000:0000 0A\n"
        "   2: 00000000:0052 00000000:0000 01\n")
    (tmp_path / "udp").write_text(head + "   0: 00000000:0035 00000000:0000 07\n")
    assert serving_ports(tmp_path) == [("tcp", 80), ("udp", 53)]


# -- which chain drops -----------------------------------------------------------------------

LISTED = json.dumps({"nftables": [
    {"metainfo": {}},
    {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter",
               "hook": "input", "prio": 0, "policy": "drop"}},
    {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}},
    {"chain": {"family": "inet", "table": "envelope", "name": "input", "type": "filter",
               "hook": "input", "prio": 0, "policy": "drop"}},
    {"chain": {"family": "inet", "table": "x", "name": "pre", "type": "nat",
               "hook": "prerouting", "prio": -100, "policy": "accept"}},
    {"chain": {"family": "ip", "table": "y", "name": "forward", "type": "filter",
               "hook": "forward", "prio": 0, "policy": "drop"}},
]})


def test_chains_are_in_the_order_of_the_hooks_and_ours_is_left_out() -> None:
    found = read_chains(LISTED, "nft")
    assert [(each.name, each.diverts) for each in found] == [
        ("chain pre of table inet x", True), ("chain INPUT of table ip filter", False)]
    assert found[1].empty == (
        ("nft", "flush chain ip filter INPUT; chain ip filter INPUT { policy accept; }"),)


def test_chains_of_legacy_come_first() -> None:
    found = list(chains(rules({("iptables", "legacy"): DROPS, ("ip6tables", "nft"): FULL}),
                        "nft", lambda _: LISTED))
    assert [each.name for each in found][:3] == [
        "chain INPUT of iptables-legacy's table filter",
        "chain OUTPUT of iptables-legacy's table filter", "chain pre of table inet x"]
    assert found[0].empty[0] == ("/sbin/iptables-legacy", "-t", "filter", "-F", "INPUT")


def test_without_an_nft_that_prints_json_iptables_nft_empties_its_own() -> None:
    def refuse(_: Any) -> str:
        raise ToolFailed("nft: JSON support not compiled-in")

    for nft in (None, "nft"):
        names = [each.name for each in chains(rules({("ip6tables", "nft"): FULL}), nft, refuse)]
        assert names[0] == "chain INPUT of ip6tables-nft's table filter"


def test_the_chain_after_whose_emptying_a_packet_passes_is_guilty() -> None:
    emptied: list[str] = []

    def run(argv: Any) -> str:
        if argv == ("b",):
            raise ToolFailed("no")
        emptied.extend(argv)
        return ""

    tcp, udp, sctp = Target(4, "tcp", 1), Target(4, "udp", 2), Target(6, "tcp", 3)

    def reached(left: set[Target]) -> set[Target]:
        opened = {tcp} if "a" in emptied else set()
        return left & (opened | ({udp} if "c" in emptied else set()))

    suspects = [Chain(name, False, ((name,),)) for name in "abcd"]
    guilty = blame({tcp, udp, sctp}, iter(suspects), reached, run)
    assert {target: chain.name for target, chain in guilty.items()} == {tcp: "a", udp: "c"}


# -- the kernel's features -------------------------------------------------------------------


@pytest.mark.parametrize("error", [ToolFailed, ToolTimeout])
def test_a_feature_that_is_missing_is_named_and_a_tool_that_hangs_is_tried_once(
    error: type[ToolFailed],
) -> None:
    def run(argv: Any, text: str) -> str:
        if "datestop" in text or "timeout" in text:
            raise error("iptables-restore: no such match")
        return ""

    for backend, name in (("iptables", "time match"), ("nftables", "sets with timeouts")):
        found = try_features(replace(CONFIG, firewall=backend), "", run)  # type: ignore[arg-type]
        failed = [each for each in found if each.level == Level.FAIL]
        assert name in failed[0].what
        assert "modprobe" in failed[0].do
        assert found[0].level == Level.OK
        assert (found[-1].level == Level.FAIL) == (error is ToolTimeout)


def test_a_tool_that_is_missing_is_another_check() -> None:
    config = replace(CONFIG, firewall="nftables", nft=Path("/nowhere/nft"))
    assert try_features(config, "", lambda *_: "") == []


def test_each_listener_is_tried_once() -> None:
    """Those of clients, of the admin endpoints and of the status page."""
    options = [option for option, _ in listeners(Config())]
    assert options == ["--listen", "--admin", "--status"]
