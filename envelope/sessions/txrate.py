"""How much a device sends, and whether that is more than the limit.

The kernel's count of bytes is read from /proc/self/net/dev (proc_pid_net(5)), which belongs to this
process's network namespace. /sys/class/net has the same numbers, but for the namespace that it was
mounted in.

With a limit, it is read ten times a second, as in the reference: the rate that is compared rises at
once with what is sent, and falls slowly, by a twentieth of the difference each time. So a burst is
noticed within 0.1 s, and refuses clients until a while after it. That takes some 9 s of CPU an hour
(0.25 % of a core, measured on a busy machine with two). Without a limit it is read once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope import devices
from envelope.devices import Finder
from envelope.runtime.timers import Timer
from envelope.sessions.metrics import SessionMetrics

_log = Logger(namespace="envelope.load")

# Seconds from one measurement to the next, with a limit and without.
QUICK_PERIOD: Final = 0.1
PERIOD: Final = 1.0
# The part of the last rate that a lower one leaves.
INERTIA: Final = 0.95
# Seconds under the limit until the log says so. Otherwise a device near its limit would fill it.
CALM: Final = 10.0
# Seconds between two questions what the device is called now, which cost more than its count.
NAME_PERIOD: Final = 1.0
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


def smoothed(before: float, now: float) -> float:
    """The rate that is compared, after one of `before` and a measurement of `now`."""
    return max(now, INERTIA * before + (1 - INERTIA) * now)


class DeviceCounts:
    """The text with the counts of all devices of this network namespace.

    The file stays open, since opening it costs three times as much as reading it.
    """

    def __init__(self) -> None:
        self._file = open("/proc/self/net/dev", "rb", buffering=0)  # noqa: SIM115

    def __call__(self) -> str:
        """The text now."""
        self._file.seek(0)
        return self._file.readall().decode("utf-8", "replace")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TransmitRate:
    """Measures what `device` sends, also under a new name; `limit` is in bits per second or None.

    `clock` (reactor seconds) runs the timer. `read` returns the text of /proc/net/dev; None is the
    kernel's. `bits_per_second` is the rate that is compared with the limit; without a limit, that
    of the last second.
    """

    def __init__(
        self,
        device: str,
        limit: float | None,
        clock: IReactorTime,
        metrics: SessionMetrics,
        read: Callable[[], str] | None = None,
        find: Finder = devices.find,
    ) -> None:
        self.bits_per_second = 0.0
        self._device = device
        self._limit = limit
        self._clock = clock
        self._metrics = metrics
        self._read = read
        self._find = find
        self._period = PERIOD if limit is None else QUICK_PERIOD
        self._counts: DeviceCounts | None = None
        self._index = 0
        self._name = device
        self._asked_at: float | None = None
        self._last: tuple[float, int] | None = None
        self._timer = Timer(clock)
        self._over = False
        self._told_over = False
        self._calm = 0.0
        self._missing = False

    def start(self) -> None:
        """Measure now and from now on."""
        if self._read is None:
            self._read = self._counts = DeviceCounts()
        self._measure(self._read)

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.stop()
        if self._counts is not None:
            self._counts.close()

    def over(self) -> bool:
        """Whether the device sends more than the limit."""
        return self._over

    def warnings(self) -> list[str]:
        """At most one line: the rate cannot be measured, so it limits nothing."""
        line = f"the device {self._device} does not exist: its transmit rate cannot be measured"
        return [line] if self._missing else []

    def _measure(self, read: Callable[[], str]) -> None:
        self._timer.start(self._period, self._measure, read)
        now, text = self._clock.seconds(), read()
        if self._asked_at is None or now - self._asked_at >= NAME_PERIOD:
            self._asked_at, self._name = now, self._ask_name()
        sent = bytes_sent(text, self._name)
        if sent is None:
            # Perhaps it has just got another name, which is then in a text from now on.
            self._asked_at = None
        last, self._last = self._last, None if sent is None else (now, sent)
        rate = 0.0
        if last is not None and sent is not None:
            rate = bits_per_second(last[1], sent, now - last[0])
            if self._limit is not None:
                rate = smoothed(self.bits_per_second, rate)
        self.bits_per_second = rate
        self._metrics.tx_rate(rate)
        self._over = self._limit is not None and rate > self._limit
        self._report(missing=sent is None)

    def _ask_name(self) -> str:
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
        self._calm = 0.0 if self._over else self._calm + self._period
        if self._over and not self._told_over:
            self._told_over = True
            _log.info(
                "{device} sends more than --tx-max-rate: refusing new clients", event="over-rate",
                device=self._device,
            )
        elif self._told_over and self._calm >= CALM:
            self._told_over = False
            _log.info(
                "{device} sends less than --tx-max-rate again: admitting clients",
                event="under-rate", device=self._device,
            )
