"""Priorities for the lines that go to systemd's journal (sd-daemon(3), "<4>")."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from twisted.logger import LogEvent, LogLevel

from envelope.runtime.addressmask import Shown

# Makes an event a text that shows so much of addresses; None for an event without a message.
Format: TypeAlias = Callable[[LogEvent, Shown], str | None]

ERROR: Final = "<3>"
# syslog(3)'s numbers.
_PRIORITIES: Final = {
    LogLevel.debug: "<7>", LogLevel.info: "<6>", LogLevel.warn: "<4>", LogLevel.error: ERROR,
    LogLevel.critical: "<2>",
}


def is_journal(environ: Mapping[str, str], *descriptors: int) -> bool:
    """Whether one of the descriptors is the journal's stream.

    systemd puts its device and inode into JOURNAL_STREAM (systemd.exec(5)). A descriptor that was
    redirected since has others.
    """
    stream = environ.get("JOURNAL_STREAM", "")
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue
        if stream == f"{status.st_dev}:{status.st_ino}":
            return True
    return False


def with_priorities(form: Format) -> Format:
    """The same format with the event's priority before each line."""

    def formatted(event: LogEvent, addresses: Shown) -> str | None:
        text = form(event, addresses)
        if not text:
            return text
        priority = _PRIORITIES.get(event.get("log_level"), _PRIORITIES[LogLevel.info])
        return "".join(f"{priority}{line}\n" for line in text.rstrip("\n").split("\n"))

    return formatted
