"""Which devices' packets have to be refused to guard one device, whatever happens to it. Pure.

A rule names a device by the name that packets bear when they come in. When the device gets another
name or a master, its packets pass a rule for its old name, and everyone would be let in. So its new
name, and its master's, are guarded too.
"""

from __future__ import annotations

from dataclasses import dataclass

from envelope.devices import Device, Finder
from envelope.text import printable


@dataclass(frozen=True, slots=True)
class Judgement:
    """What has become of the device: `names` have to be guarded; `problem` is "" when all is well.

    `names` are sorted; `problem` is one clause.
    """

    names: tuple[str, ...]
    problem: str = ""


class Guard:
    """Follows one device; raises nothing but what a `Finder` raises.

    Every device that has had its name is followed from then on, since the packets that were refused
    may come in by any of them.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._followed = {device.index}

    def saw(self, device: Device) -> None:
        """Take note of a device that has come or changed, and may have gone or changed since."""
        if device.name == self._device.name:
            self._followed.add(device.index)

    def judge(self, find: Finder) -> Judgement:
        """What holds now."""
        namesake = find(self._device.name)
        if namesake is not None:
            # It may be found by an alternative name.
            self.saw(namesake)
        names = {self._device.name}
        for index in [*self._followed]:
            device = find(index)
            if device is None and index != self._device.index:
                self._followed.discard(index)
            names |= _names_of_packets(device, find)
        return Judgement(tuple(sorted(names)), self._problem(find))

    def _problem(self, find: Finder) -> str:
        wanted = self._device
        there, namesake = find(wanted.index), find(wanted.name)
        if there is not None and there.name == wanted.name:
            master = find(there.master) if there.master else None
            return f"the device {there.name} is part of {master} now" if master else ""
        if namesake is not None and namesake.name == wanted.name:
            return (f"the device {wanted.name} is another one now (index {namesake.index}, at the "
                    f"start {wanted.index}): restart the service")
        if there is not None:
            return f"the device {wanted.name} is called {printable(there.name)} now"
        return f"the device {wanted.name} is gone"


def _names_of_packets(device: Device | None, find: Finder) -> set[str]:
    """The names that packets may bear that a device receives: its own, its master's, and so on."""
    names: set[str] = set()
    while device is not None and device.name not in names:
        names.add(device.name)
        device = find(device.master) if device.master else None
    return names
