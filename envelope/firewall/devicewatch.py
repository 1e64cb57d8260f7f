"""Watches the guarded device: the kernel tells of changes at once, and a look finds the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope import devices
from envelope.devices import Finder
from envelope.firewall import FirewallError
from envelope.firewall.guard import Guard, Judgement
from envelope.text import printable

_log = Logger(namespace="envelope.firewall")


class EventSource(Protocol):
    """What the kernel tells about devices; see `envelope.netlink.Events`."""

    def fileno(self) -> int:
        """The descriptor that is readable when there are messages."""

    def read(self) -> list[tuple[int, bytes]]:
        """Messages that have come, as kind and body; raise `OSError` where some were lost."""

    def close(self) -> None:
        """Listen no more."""


@implementer(IReadDescriptor)
class DeviceWatch:
    """Calls `changed` with the names that have to be guarded, whenever these change.

    `problem` is what is wrong with the device, in one line, or "".
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        name: str,
        changed: Callable[[tuple[str, ...]], None],
        find: Finder = devices.find,
        events: Callable[[], EventSource] = devices.link_events,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._changed = changed
        self._find = find
        self._make_events = events
        self._events: EventSource | None = None
        self._guard: Guard | None = None
        self._last = Judgement((name,))
        self.problem = ""

    def start(self) -> None:
        """Note which device it is; what happens to it from now on is told to `follow`.

        Raises `FirewallError` when it does not exist, or is part of another one.
        """
        try:
            self._events = self._make_events()
            device = self._find(self._name)
            if device is None or device.name != self._name:
                raise FirewallError(f"there is no network device {self._name!r}")
            self._guard = Guard(device)
            judgement = self._guard.judge(self._find)
        except OSError as error:
            self.stop()
            raise FirewallError(f"the network devices cannot be read: {error.strerror}") from None
        except FirewallError:
            self.stop()
            raise
        if judgement != self._last:
            self.stop()
            raise FirewallError(judgement.problem)

    def follow(self) -> None:
        """Call `changed` from now on, and at once if something has changed since `start`."""
        if self._events is not None:
            self._reactor.addReader(self)

    def look(self) -> None:
        """Find out what has become of the device."""
        if self._guard is None:
            return
        try:
            judgement = self._guard.judge(self._find)
        except OSError as error:
            judgement = Judgement(
                self._last.names, f"the network devices cannot be read: {error.strerror}"
            )
        last, self._last = self._last, judgement
        self.problem = judgement.problem
        if judgement == last:
            return
        if judgement.names != last.names:
            self._changed(judgement.names)
        names = printable(" and ".join(judgement.names))
        if judgement.problem:
            _log.error("{problem}: guarding {names}", event="device-changed",
                       problem=judgement.problem, names=names)
        else:
            _log.info("the device {name} is as it was", event="device-back", name=self._name)

    def stop(self) -> None:
        """Watch no more."""
        self._guard = None
        events, self._events = self._events, None
        if events is not None:
            self._reactor.removeReader(self)
            events.close()

    # -- IReadDescriptor -------------------------------------------------------------------

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return -1 if self._events is None else self._events.fileno()

    def doRead(self) -> None:
        """See `IReadDescriptor`: the kernel has told something about any device."""
        if self._events is None or self._guard is None:
            return
        try:
            told = self._events.read()
        except OSError:
            # Some were lost, so the look has to do without.
            told = []
        for kind, body in told:
            if (device := devices.heard(kind, body)) is not None:
                self._guard.saw(device)
        self.look()

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`; the reactor calls it when the descriptor cannot be read."""
        _log.error("the kernel tells nothing about devices any more: {reason}",
                   reason=reason.getErrorMessage())

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "devices"
