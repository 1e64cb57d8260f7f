"""A start that would lock its operator out is refused, and says what helps."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.addresses import Address, PortRange
from envelope.config import Config
from envelope.config.listen import parse_listen
from envelope.preflight import check_login, device_addresses, would_cut_off

ADDRESSES: dict[str, set[Address]] = {
    "lo": {ip_address("127.0.0.1"), ip_address("::1")},
    "net1": {ip_address("192.0.2.1"), ip_address("2001:db8::1"), ip_address("fe80::1")},
    "eth0": {ip_address("10.0.0.1"), ip_address("fe80::1")},
}
SSH = PortRange("tcp", 22, 22)
LOGIN = {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 22"}


@pytest.mark.parametrize(
    ("connection", "danger"),
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
def test_which_logins_are_in_danger(connection: str | None, danger: PortRange | None) -> None:
    """On the guarded device, or on none that is known; not elsewhere, not on loopback."""
    assert would_cut_off(connection, "net1", ADDRESSES, (), ()) == danger


@pytest.mark.parametrize("text", ["tcp/22", "tcp/20-30"])
def test_an_open_port_is_in_no_danger(text: str) -> None:
    ports = (PortRange.parse(text),)
    connection = LOGIN["SSH_CONNECTION"]
    assert would_cut_off(connection, "net1", ADDRESSES, ports, ()) is None
    assert would_cut_off(connection, "net1", ADDRESSES, (), ports) is None


def test_the_wrong_protocol_does_not_help() -> None:
    udp = (PortRange("udp", 22, 22),)
    assert would_cut_off(LOGIN["SSH_CONNECTION"], "net1", ADDRESSES, udp, ()) == SSH


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    would_cut_off(text, "net1", ADDRESSES, (), ())


CONFIG = Config(device="net1")


def test_the_line_names_what_helps_and_what_it_replaces() -> None:
    line = check_login(CONFIG, LOGIN, ADDRESSES)
    assert line is not None
    assert "--allow=tcp/22 (besides --allow=udp/53)" in line
    assert "net1" in line
    assert "\n" not in line
    bare = check_login(replace(CONFIG, allow=()), LOGIN, ADDRESSES)
    assert bare is not None
    assert "besides" not in bare


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
def test_starts_that_are_in_order(config: Config) -> None:
    assert check_login(config, LOGIN, ADDRESSES) is None


def test_without_a_login_this_machine_is_in_order() -> None:
    assert check_login(CONFIG, {}) is None


def test_this_machine_has_a_loopback_device() -> None:
    held = device_addresses()
    assert ip_address("127.0.0.1") in held["lo"]
