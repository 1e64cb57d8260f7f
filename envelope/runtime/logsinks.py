"""Where the log's thread writes its lines: standard output, a file, or syslog."""

from __future__ import annotations

import os
import select
import syslog
from collections.abc import Sequence
from typing import Protocol, TypeVar

from twisted.python.logfile import LogFile

from envelope.runtime.internals import require_use

require_use(LogFile._openFile, "_file")
require_use(LogFile.shouldRotate, "size")

Line = TypeVar("Line", contravariant=True)


class Sink(Protocol[Line]):
    """Where lines go; it may block, and raise `OSError`."""

    def write(self, lines: Sequence[Line]) -> None:
        """Write all of `lines`."""

    def reopen(self) -> None:
        """Follow a file that was moved away; raise `OSError`, and go on with the old one."""


class DescriptorSink:
    """A descriptor that was open before: standard output."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, lines: Sequence[str]) -> None:
        """See `Sink`. The parent may have made the descriptor non-blocking."""
        left = memoryview("".join(lines).encode("utf-8", "replace"))
        while left:
            try:
                left = left[os.write(self._descriptor, left):]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()

    def reopen(self) -> None:
        """See `Sink`."""
        raise OSError("it goes to standard output")


class FileSink:
    """twistd's log file, which rotates itself at 1 MB."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    def write(self, lines: Sequence[str]) -> None:
        """See `Sink`.

        `LogFile.rotate` closes the file before it renames it. Where that or what follows fails, the
        file is opened again, and is rotated after another 1 MB.
        """
        text = "".join(lines).encode("utf-8", "replace")
        try:
            if not self._file._file.closed:
                self._file.write(text)
                return
        except OSError:
            if not self._file._file.closed:
                raise
        self._file._openFile()
        self._file.size = 0
        self._file.write(text)

    def reopen(self) -> None:
        """See `Sink`. `LogFile.reopen` closes the old file first: a failure would leave none."""
        old = self._file._file
        self._file._openFile()
        old.close()


class SyslogSink:
    """syslog(3), which was opened before; each line comes with its priority."""

    def write(self, lines: Sequence[tuple[int, str]]) -> None:
        """See `Sink`. syslog(3) takes no zero byte, and Python none of what is no text."""
        for priority, line in lines:
            text = line.replace("\0", "?").encode("utf-8", "replace").decode()
            syslog.syslog(priority, text)

    def reopen(self) -> None:
        """See `Sink`."""
        raise OSError("it goes to syslog")
