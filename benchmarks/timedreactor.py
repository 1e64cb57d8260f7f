"""A reactor that notes how long it was held up: by each event, by each turn, by the collector.

An event is one call out of the reactor: a socket that is ready, or a timer. SIGUSR2 makes it write
what it has seen since the last time, as JSON, to the file that `BENCHMARK_TIMES` names.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import main
from twisted.internet.epollreactor import EPollReactor

# Events that took longer (seconds) are listed by name.
_REMARKABLE = 0.005


class Times:
    """The longest of each kind; seconds on the clock, and of this thread's CPU."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.events = self.turns = 0
        self.event_cpu = 0.0
        self.longest: dict[str, dict[str, float]] = {}
        self.turn = {"seconds": 0.0, "cpu": 0.0, "events": 0}
        self.collector = 0.0

    def event(self, name: str, seconds: float, cpu: float) -> None:
        """One event is over."""
        self.events += 1
        self.event_cpu = max(self.event_cpu, cpu)
        if seconds > _REMARKABLE:
            entry = self.longest.setdefault(name, {"seconds": 0.0, "cpu": 0.0, "times": 0})
            entry["times"] += 1
            if cpu > entry["cpu"]:
                entry["seconds"], entry["cpu"] = seconds, cpu

    def as_json(self) -> dict[str, Any]:
        """For the driver."""
        return {
            "events": self.events, "turns": self.turns, "longest": self.longest,
            "turn": self.turn, "collector": self.collector,
        }


class _Poller:
    """Between one poll's end and the next one's beginning is a turn."""

    def __init__(self, poller: Any, times: Times) -> None:
        self._poller, self._times = poller, times
        self._began, self._cpu, self._events = time.perf_counter(), time.thread_time(), 0

    def poll(self, *arguments: Any) -> Any:
        seconds, times = time.perf_counter() - self._began, self._times
        cpu = time.thread_time() - self._cpu
        times.turns += 1
        if cpu > times.turn["cpu"]:
            times.turn = {"seconds": seconds, "cpu": cpu, "events": times.events - self._events}
        try:
            return self._poller.poll(*arguments)
        finally:
            self._events = times.events
            self._began, self._cpu = time.perf_counter(), time.thread_time()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class TimedReactor(EPollReactor):
    """See the module."""

    def __init__(self) -> None:
        self.times = Times()
        super().__init__()
        self._poller = _Poller(self._poller, self.times)
        self._collecting = 0.0
        gc.callbacks.append(self._collected)
        signal.signal(signal.SIGUSR2, self._write)

    def _doReadOrWrite(self, selectable: Any, fd: int, event: int) -> None:
        # With TLS the interesting protocol is the innermost.
        protocol = getattr(selectable, "protocol", selectable)
        inner = getattr(protocol, "wrappedProtocol", protocol)
        self._timed(
            type(inner).__name__, super()._doReadOrWrite, (selectable, fd, event), {}
        )

    _doReadOrWrite.__doc__ = EPollReactor._doReadOrWrite.__doc__

    def callLater(self, delay: float, what: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See `IReactorTime`."""
        name = getattr(what, "__qualname__", type(what).__name__)
        return super().callLater(delay, self._timed, f"timer {name}", what, args, kwargs)

    def _timed(self, name: str, what: Any, args: Any, kwargs: Any) -> None:
        began, cpu = time.perf_counter(), time.thread_time()
        try:
            what(*args, **kwargs)
        finally:
            self.times.event(name, time.perf_counter() - began, time.thread_time() - cpu)

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            spent = time.thread_time() - self._collecting
            self.times.collector = max(self.times.collector, spent)

    def _write(self, *_: object) -> None:
        path = Path(os.environ["BENCHMARK_TIMES"])
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(self.times.as_json()))
        draft.rename(path)
        self.times.forget()


def install() -> TimedReactor:
    """Make it the process's reactor (`twistd --reactor=timed`)."""
    reactor = TimedReactor()
    main.installReactor(reactor)
    return reactor
