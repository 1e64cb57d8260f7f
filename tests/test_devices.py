"""Network devices, from the kernel's messages and from the kernel itself."""

from __future__ import annotations

import struct
import subprocess

import pytest

from envelope.devices import Device, find, heard, link_events, read_device
from envelope.netlink import attribute, nested
from tests.support.environment import need_own_network


def message(index: int, *attributes: bytes, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 1, index, 0, 0) + b"".join(attributes)


NAME = attribute(3, b"eth0\0")


@pytest.mark.parametrize(("body", "device"), [
    (message(2, NAME), Device(2, "eth0")),
    (message(2, NAME, attribute(10, struct.pack("=I", 7))), Device(2, "eth0", 7)),
    (message(2, NAME, nested(18, attribute(1, b"bridge\0"))), Device(2, "eth0", 0, "bridge")),
    (message(2, attribute(3, b"\xff\0")), Device(2, "\udcff")),
    # Of a bridge's port, and of a radio's events: these do not say all.
    (message(2, NAME, family=7), None), (message(2), None), (b"", None), (message(2)[:9], None),
])
def test_messages_are_read(body: bytes, device: Device | None) -> None:
    assert read_device(body) == device
    assert heard(16, body) == device
    assert heard(17, body) is None


@pytest.mark.parametrize(("device", "text"), [
    (Device(2, "eth0"), "eth0"), (Device(5, "br0", 0, "bridge"), "the bridge br0"),
    (Device(2, "a\x1b[1m"), "a?[1m"),
])
def test_a_device_as_a_text(device: Device, text: str) -> None:
    assert str(device) == text


def test_what_the_kernel_knows() -> None:
    loopback = find("lo")
    assert loopback == find(1)
    assert loopback is not None
    assert (loopback.index, loopback.name, loopback.master) == (1, "lo", 0)
    assert find("no-such-device") is None
    assert find("no-such-device-and-a-long-name") is None
    assert find(1 << 30) is None


@pytest.mark.process
def test_names_masters_and_events() -> None:
    """Alternative names as long as the kernel allows; what changes is told."""
    need_own_network()
    long = "n" * 127
    events = link_events()
    try:
        subprocess.run(["ip", "-batch", "-"], check=True, text=True, input="\n".join((
            "link add bridge7 type bridge", "link add end7 type veth peer name end8",
            f"link property add dev end7 altname {long} altname short7",
            "link set end7 master bridge7", "link set end7 name end9",
        )) + "\n")
        master, device = find("bridge7"), find("end9")
        assert master is not None
        assert device is not None
        assert device == Device(device.index, "end9", master.index, "veth")
        assert find(long) == find("short7") == find(device.index) == device
        assert find("end7") is None
        told = []
        while batch := events.read():
            told += [heard(*each) for each in batch]
        assert Device(device.index, "end7", master.index, "veth") in told
        assert device in told
    finally:
        events.close()
        subprocess.run(["ip", "-batch", "-force", "-"], check=False, text=True,
                       input="link del bridge7\nlink del end9\n")
