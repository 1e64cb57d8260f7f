"""Which addresses are this host's own, and when they are read again."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from twisted.internet.task import Clock

from envelope.addresses import Address
from envelope.preflight.login import device_addresses
from envelope.sessions.clientaddress import MAX_AGE, HostAddresses, can_be_let_in

OLD, NEW = ip_address("203.0.113.1"), ip_address("2001:db8::1")


class Devices:
    """The addresses of a host, which change; counts how often they are read."""

    def __init__(self) -> None:
        self.held: dict[str, set[Address]] = {"lo": {ip_address("::1")}, "eth0": {OLD}}
        self.read = 0
        self.fails = False

    def __call__(self) -> dict[str, set[Address]]:
        self.read += 1
        if self.fails:
            raise OSError(24, "Too many open files")
        return self.held


def test_addresses_are_read_when_asked_for_and_no_more_often_than_every_few_seconds() -> None:
    clock, devices = Clock(), Devices()
    own = HostAddresses(clock, devices)
    assert devices.read == 0
    for _ in range(100):
        assert OLD in own
        assert NEW not in own
    assert devices.read == 1
    devices.held = {"eth0": {NEW}}
    clock.advance(MAX_AGE - 0.1)
    assert NEW not in own
    clock.advance(0.2)
    assert NEW in own
    assert OLD not in own
    assert devices.read == 2


def test_addresses_that_cannot_be_read_are_those_read_last() -> None:
    clock, devices = Clock(), Devices()
    own = HostAddresses(clock, devices)
    assert OLD in own
    devices.fails = True
    clock.advance(MAX_AGE)
    assert OLD in own
    assert NEW not in own
    assert devices.read == 2


def test_the_addresses_of_this_machine() -> None:
    own = HostAddresses(Clock(), device_addresses)
    assert ip_address("127.0.0.1") in own
    assert ip_address("203.0.113.7") not in own


@pytest.mark.parametrize("text", ["203.0.113.7", "2001:db8::7", "10.0.0.1", "fe80::7"])
def test_other_addresses_are_clients(text: str) -> None:
    assert can_be_let_in(ip_address(text), {OLD})


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", str(OLD)])
def test_where_the_loopback_device_is_guarded_own_addresses_are_clients(text: str) -> None:
    """Their packets arrive over it."""
    assert can_be_let_in(ip_address(text), None)
    assert not can_be_let_in(ip_address("0.0.0.0"), None)
    assert not can_be_let_in(None, None)
