"""What has to be guarded when something happens to the guarded device, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

from envelope.devices import Device
from envelope.firewall import FirewallError
from envelope.firewall.devicewatch import DeviceWatch
from envelope.firewall.guard import Guard
from tests.test_devices import attribute, message

ETH0, BRIDGE, BOND = Device(2, "eth0"), Device(5, "br0", 0, "bridge"), Device(6, "bond0", 5, "bond")


class Devices:
    """The kernel's devices in memory; `which` is an index or a name, as for the kernel."""

    def __init__(self, *devices: Device) -> None:
        self.all = {device.index: device for device in devices}
        self.others: dict[str, int] = {}
        self.broken = False
        self.told: list[tuple[int, bytes]] = []
        self.lost = False
        self.closed = False

    def find(self, which: int | str) -> Device | None:
        if self.broken:
            raise OSError(105, "No buffer space available")
        if isinstance(which, int):
            return self.all.get(which)
        named = (each for each in self.all.values() if each.name == which)
        return next(named, None) or self.all.get(self.others.get(which, 0))

    def put(self, *devices: Device) -> None:
        """Add or change devices, and tell of it."""
        for device in devices:
            self.all[device.index] = device
            name = attribute(3, device.name.encode() + b"\0")
            self.told.append((16, message(device.index, name)))

    # -- an EventSource

    def fileno(self) -> int:
        return 99

    def read(self) -> list[tuple[int, bytes]]:
        if self.lost:
            self.told.clear()
            raise OSError(105, "No buffer space available")
        told, self.told = self.told, []
        return told

    def close(self) -> None:
        self.closed = True


def judged(devices: Devices, guard: Guard) -> tuple[tuple[str, ...], str]:
    judgement = guard.judge(devices.find)
    return judgement.names, judgement.problem


@pytest.mark.parametrize(("now", "names", "problem"), [
    ([ETH0], ("eth0",), ""),
    ([], ("eth0",), "gone"),
    ([Device(2, "wan0")], ("eth0", "wan0"), "called wan0 now"),
    ([Device(2, "wan0"), Device(3, "eth0")], ("eth0", "wan0"), "another one now (index 3"),
    ([Device(3, "eth0")], ("eth0",), "another one now (index 3, at the start 2)"),
    ([replace(ETH0, master=5), BRIDGE], ("br0", "eth0"), "part of the bridge br0 now"),
    ([replace(ETH0, master=6), BOND, BRIDGE], ("bond0", "br0", "eth0"), "of the bond bond0 now"),
    ([Device(2, "wan0", 5), BRIDGE], ("br0", "eth0", "wan0"), "called wan0 now"),
    ([Device(3, "eth0", 5), BRIDGE], ("br0", "eth0"), "another one now"),
    # A master that is gone by now is none.
    ([replace(ETH0, master=5)], ("eth0",), ""),
    # Nonsense, but no endless search.
    ([replace(ETH0, master=5), replace(BRIDGE, master=2)], ("br0", "eth0"), "part of"),
])
def test_what_has_become_of_a_device(
    now: list[Device], names: tuple[str, ...], problem: str
) -> None:
    found, said = judged(Devices(*now), Guard(ETH0))
    assert found == names
    assert problem in said
    assert bool(said) == bool(problem)


def test_a_device_that_has_had_the_name_is_followed() -> None:
    """Made anew and renamed, it may be where the packets come in; also if it was only told of."""
    guard, devices = Guard(ETH0), Devices(Device(7, "eth0"))
    assert judged(devices, guard)[0] == ("eth0",)
    devices.put(Device(7, "wan0"))
    guard.saw(Device(8, "eth0"))
    guard.saw(Device(9, "eth1"))
    devices.put(Device(8, "wan1"), Device(9, "eth1"))
    assert judged(devices, guard) == (("eth0", "wan0", "wan1"), "the device eth0 is gone")
    # One with an alternative name of that kind does not bear it.
    devices.others["eth0"] = 9
    assert judged(devices, guard) == (("eth0", "wan0", "wan1"), "the device eth0 is gone")
    # The kernel may give the number of a device that is gone to another one.
    del devices.all[7]
    judged(devices, guard)
    devices.put(Device(7, "docker0"), ETH0)
    assert judged(devices, guard)[0] == ("eth0", "wan1")


@given(st.lists(st.tuples(st.sampled_from([2, 3, 4]), st.sampled_from(["eth0", "a", "b"]),
                          st.sampled_from([0, 2, 3, 4]), st.booleans()), max_size=12))
def test_no_device_that_had_the_name_is_forgotten_while_it_exists(steps) -> None:
    """Whatever happens, where every change is told; nor what it is part of."""
    devices, guard = Devices(ETH0), Guard(ETH0)
    followed = {2}
    for index, name, master, there in steps:
        if there:
            devices.put(Device(index, name, master))
            guard.saw(devices.all[index])
            followed |= {index} if name == "eth0" else set()
        else:
            devices.all.pop(index, None)
        names = set(judged(devices, guard)[0])
        followed = {each for each in followed if each in devices.all or each == 2}
        assert "eth0" in names
        for each in followed & devices.all.keys():
            assert devices.all[each].name in names
            parent = devices.all.get(devices.all[each].master)
            assert parent is None or parent.name in names


class Reactor:
    """Takes one reader."""

    def __init__(self) -> None:
        self.readers: list[object] = []

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        self.readers = [each for each in self.readers if each is not reader]


class Watched:
    """A watch over devices in memory, and what it called and said."""

    def __init__(self, *devices: Device) -> None:
        self.devices, self.reactor = Devices(*devices), Reactor()
        self.changes: list[tuple[str, ...]] = []
        self.said: list[str | None] = []
        self.watch = DeviceWatch(
            self.reactor, "eth0", self.changes.append, self.devices.find, lambda: self.devices)

    def hears(self) -> None:
        assert self.reactor.readers == [self.watch]
        with capturedLogs() as events:
            self.watch.doRead()
        self.said += map(formatEvent, events)

    def looks(self) -> None:
        with capturedLogs() as events:
            self.watch.look()
        self.said += map(formatEvent, events)


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched(ETH0)
    watched.watch.start()
    watched.watch.follow()
    yield watched
    watched.watch.stop()
    assert watched.reactor.readers == []
    assert watched.devices.closed


@pytest.mark.parametrize(("devices", "why"), [
    ([], "there is no network device 'eth0'"),
    ([replace(ETH0, master=5), BRIDGE], "the device eth0 is part of the bridge br0 now"),
    # Options have the name that packets bear; if it is another one by now, the start is too late.
    ([Device(3, "wan0")], "there is no network device 'eth0'"),
])
def test_a_start_is_refused_in_one_line(devices: list[Device], why: str) -> None:
    watched = Watched(*devices)
    if len(devices) == 1:
        watched.devices.others["eth0"] = 3
    with pytest.raises(FirewallError) as caught:
        watched.watch.start()
    assert str(caught.value) == why
    assert watched.devices.closed
    watched.watch.follow()
    watched.watch.look()
    assert watched.reactor.readers == []


def test_a_start_is_refused_when_the_kernel_does_not_tell() -> None:
    watched = Watched(ETH0)
    watched.devices.broken = True
    with pytest.raises(FirewallError, match="cannot be read: No buffer space available"):
        watched.watch.start()
    assert watched.devices.closed


def test_each_change_is_said_once_and_told_once(watched: Watched) -> None:
    watched.looks()
    assert (watched.changes, watched.said, watched.watch.problem) == ([], [], "")
    watched.devices.put(Device(2, "wan0"))
    for _ in range(3):
        watched.hears()
        watched.looks()
    assert watched.changes == [("eth0", "wan0")]
    assert watched.said == ["the device eth0 is called wan0 now: guarding eth0 and wan0"]
    assert watched.watch.problem == "the device eth0 is called wan0 now"
    watched.devices.put(ETH0)
    for _ in range(2):
        watched.hears()
    assert watched.changes == [("eth0", "wan0"), ("eth0",)]
    assert watched.said[1:] == ["the device eth0 is as it was"]
    assert watched.watch.problem == ""


def test_a_look_finds_what_was_not_told(watched: Watched) -> None:
    watched.devices.all = {}
    watched.looks()
    assert watched.changes == []
    assert watched.said == ["the device eth0 is gone: guarding eth0"]
    watched.devices.lost = True
    watched.devices.all = {2: replace(ETH0, master=5), 5: BRIDGE}
    watched.hears()
    assert watched.changes == [("br0", "eth0")]


def test_a_device_that_came_and_changed_before_it_was_looked_for_is_guarded(
    watched: Watched,
) -> None:
    watched.devices.all = {}
    watched.devices.put(Device(7, "eth0"), Device(7, "wan0"), Device(8, "lab1"))
    watched.hears()
    assert watched.changes == [("eth0", "wan0")]


def test_a_kernel_that_does_not_tell_is_a_problem_and_changes_nothing(watched: Watched) -> None:
    watched.devices.put(Device(2, "wan0"))
    watched.hears()
    watched.devices.broken = True
    for _ in range(2):
        watched.looks()
    assert watched.watch.problem == "the network devices cannot be read: No buffer space available"
    assert len(watched.said) == 2
    watched.devices.broken = False
    watched.looks()
    assert watched.watch.problem == "the device eth0 is called wan0 now"
    assert watched.changes == [("eth0", "wan0")]
