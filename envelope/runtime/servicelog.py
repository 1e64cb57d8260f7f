"""twistd's log as `--log-format` and `--log-addresses` say, written by a thread (`logwriter`)."""

from __future__ import annotations

import atexit
import math
import os
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

from twisted.logger import (
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver, syslog
from twisted.python.usage import UsageError
from zope.interface import provider

from envelope.runtime.addressmask import Shown, masked
from envelope.runtime.internals import require_use
from envelope.runtime.journal import Format, is_journal, with_priorities
from envelope.runtime.jsonlog import as_json
from envelope.runtime.logsinks import DescriptorSink, FileSink, SyslogSink
from envelope.runtime.logwriter import LogWriter
from envelope.runtime.stderr import tell

require_use(SyslogObserver.emit, "syslog")

# Seconds that the end of the process waits for lines that are not written yet.
CLOSE_FOR: Final = 2.0

_log = Logger(namespace="envelope")


@lru_cache(maxsize=2)
def _of_second(second: int) -> str:
    return formatTime(second)


def _time_text(when: float | None) -> str:
    """The time as Twisted writes it, to the second; hundreds of lines share one."""
    return formatTime(when) if when is None else _of_second(math.floor(when))


def as_text(event: LogEvent, addresses: Shown = "full") -> str | None:
    """One event as Twisted's own line; None for an event without a message."""
    text = formatEventAsClassicLogText(event, _time_text)
    return None if text is None else masked(text, addresses)


class ServiceLog:
    """The process's one log.

    twistd takes the name of a function that makes an observer, and calls it without arguments. So
    it is a method of the one instance below, and `choose` tells that instance the options.
    """

    def __init__(self) -> None:
        self._options: Mapping[str, Any] = {}
        self._format: Format = as_text
        self._addresses: Shown = "full"
        self._writer: LogWriter[Any] | None = None

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        return self._writer.dropped if self._writer else 0

    def choose(
        self, twistd_options: Any, log_format: str, addresses: Shown = "full"
    ) -> None:
        """Make twistd use `observer`; raise `UsageError` with options that ask for another log.

        With twistd's `--logger` the log is not ours.
        """
        if addresses != "full" and twistd_options["logger"]:
            raise UsageError(
                f"--log-addresses={addresses} and twistd's --logger exclude each other"
            )
        self._addresses = addresses
        if log_format == "json":
            for name in ("syslog", "logger"):
                if twistd_options[name]:
                    raise UsageError(f"--log-format=json and twistd's --{name} exclude each other")
            self._format = as_json
        if not twistd_options["logger"]:
            self._options = twistd_options
            twistd_options["logger"] = f"{__name__}.service_log.observer"

    def observer(self) -> ILogObserver:
        """An observer that writes where twistd's options say; raise `SystemExit` if that cannot be.

        Without `-n` twistd is yet to fork, so the thread is left to `start`.
        """
        observer = self._to_syslog() if self._options.get("syslog") else self._to_file()
        atexit.register(self._close)
        if self._options.get("nodaemon"):
            self.start()
        return observer

    def masked(self, text: str) -> str:
        """The text with the addresses that `--log-addresses` shows, for standard error."""
        return masked(text, self._addresses)

    def start(self) -> None:
        """Start the thread, once the process forks no more."""
        if self._writer is not None:
            self._writer.start()

    def reopen(self) -> None:
        """Open the log file again, or say why not."""
        if self._writer is None:
            _log.info("the log cannot be opened again: twistd's --logger writes it")
        else:
            self._writer.reopen()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close(CLOSE_FOR)

    def _to_file(self) -> ILogObserver:
        sink = self._sink()
        # The journal takes standard output and standard error from a unit in the same way.
        if isinstance(sink, DescriptorSink) and is_journal(os.environ, 1, 2):
            self._format = with_priorities(self._format)
        writer = self._writer = LogWriter(sink, self._say)
        put, form, addresses = writer.put, self._format, self._addresses

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            # An event with `log_own_address` shows an address of this host alone.
            if text := form(event, "full" if event.get("log_own_address") else addresses):
                put(text, len(text))

        return cast(ILogObserver, observe)

    def _sink(self) -> DescriptorSink | FileSink:
        name = self._options.get("logfile")
        in_foreground = self._options.get("nodaemon")
        if name == "-" and not in_foreground:
            raise SystemExit("Daemons cannot log to stdout, exiting!")
        if name == "-" or (in_foreground and not name):
            sys.stdout.flush()
            return DescriptorSink(sys.stdout.fileno())
        path = name or "twistd.log"
        try:
            return FileSink(LogFile.fromFullPath(path))
        except OSError as error:
            tell(f"cannot write the log file {path}: {error.strerror}")
            raise SystemExit(1) from None

    def _to_syslog(self) -> ILogObserver:
        observer: Any = SyslogObserver(self._options.get("prefix", ""))
        writer = self._writer = LogWriter(SyslogSink(), lambda level, text: (
            syslog.LOG_WARNING if level is LogLevel.warn else syslog.LOG_INFO,
            f"[envelope.log#{level.name}] {text}"))
        addresses = self._addresses
        observer.syslog = lambda priority, line: writer.put(
            (priority, masked(line, addresses)), len(line)
        )
        return cast(ILogObserver, LegacyLogObserverWrapper(observer.emit))

    def _say(self, level: Any, text: str) -> str:
        return self._format({
            "log_time": time.time(), "log_level": level, "log_namespace": "envelope.log",
            "log_format": text.replace("{", "{{").replace("}", "}}"),
        }, "full") or ""


service_log: Final = ServiceLog()
