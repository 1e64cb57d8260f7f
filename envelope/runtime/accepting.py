"""Accepting connections without losing one's head: in small batches, and when descriptors run out.

Twisted 26.10 accepts as many at a time as have come; those who have to go for them are closed only
afterwards, so that a burst would need as many descriptors once more. Without a descriptor
(accept(2): EMFILE, ENFILE, ENOBUFS, ENOMEM) it hangs up on who comes as long as it has one in
reserve, then tries again in each turn of the reactor, and writes a line each time.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="envelope.accepting")

# Connections accepted in one turn of the reactor, by one port.
BATCH: Final = 16
# Seconds until the next try when nobody can make room; and between two lines of the log.
REST: Final = 0.1
SILENCE: Final = 60.0

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# What has happened to the connection already, which accept(2) wants treated like EAGAIN.
_PASSING: Final = (
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
)


class CarefulSocket:
    """Stands in for the socket of a Twisted `port`.

    `exhausted` is called when there is no descriptor, and says whether one is about to be free.
    """

    def __init__(
        self, port: Any, reactor: IReactorTime, exhausted: Callable[[], bool]
    ) -> None:
        self._port = port
        self._socket: socket.socket = port.socket
        self._reactor = reactor
        self._exhausted = exhausted
        self._accepted = 0
        self._resting: IDelayedCall | None = None
        self._next_turn: IDelayedCall | None = None
        self._silent_until = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one; `BlockingIOError` when it is enough for now."""
        if self._accepted >= BATCH:
            raise BlockingIOError(errno.EAGAIN, "enough for one turn")
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._rest(error)
            elif error.errno not in _PASSING:
                raise
            raise BlockingIOError(errno.EAGAIN, "not now") from None
        self._accepted += 1
        if self._next_turn is None:
            self._next_turn = self._reactor.callLater(0, self._turn)
        return accepted

    def _turn(self) -> None:
        self._next_turn = None
        self._accepted = 0

    def close(self) -> None:
        """Close the socket, and do not wake up again."""
        for timer in (self._resting, self._next_turn):
            if timer is not None:
                timer.cancel()
        self._resting = self._next_turn = None
        self._socket.close()

    def _rest(self, error: OSError) -> None:
        now = self._reactor.seconds()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE
            _log.warn("nobody can be accepted now: {why}", why=error.strerror)
        # Linux looks for a descriptor first and for a client then: it may be that nobody is there.
        rest = 0.0 if self._exhausted() else REST
        self._port.stopReading()
        self._resting = self._reactor.callLater(rest, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()


def accept_carefully(
    port: Any, reactor: IReactorTime, exhausted: Callable[[], bool]
) -> None:
    """Make `port`, a Twisted port that listens, accept as this module says."""
    port.socket = CarefulSocket(port, reactor, exhausted)


def start_accepting(port: Any) -> None:
    """Make a listening `port` accept; Twisted's stream ports all are readers, though undeclared."""
    port.startReading()
