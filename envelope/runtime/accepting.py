"""Accept connections in small batches; back off when file descriptors run out.

Twisted 26.10 accepts as many connections in one turn of the reactor as are waiting. Connections
that are dropped for them are closed only after the turn, so a burst would need as many descriptors
again. When no descriptor is left (accept(2): EMFILE, ENFILE, ENOBUFS, ENOMEM), Twisted closes new
connections with the help of one reserved descriptor, then tries again in each turn, and logs a line
each time.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

from envelope.runtime.internals import require_use
from envelope.runtime.timers import Timer

_log = Logger(namespace="envelope.accepting")

require_use(Port.doRead, "socket")

# The most connections that one port accepts in a turn of the reactor.
BATCH: Final = 16
# Seconds until the next try when no connection can be dropped, and between two log lines.
REST: Final = 0.1
SILENCE: Final = 60.0

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Errors of the connection that was to be accepted; accept(2) says to treat them like EAGAIN.
_PASSING: Final = (
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
)


class CarefulSocket:
    """Replaces the socket of a Twisted `port`.

    `free_descriptor` is called when no descriptor is left; it returns whether one is about to be
    closed.
    """

    def __init__(
        self, port: Any, reactor: IReactorTime, free_descriptor: Callable[[], bool]
    ) -> None:
        self._port = port
        self._socket: socket.socket = port.socket
        self._reactor = reactor
        self._free_descriptor = free_descriptor
        self._accepted = 0
        self._rest = Timer(reactor)
        self._next_turn = Timer(reactor)
        self._silent_until = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one connection; raise `BlockingIOError` at the end of a batch, or without one."""
        if self._accepted >= BATCH:
            raise BlockingIOError(errno.EAGAIN, "the batch is complete")
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._back_off(error)
            elif error.errno not in _PASSING:
                raise
            raise BlockingIOError(errno.EAGAIN, "nothing to accept now") from None
        self._accepted += 1
        if not self._next_turn.running:
            self._next_turn.start(0, self._begin_batch)
        return accepted

    def _begin_batch(self) -> None:
        self._accepted = 0

    def close(self) -> None:
        """Close the socket and stop the timers."""
        self._rest.stop()
        self._next_turn.stop()
        self._socket.close()

    def _back_off(self, error: OSError) -> None:
        now = self._reactor.seconds()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE
            _log.warn(
                "no connection can be accepted now: {why}; raise the limit of open files, or lower "
                "--max-connections", event="descriptors-used-up", why=error.strerror,
            )
        # Linux looks for a descriptor before it looks for a connection, so none may be waiting.
        rest = 0.0 if self._free_descriptor() else REST
        self._port.stopReading()
        self._rest.start(rest, self._resume)

    def _resume(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()


def accept_carefully(
    port: Any, reactor: IReactorTime, free_descriptor: Callable[[], bool]
) -> None:
    """Make `port`, a listening Twisted port, accept as this module describes."""
    port.socket = CarefulSocket(port, reactor, free_descriptor)


def start_accepting(port: Any) -> None:
    """Make `port` accept connections.

    `IListeningPort` does not declare `startReading`, but every stream port of Twisted has it.
    """
    port.startReading()
