"""A start in the background whose result is reported where the command was typed.

Without `-n`, twistd goes into the background before it starts a service, and has exited with 0 by
the time that a port turns out to be taken or a tool fails. So the process of the command only
waits. A child of it continues as twistd, and reports through a pipe that clients are accepted, or
why they cannot be: one line, then status 1. If the pipe closes without a report, the child died.

twistd has a pipe of its own for this. But a service cannot delay its report, and only 100 bytes of
it are shown, as a bytes literal on a second line (`UnixApplicationRunner`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.logger import Logger

from envelope.runtime.signals import signals
from envelope.runtime.stderr import tell

_READY: Final = b"0"
_FAILED: Final = b"1"
_DIED: Final = "the service ended before it was ready; its log says what it did"

_log = Logger(namespace="envelope")


class StartReport:
    """Reports the result of a start, once, to the command that waits; to none without a `pipe`."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe

    def ready(self) -> bool:
        """Report that clients are accepted; return False if the waiting command has ended."""
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
        """Report why the start failed, in one line, and log it.

        The pipe stays open, so that the command waits until everything is undone.
        """
        if self._pipe is None:
            return
        _log.critical("{message}", message=message)
        with suppress(BrokenPipeError):
            os.write(self._pipe, _FAILED + message.encode("utf-8", "replace"))


def in_foreground(twistd_options: Mapping[str, Any] | None) -> bool:
    """Whether the process that was started is the service, with these options of twistd's own."""
    return twistd_options is None or bool(twistd_options.get("nodaemon", True))


def report_for(twistd_options: Mapping[str, Any] | None) -> StartReport:
    """The report of a start with these options of twistd's own.

    For a start in the background, this forks: the child gets the report, and the calling process
    waits for it, then raises `SystemExit`.
    """
    if in_foreground(twistd_options):
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
    """Wait until `child` is in the background and has reported; return the command's status."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status > 0:
        return status  # it failed before it went into the background, and has said why
    report = b""
    while report != _READY and (more := os.read(reading, 4096)):
        report += more
    if report == _READY:
        return 0
    reason = report.removeprefix(_FAILED).decode("utf-8", "replace") or _DIED
    tell(reason)
    return 1
