"""How much a device sends, and whether that leaves room for one more client.

The kernel's count of bytes is read once a second from /proc/self/net/dev (proc_pid_net(5)). It
speaks of the network namespace that this process is in; /sys/class/net, with the same numbers, of
the one it was mounted in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from envelope.sessions.metrics import SessionMetrics

_log = Logger(namespace="envelope.load")

# Seconds between two looks: the rate is that of the last one.
PERIOD: Final = 1.0
# Looks in a row under the limit until the log says that it is over; a device near its limit would
# fill the log otherwise.
CALM: Final = 10
# The column with the bytes sent, after the device's name.
_SENT: Final = 8


def bytes_sent(text: str, device: str) -> int | None:
    """What /proc/net/dev's text says that `device` has sent; None when there is no such device."""
    for line in text.splitlines():
        name, colon, columns = line.partition(":")
        if colon and name.strip() == device:
            return int(columns.split()[_SENT])
    return None


def bits_per_second(before: int, after: int, seconds: float) -> float:
    """The rate between two counts; 0 when the count began anew, as with a device made again."""
    return max(0, after - before) * 8 / seconds if seconds > 0 else 0.0


def read_devices() -> str:
    """The counts of every device of this network namespace."""
    return Path("/proc/self/net/dev").read_text()


class TransmitRate:
    """Watches what `device` sends; `limit` is in bits per second, None for no limit."""

    def __init__(
        self,
        device: str,
        limit: float | None,
        clock: IReactorTime,
        metrics: SessionMetrics,
        read: Callable[[], str] = read_devices,
    ) -> None:
        self._device = device
        self._limit = limit
        self._clock = clock
        self._metrics = metrics
        self._read = read
        self._last: tuple[float, int] | None = None
        self._timer: IDelayedCall | None = None
        self._over = False
        self._told = False
        self._calm = 0
        self._absent = False

    def start(self) -> None:
        """Look now, and once a second from now on."""
        self._look()

    def stop(self) -> None:
        """Look no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def over(self) -> bool:
        """Whether the device sent more than the limit in the last second."""
        return self._over

    def warnings(self) -> list[str]:
        """At most one line, when the rate cannot be measured and so limits nothing."""
        return [f"the device {self._device} is not there to be measured"] if self._absent else []

    def _look(self) -> None:
        self._timer = self._clock.callLater(PERIOD, self._look)
        now, sent = self._clock.seconds(), bytes_sent(self._read(), self._device)
        last, self._last = self._last, None if sent is None else (now, sent)
        rate = 0.0
        if last is not None and sent is not None:
            rate = bits_per_second(last[1], sent, now - last[0])
        self._metrics.tx_rate(rate)
        self._over = self._limit is not None and rate > self._limit
        self._note(absent=sent is None)

    def _note(self, absent: bool) -> None:
        newly, self._absent = absent and not self._absent, absent
        if newly:
            _log.warn("{line}", line=self.warnings()[0])
        self._calm = 0 if self._over else self._calm + 1
        if self._over and not self._told:
            self._told = True
            _log.info("{device} sends more than it may: no new clients", device=self._device)
        elif self._told and self._calm >= CALM:
            self._told = False
            _log.info("{device} sends less again: clients may come", device=self._device)
