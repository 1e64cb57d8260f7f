"""Finds what a test has left behind: timers, sockets, processes, descriptors, logged failures."""

from __future__ import annotations

import gc
import io
import os
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_twisted import blockon
from twisted.internet import process, reactor
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

# The reactor makes these once, when it first needs them.
_REACTORS_OWN = ("_UnixWaker", "_SocketWaker", "_SIGCHLDWaker", "_Waker")
_PATIENCE = 1.0


class LoggedFailures:
    """A context manager that observes Twisted's log and keeps the failures."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def __enter__(self) -> LoggedFailures:
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    def flush(self, *kinds: type[BaseException]) -> list[Failure]:
        """Remove and return the failures of these kinds (none given: all): they were expected."""
        wanted = [each for each in self.failures if not kinds or each.check(*kinds)]
        self.failures[:] = [each for each in self.failures if each not in wanted]
        return wanted


class LeakDetector:
    """Compares with the state at its creation: everything that was added since is a leak."""

    def __init__(self, logged: LoggedFailures) -> None:
        self._logged = logged
        self._before = self._things()

    def wait_for_none(self) -> list[str]:
        """The leaks, after the reactor had up to 1 s to finish what was under way."""
        end = time.monotonic() + _PATIENCE
        while (left := self.look()) and time.monotonic() < end:
            gc.collect()
            blockon(deferLater(reactor, 0.01, lambda: None))
        return left

    def look(self) -> list[str]:
        """The leaks at this moment, a line each."""
        left = [str(thing) for key, thing in self._things().items() if key not in self._before]
        return left + [f"logged: {each.getErrorMessage()}" for each in self._logged.failures]

    def end_what_is_left(self) -> None:
        """Close and kill the leaks, so that they are not reported again for another test.

        A failed test's leaks live on in its traceback; when that is freed, some tests later,
        Python warns of each file that is still open.
        """
        left = {key for key in self._things() if key not in self._before}
        for thing in gc.get_objects():
            if isinstance(thing, io.FileIO | socket.socket) and _number(thing) in left:
                thing.close()
            elif isinstance(thing, subprocess.Popen) and ("child", thing.pid) in left:
                thing.kill()
                thing.wait()

    def _things(self) -> dict[object, object]:
        # The value is kept with its key, so that its id is not used again.
        things: dict[object, object] = {}
        any_reactor: Any = reactor
        for call in any_reactor.getDelayedCalls():
            things["timer", id(call)] = call
        for selectable in _selectables(any_reactor):
            things["selectable", id(selectable)] = selectable
        for pid, handler in process.reapProcessHandlers.items():
            things["process", pid] = f"process {pid}: {handler}"
        for pid in _children():
            things["child", pid] = f"child process {pid}: {_command(pid)}"
        for number, target in _descriptors():
            things["descriptor", number, target] = f"descriptor {number}: {target}"
        return things


def _selectables(any_reactor: Any) -> Iterable[object]:
    for selectable in (*any_reactor.getReaders(), *any_reactor.getWriters()):
        if type(selectable).__name__ not in _REACTORS_OWN:
            yield selectable


def _children() -> Iterable[int]:
    subprocess._cleanup()  # type: ignore[attr-defined]  # reaps those whose Popen is gone
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            yield from map(int, (task / "children").read_text().split())


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200] or "(a zombie)"
    return "(gone)"


def _number(file: io.FileIO | socket.socket) -> object:
    """The key of an open file in `_things`; None when it is closed."""
    with suppress(OSError, ValueError):
        number = str(file.fileno())
        return "descriptor", number, os.readlink(f"/proc/self/fd/{number}")
    return None


def _descriptors() -> Iterable[tuple[str, str]]:
    # The standard streams are pytest's own, which captures them at one time and not at another.
    wakers = {"0", "1", "2"}
    any_reactor: Any = reactor
    for selectable in any_reactor.getReaders():
        if type(selectable).__name__ in _REACTORS_OWN:
            wakers |= {str(getattr(selectable, name, "")) for name in ("i", "o")}
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(entry.path)
            if target.startswith(("socket:", "pipe:")) and entry.name not in wakers:
                yield entry.name, target
