"""How much a device sends, and whether that is more than the limit.

The kernel's count of bytes is read once a second from /proc/self/net/dev (proc_pid_net(5)), which
belongs to this process's network namespace. /sys/class/net has the same numbers, but for the
namespace that it was mounted in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope import devices
from envelope.devices import Finder
from envelope.runtime.timers import Timer
from envelope.sessions.metrics import SessionMetrics

_log = Logger(namespace="envelope.load")

# Seconds from one measurement to the next; the rate is the average between two of them.
PERIOD: Final = 1.0
# Measurements in a row under the limit until the log says so. Otherwise a device near its limit
# would fill the log.
CALM: Final = 10
# The column with the bytes sent, after the device's name.
_SENT: Final = 8


def bytes_sent(text: str, device: str) -> int | None:
    """The bytes that `device` has sent, from the text of /proc/net/dev; None without the device."""
    for line in text.splitlines():
        name, colon, columns = line.partition(":")
        if colon and name.strip() == device:
            return int(columns.split()[_SENT])
    return None


def bits_per_second(before: int, after: int, seconds: float) -> float:
    """The rate between two counts; 0 if the count was reset, as for a device made anew."""
    return max(0, after - before) * 8 / seconds if seconds > 0 else 0.0


def read_devices() -> str:
    """The text with the counts of all devices of this network namespace."""
    return Path("/proc/self/net/dev").read_text()


class TransmitRate:
    """Measures what `device` sends, also under a new name; `limit` is in bits per second or None.

    `clock` (reactor seconds) runs the timer; `read` returns the text of /proc/net/dev.
    """

    def __init__(
        self,
        device: str,
        limit: float | None,
        clock: IReactorTime,
        metrics: SessionMetrics,
        read: Callable[[], str] = read_devices,
        find: Finder = devices.find,
    ) -> None:
        # What the device sends now.
        self.bits_per_second = 0.0
        self._device = device
        self._limit = limit
        self._clock = clock
        self._metrics = metrics
        self._read = read
        self._find = find
        self._index = 0
        self._last: tuple[float, int] | None = None
        self._timer = Timer(clock)
        self._over = False
        self._told_over = False
        self._calm = 0
        self._missing = False

    def start(self) -> None:
        """Measure now, and once a second from now on."""
        self._measure()

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.stop()

    def over(self) -> bool:
        """Whether the device sent more than the limit in the last second."""
        return self._over

    def warnings(self) -> list[str]:
        """At most one line: the rate cannot be measured, so it limits nothing."""
        line = f"the device {self._device} does not exist: its transmit rate cannot be measured"
        return [line] if self._missing else []

    def _measure(self) -> None:
        self._timer.start(PERIOD, self._measure)
        now, sent = self._clock.seconds(), bytes_sent(self._read(), self._name())
        last, self._last = self._last, None if sent is None else (now, sent)
        rate = 0.0
        if last is not None and sent is not None:
            rate = bits_per_second(last[1], sent, now - last[0])
        self.bits_per_second = rate
        self._metrics.tx_rate(rate)
        self._over = self._limit is not None and rate > self._limit
        self._report(missing=sent is None)

    def _name(self) -> str:
        """The device's name now; as it was given when the device is another one, or gone."""
        try:
            device = (self._index and self._find(self._index)) or self._find(self._device)
        except OSError:
            device = None
        if device is None:
            return self._device
        self._index = device.index
        return device.name

    def _report(self, missing: bool) -> None:
        newly, self._missing = missing and not self._missing, missing
        if newly:
            _log.warn("{line}", line=self.warnings()[0])
        self._calm = 0 if self._over else self._calm + 1
        if self._over and not self._told_over:
            self._told_over = True
            _log.info(
                "{device} sends more than --tx-max-rate: refusing new clients", device=self._device
            )
        elif self._told_over and self._calm >= CALM:
            self._told_over = False
            _log.info(
                "{device} sends less than --tx-max-rate again: admitting clients",
                device=self._device,
            )
