"""A reactor that records how long events, turns and the garbage collector block it.

An event is one call from the reactor, for a ready socket or a timer. On SIGUSR2 it writes what it
has recorded since the last time, as JSON, to the file that `BENCHMARK_TIMES` names.
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

# Events that take longer than this (seconds) are listed by name.
_REMARKABLE = 0.005


class Times:
    """The longest of each kind, in seconds of real time and of this thread's CPU."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Clear everything."""
        self.events = self.turns = 0
        self.event_cpu = 0.0
        self.longest: dict[str, dict[str, float]] = {}
        self.turn = {"seconds": 0.0, "cpu": 0.0, "events": 0}
        self.collector = 0.0

    def event(self, name: str, seconds: float, cpu: float) -> None:
        """Record one event."""
        self.events += 1
        self.event_cpu = max(self.event_cpu, cpu)
        if seconds > _REMARKABLE:
            entry = self.longest.setdefault(name, {"seconds": 0.0, "cpu": 0.0, "times": 0})
            entry["times"] += 1
            if cpu > entry["cpu"]:
                entry["seconds"], entry["cpu"] = seconds, cpu

    def as_json(self) -> dict[str, Any]:
        """The values as JSON for the driver."""
        return {
            "events": self.events, "turns": self.turns, "longest": self.longest,
            "turn": self.turn, "collector": self.collector,
        }


class _Poller:
    """A poller that records turns: the time from the end of one poll to the start of the next."""

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
    """An epoll reactor that records times; see the module's docstring."""

    def __init__(self) -> None:
        self.times = Times()
        super().__init__()
        self._poller = _Poller(self._poller, self.times)
        self._collecting = 0.0
        gc.callbacks.append(self._collected)
        # Later than the service, which handles all signals.
        self.callWhenRunning(lambda: signal.signal(signal.SIGUSR2, self._write))

    def _doReadOrWrite(self, selectable: Any, fd: int, event: int) -> None:
        # With TLS the innermost protocol names the event.
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
    """Install it as the process's reactor (`twistd --reactor=timed`)."""
    reactor = TimedReactor()
    main.installReactor(reactor)
    return reactor
