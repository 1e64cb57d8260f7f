"""Files that belong together are read again when they have changed, until they can be used.

Certificate and key are two files, and are seldom replaced at one moment; a file may be half written
when it is read; Kubernetes exchanges the link `..data` whenever it likes, also just after a signal
that announces it. So contents are compared from time to time, a reload that fails is tried again,
and what was read before stays in use meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.credentials.files import read_file
from envelope.credentials.keys import KeyFileError
from envelope.credentials.pemfiles import TLSFileError
from envelope.runtime.timers import Timer

# Seconds between looks: soon after files that cannot be used, as an exchange takes moments; but a
# broken file may stay for days.
SOON: Final = 1.0
LATER: Final = 10.0
_LOOKS_SOON: Final = 30
# Looks without a change after which files that do not fit are reported; most exchanges are over by
# then.
_LOOKS_SILENT: Final = 3


class Reload:
    """Reads the files in `paths` again with `read`, which raises `KeyFileError` or `TLSFileError`.

    `read` puts into force what it has read, or changes nothing and raises. `then` is called when
    that was asked for or went well, `failed` when the log says that it did not. `what` is what the
    log of `log` calls the content. `clock` (reactor seconds) runs the timer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        what: str,
        paths: Sequence[Path],
        read: Callable[[], object],
        then: Callable[[], object],
        failed: Callable[[], object],
        log: Logger,
    ) -> None:
        self._what = what
        self._paths = paths
        self._read = read
        self._then = then
        self._failed = failed
        self._log = log
        self._timer = Timer(clock)
        self._watching = False
        self._content = _digest(paths)
        self._trouble: str | None = None
        self._reported = False
        self._looks = 0

    def start(self) -> None:
        """Read the files whenever their content has changed, at most `LATER` seconds late."""
        self._watching = bool(self._paths)
        self._wait()

    def stop(self) -> None:
        """Do not read them again."""
        self._watching = False
        self._timer.stop()

    def now(self) -> None:
        """Read the files; if they cannot be used, log it, and try again until they can."""
        self._attempt()
        if self._trouble is not None:
            self._report()
        self._then()

    def warnings(self) -> list[str]:
        """At most one line: why the files as they are now are not in use."""
        if self._trouble is None:
            return []
        return [f"the old {self._what} still in use: {self._trouble}"]

    def _look(self) -> None:
        self._looks += 1
        # Reading a key of 4096 bits takes 0.2 s; the same content gives the same result.
        if _digest(self._paths) != self._content:
            self._attempt()
            if self._trouble is None:
                self._then()
        else:
            self._wait()
        if self._trouble is not None and not self._reported and self._looks >= _LOOKS_SILENT:
            self._report()

    def _attempt(self) -> None:
        # Before the files are read: what is written meanwhile is then found at the next look.
        self._content = _digest(self._paths)
        self._looks = 0
        before = self._trouble
        try:
            self._read()
        except (KeyFileError, TLSFileError) as error:
            self._trouble = str(error)
            if before is None:
                self._reported = False
        else:
            self._trouble = None
            self._log.info("read the {what} again", event="reloaded", what=self._what)
        finally:
            # Also after an error of another kind, which the reactor logs.
            self._wait()

    def _report(self) -> None:
        self._reported = True
        self._log.error(
            "kept the old {what}: {error}; trying again until the files can be used",
            event="reload-failed", what=self._what, error=self._trouble,
        )
        self._failed()

    def _wait(self) -> None:
        if self._trouble is not None and self._looks < _LOOKS_SOON:
            self._timer.start(SOON, self._look)
        elif self._trouble is not None or self._watching:
            self._timer.start(LATER, self._look)
        else:
            self._timer.stop()


def _digest(paths: Sequence[Path]) -> bytes:
    """Tells contents apart; a file that cannot be read has a digest too."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = read_file(path)
        except OSError as error:
            content = str(error.errno).encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()
