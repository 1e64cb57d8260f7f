"""A start in the background, and what became of it told where it was typed.

Without `-n` twistd goes into the background before it starts a service, and has said 0 by the time
that a port turns out to be taken or a tool to fail. So the process that was started stays where it
is and only waits. A child of it goes on as twistd, and says through a pipe when clients can come,
or why they cannot: one line, then status 1. The pipe's end without a word says that the child died.

twistd has a pipe of its own for this, but nobody may hold it back, and of what comes through it 100
bytes are shown, as Python writes bytes and with a second line (`UnixApplicationRunner`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.logger import Logger

from envelope.runtime.signals import signals

_READY: Final = b"0"
_FAILED: Final = b"1"
_GONE: Final = "the service ended before it was ready; its log says what it did"

_log = Logger(namespace="envelope")


class StartReport:
    """What is said, once, to whoever waits for this start in the foreground, if anybody does."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe

    def ready(self) -> bool:
        """Clients can come; False when whoever waited for it has gone, so that nobody knows."""
        if self._pipe is None:
            return True
        pipe, self._pipe = self._pipe, None
        try:
            os.write(pipe, _READY)
        except BrokenPipeError:
            return False
        finally:
            os.close(pipe)
        return True

    def failed(self, message: str) -> None:
        """The start failed for a reason of one line, which goes into the log as well.

        The pipe stays open, so that whoever waits hears of the end when everything is undone.
        """
        if self._pipe is None:
            return
        _log.critical("{message}", message=message)
        with suppress(BrokenPipeError):
            os.write(self._pipe, _FAILED + message.encode())


def report_for(twistd_options: Mapping[str, Any] | None) -> StartReport:
    """The report of a start with these options of twistd's own.

    In the background it is returned in a child process; this one waits, and raises `SystemExit`.
    """
    if twistd_options is None or twistd_options.get("nodaemon", True):
        return StartReport()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        return StartReport(writing)
    signals.give_back()
    os.close(writing)
    raise SystemExit(_wait(child, reading))


def _wait(child: int, reading: int) -> int:
    """The status for the shell, once `child` is in the background and its start is over."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status > 0:
        return status  # it never came as far, and has said why
    told = b""
    while told != _READY and (more := os.read(reading, 4096)):
        told += more
    if told == _READY:
        return 0
    reason = told.removeprefix(_FAILED).decode("utf-8", "replace") or _GONE
    os.write(2, f"envelope: {reason}\n".encode())
    return 1
