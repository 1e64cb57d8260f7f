"""Writes the log in a thread of its own, so that the reactor never waits for the log's reader.

A pipe that nobody empties, a terminal at Ctrl-S, a full socket of the journal's or syslog's and a
disk that hangs all block a write. Only a thread helps with all of them: a regular file is never
"not ready", and O_NONBLOCK belongs to the open file that we share with our parent and its other
children, not to our descriptor (open(2)). See docs/decisions/log-thread.md.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from twisted.logger import LogLevel

from envelope.runtime.logsinks import Sink

T = TypeVar("T")

# What may wait to be written: some 20,000 lines of 100 bytes. `MOST_LINES` bounds the overhead of
# short ones.
MOST_BYTES: Final = 2 << 20
MOST_LINES: Final = 20_000
# Seconds. Lines that come within this time of each other share a wake-up of the thread.
GATHER_FOR: Final = 0.02
# Seconds until a write is tried again that failed, such as on a full disk.
RETRY_AFTER: Final = 1.0


class _Reopen:
    """Stands among the lines where the file is to be opened again."""


class LogWriter(Generic[T]):
    """Lines that wait, and the thread that writes them, in order.

    When too much waits, further lines are dropped until all that waited is written; then a line
    says how many were lost. `say` makes a line of a level and a text. `dropped` counts them all.
    """

    def __init__(self, sink: Sink[T], say: Callable[[Any, str], T]) -> None:
        self.dropped = 0
        self._sink = sink
        self._say = say
        self._lock = threading.Lock()
        self._waiting: list[T | _Reopen | threading.Event] = []
        self._size = 0
        self._lines = 0
        self._lost = 0
        self._idle = False
        self._ended = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; lines that came before wait for it. Not before a fork."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def put(self, line: T, size: int) -> None:
        """Take a line of `size` bytes, or drop it. From any thread; never blocks."""
        with self._lock:
            if self._lost or self._size + size > MOST_BYTES or self._lines >= MOST_LINES:
                self._lost += 1
                self.dropped += 1
                return
            self._size += size
            self._lines += 1
            self._waiting.append(line)
        self._ring()

    def reopen(self) -> None:
        """Open the log file again, after the lines that were put before."""
        self._mark(_Reopen())

    def close(self, seconds: float) -> bool:
        """Write what waits, and end; return whether it was done within so many seconds."""
        written = threading.Event()
        self._hurry.set()
        self._mark(written)
        if self._thread is None or self._ended:
            self._write_waiting()
        return written.wait(seconds)

    def _mark(self, mark: _Reopen | threading.Event) -> None:
        with self._lock:
            self._waiting.append(mark)
        self._ring()

    def _ring(self) -> None:
        if self._idle:
            self._idle = False
            self._bell.put(None)

    # -- in the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        # They are for the main thread, which may be waiting for one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._ended:
            if not self._write_waiting():
                self._hurry.wait(RETRY_AFTER)
            with self._lock:
                self._idle = not self._waiting and not self._lost
            if self._idle and not self._ended:
                self._bell.get()
                self._hurry.wait(GATHER_FOR)

    def _write_waiting(self) -> bool:
        """Write what waits, and how many lines were lost since; whether it could be written."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            size, lines = self._size, self._lines
        written = True
        batch: list[T] = []
        for item in waiting:
            if isinstance(item, _Reopen | threading.Event):
                written = self._write(batch) and written
                batch = []
                if isinstance(item, threading.Event):
                    self._tell_lost()
                    self._ended = True
                    item.set()
                else:
                    self._reopen()
            else:
                batch.append(item)
        written = self._write(batch) and written
        with self._lock:
            self._size -= size
            self._lines -= lines
            caught_up = not self._waiting
        return (not caught_up or self._tell_lost()) and written

    def _write(self, batch: list[T]) -> bool:
        try:
            if batch:
                self._sink.write(batch)
        except OSError:
            with self._lock:
                self._lost += len(batch)
                self.dropped += len(batch)
            return False
        return True

    def _tell_lost(self) -> bool:
        with self._lock:
            lost = self._lost
        if lost:
            try:
                self._sink.write([self._say(
                    LogLevel.warn, f"lost {lost} lines of the log, which could not be written")])
            except OSError:
                return False
            with self._lock:
                self._lost -= lost
        return True

    def _reopen(self) -> None:
        try:
            self._sink.reopen()
        except OSError as error:
            line = self._say(
                LogLevel.warn, f"the log cannot be opened again: {error.strerror or error}")
        else:
            line = self._say(LogLevel.info, "opened the log file again")
        self._write([line])
