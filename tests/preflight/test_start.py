"""What a start needs of this machine: conditions that are not met are named in one line."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope import preflight
from envelope.addresses import Address, PortRange
from envelope.config import Config
from envelope.config.listen import parse_listen
from envelope.firewall import FirewallError
from envelope.preflight.findings import Finding, Level, StartError
from envelope.preflight.login import (
    device_addresses,
    judge_login,
    login_at_risk,
    ports_at_risk,
)
from envelope.preflight.privileges import Privileges, explained, privileges_for
from envelope.runtime.capabilities import Capabilities, Capability

ADDRESSES: dict[str, set[Address]] = {
    "lo": {ip_address("127.0.0.1"), ip_address("::1")},
    "net1": {ip_address("192.0.2.1"), ip_address("2001:db8::1"), ip_address("fe80::1")},
    "eth0": {ip_address("10.0.0.1"), ip_address("fe80::1")},
}
SSH = PortRange("tcp", 22, 22)
LOGIN = {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 22"}


@pytest.mark.parametrize(
    ("connection", "port"),
    [
        ("203.0.113.9 50000 192.0.2.1 22", SSH),
        ("203.0.113.9 50000 192.0.2.1 2222", PortRange("tcp", 2222, 2222)),
        ("::ffff:203.0.113.9 50000 ::ffff:192.0.2.1 22", SSH),
        ("2001:db8::9 50000 2001:db8::1 22", SSH),
        ("fe80::9%net1 50000 fe80::1%net1 22", SSH),
        ("203.0.113.9 50000 198.51.100.1 22", SSH),
        ("10.0.0.9 50000 10.0.0.1 22", None),
        ("127.0.0.1 50000 127.0.0.1 22", None),
        ("::1 50000 ::1 22", None),
        (None, None),
        ("", None),
        ("203.0.113.9 50000 192.0.2.1", None),
        ("203.0.113.9 50000 nowhere 22", None),
        ("203.0.113.9 50000 192.0.2.1 x", None),
        ("203.0.113.9 50000 192.0.2.1 0", None),
    ],
)
def test_logins_at_risk(connection: str | None, port: PortRange | None) -> None:
    """On the guarded device or on an unknown one; not on another device, not on loopback."""
    assert login_at_risk(connection, "net1", ADDRESSES, ()) == port


@pytest.mark.parametrize("text", ["tcp/22", "tcp/20-30"])
def test_a_login_to_an_open_port_is_not_at_risk(text: str) -> None:
    ports = (PortRange.parse(text),)
    assert login_at_risk(LOGIN["SSH_CONNECTION"], "net1", ADDRESSES, ports) is None


def test_the_same_port_of_another_protocol_does_not_help() -> None:
    udp = (PortRange("udp", 22, 22),)
    assert login_at_risk(LOGIN["SSH_CONNECTION"], "net1", ADDRESSES, udp) == SSH


@given(st.text())
def test_any_text_of_the_variable_is_read_or_ignored(text: str) -> None:
    login_at_risk(text, "net1", ADDRESSES, ())


def test_connections_at_risk_are_those_to_ports_that_shut_on_the_device() -> None:
    """Addresses that the device shares, or that no device has, count; loopback never does."""
    connections = [
        (ip_address(address), port) for address, port in (
            ("192.0.2.1", 443), ("2001:db8::1", 22), ("192.0.2.1", 22), ("10.0.0.1", 22),
            ("127.0.0.1", 5432), ("::1", 22), ("fe80::1", 179), ("198.51.100.1", 25),
            ("192.0.2.1", 8880),
        )
    ]
    open_ports = (PortRange("tcp", 8880, 8880), PortRange("udp", 22, 22))
    assert ports_at_risk(connections, "net1", ADDRESSES, open_ports) == {
        22: 2, 25: 1, 179: 1, 443: 1}


CONFIG = Config(device="net1")


def test_the_line_names_the_option_that_helps_and_the_default_that_it_replaces() -> None:
    found, = judge_login(CONFIG, LOGIN, ADDRESSES)
    assert found.level == Level.FAIL
    assert "--allow=tcp/22 (besides --allow=udp/53)" in found.do
    assert "net1" in found.what
    found, = judge_login(replace(CONFIG, allow=()), LOGIN, ADDRESSES)
    assert "besides" not in found.do


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, firewall="none"),
        replace(CONFIG, baseline="operator"),
        replace(CONFIG, device="eth0"),
        replace(CONFIG, allow=(SSH,)),
        replace(CONFIG, listen=(parse_listen("systemd:domain=INET:index=0"), parse_listen(":22"))),
    ],
)
def test_starts_that_leave_the_login_alone(config: Config) -> None:
    assert all(each.level == Level.OK for each in judge_login(config, LOGIN, ADDRESSES))


def test_this_machine_has_a_loopback_device() -> None:
    held = device_addresses()
    assert ip_address("127.0.0.1") in held["lo"]


def test_a_start_without_a_firewall_needs_no_tool() -> None:
    preflight.check(Config(firewall="none", token_required=False), LOGIN)


@pytest.mark.parametrize(("config", "said"), [
    (Config(device="lo", max_connections=10**9), "open files"),
    (Config(device="lo", firewall="nftables", nft=Path("/nowhere/nft")), "/nowhere/nft"),
    (Config(device="lo", iptables=Path("/nowhere/iptables")), "/nowhere/iptables"),
    (Config(device="no-such"), "tcp/22"),
])
def test_the_first_condition_that_is_not_met_is_one_line(config: Config, said: str) -> None:
    login = {} if config.device == "lo" else {"SSH_CONNECTION": "203.0.113.9 1 203.0.113.1 22"}
    with pytest.raises(StartError, match=r"^[^\n]+$") as caught:
        preflight.check(config, login)
    assert said in str(caught.value)


def test_a_finding_is_one_line_with_what_to_do_at_its_end() -> None:
    assert str(Finding(Level.WARN, "it is late", "hurry")) == "it is late; hurry"
    assert str(Finding(Level.OK, "all is well")) == "all is well"


NOTHING = Capabilities(0, 0, 0, 0, 0, 0, True)
ADMIN, RAW = 1 << Capability.NET_ADMIN, 1 << Capability.NET_RAW
AMBIENT_ADMIN = Capabilities(65533, ADMIN, ADMIN, ADMIN, ADMIN | RAW, ADMIN, True)
NFT = Privileges((Capability.NET_ADMIN,))
LEGACY = Privileges((Capability.NET_ADMIN, Capability.NET_RAW), root=True)


@pytest.mark.parametrize(("needed", "held", "said"), [
    (NFT, NOTHING, "CAP_NET_ADMIN is missing"),
    (NFT, replace(NOTHING, bounding=ADMIN, no_new_privileges=False), ""),
    (NFT, AMBIENT_ADMIN, ""),
    (LEGACY, NOTHING, "CAP_NET_ADMIN and CAP_NET_RAW are missing"),
    (LEGACY, AMBIENT_ADMIN, "CAP_NET_RAW and root are missing"),
    (LEGACY, replace(NOTHING, uid=5, ambient=ADMIN | RAW), "root is missing"),
    (Privileges(), NOTHING, ""),
])
def test_missing_privileges_are_named(needed: Privileges, held: Capabilities, said: str) -> None:
    assert needed.missing_from(held) == said


def test_a_tool_is_recognised_by_the_program_that_its_link_leads_to(tmp_path: Path) -> None:
    """`iptables` is a link to one or the other, often by way of /etc/alternatives."""
    for program, needed in (("xtables-legacy-multi", LEGACY), ("xtables-nft-multi", NFT)):
        (tmp_path / program).touch()
        (tmp_path / "alternative").unlink(missing_ok=True)
        (tmp_path / "alternative").symlink_to(program)
        link = tmp_path / f"iptables-{program}"
        link.symlink_to("alternative")
        assert privileges_for(link) == needed
    assert privileges_for(Path("/nowhere/nft")) == NFT


def test_without_missing_privileges_a_tools_error_stands_alone() -> None:
    assert explained(FirewallError("it failed"), Config(firewall="none"), {}) == "it failed"
