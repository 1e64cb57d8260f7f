"""Files that belong together are read again while the service runs, until they can be used.

Certificate and key are two files, and are seldom replaced at one moment; a file may be half written
when it is read; Kubernetes exchanges the link `..data` whenever it likes. So a reload that fails is
tried again by itself, and what was read before stays in use meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.credentials.keys import KeyFileError
from envelope.credentials.pemfiles import TLSFileError
from envelope.runtime.timers import Timer

# Seconds between tries: an exchange takes moments, but a broken file may stay for days.
SOON: Final = 1.0
LATER: Final = 10.0
_TRIES_SOON: Final = 30
# Bytes of a file that are compared; no usable file is larger.
_MOST_BYTES: Final = 1 << 20


class Reload:
    """Reads the files in `paths` again with `read`, which raises `KeyFileError` or `TLSFileError`.

    `read` puts into force what it has read, or changes nothing and raises. `then` is called when
    that has ended, well or not. `what` is what the log of `log` calls the content. `clock` (reactor
    seconds) runs the timer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        what: str,
        paths: Sequence[Path],
        read: Callable[[], object],
        then: Callable[[], object],
        log: Logger,
    ) -> None:
        self._what = what
        self._paths = paths
        self._read = read
        self._then = then
        self._log = log
        self._timer = Timer(clock)
        self._trouble: str | None = None
        self._content = b""
        self._tries = 0

    def now(self) -> None:
        """Read the files; if they cannot be used, log it, and try again until they can."""
        self._tries = 0
        self._attempt()
        if self._trouble is not None:
            self._log.error(
                "kept the old {what}: {error}; trying again until the files can be used",
                what=self._what, error=self._trouble,
            )
        self._then()

    def stop(self) -> None:
        """Do not try again."""
        self._timer.stop()

    def warnings(self) -> list[str]:
        """At most one line: why the files as they are now are not in use."""
        if self._trouble is None:
            return []
        return [f"the old {self._what} still in use: {self._trouble}"]

    def _attempt(self) -> None:
        # Before the files are read: what is written meanwhile is then found at the next try.
        self._content = _digest(self._paths)
        try:
            self._read()
        except (KeyFileError, TLSFileError) as error:
            self._trouble = str(error)
            self._timer.start(SOON, self._again)
        else:
            self._trouble = None
            self._timer.stop()
            self._log.info("read the {what} again", what=self._what)

    def _again(self) -> None:
        self._tries += 1
        # Reading a key of 4096 bits takes 0.2 s; the same content gives the same result.
        if _digest(self._paths) == self._content:
            self._timer.start(SOON if self._tries < _TRIES_SOON else LATER, self._again)
            return
        self._attempt()
        if self._trouble is None:
            self._then()


def _digest(paths: Sequence[Path]) -> bytes:
    """Tells contents apart; a file that cannot be read has a digest too."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES)
        except OSError as error:
            content = str(error.errno).encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()
