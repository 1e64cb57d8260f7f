"""A UNIX socket that only its owner can connect to, and that replaces the one of a killed process.

Twisted's own UNIX port sets the socket's mode only after it has bound it, and when it closes, it
removes any file that has its path.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope.runtime.timers import Timer

# Bytes of a path without its final zero (unix(7), sun_path).
LONGEST_PATH: Final = 107
# Connections that the kernel completes while the service is busy.
_BACKLOG: Final = 16
# The mode 0600, which the socket has from the moment at which it exists.
_UMASK: Final = 0o177
# Seconds until accepting is tried again when no descriptor is left.
_REST: Final = 1.0


class SocketRefused(Exception):
    """The socket cannot be opened; the text says why, without the path."""


class UnixListener:
    """A listening socket at `path`, with its folder, which is made if it is missing.

    The constructor raises `SocketRefused`. Connections wait in the kernel until `start`.
    """

    def __init__(self, reactor: Any, path: Path) -> None:
        self._reactor = reactor
        self._path = path
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise SocketRefused(f"the path has more than {LONGEST_PATH} bytes")
        # `Path.exists` raises for a folder that may not be looked into.
        self._made = [folder for folder in path.parents if not os.path.exists(folder)]
        try:
            for folder in reversed(self._made):
                folder.mkdir(0o755)
            self._socket = _listening(path)
        except (OSError, SocketRefused) as error:
            self._remove_folders()
            if isinstance(error, OSError):
                raise SocketRefused(_reason(error)) from None
            raise
        self._identity = _identity(path)
        self._reader: _Reader | None = None

    def start(self, factory: IProtocolFactory) -> None:
        """Accept connections from now on."""
        self._reader = _Reader(self._reactor, self._socket, factory)

    def close(self) -> None:
        """Accept no more; remove the socket, if it is still ours, and folders that were made."""
        if self._reader is not None:
            self._reader.stop()
        self._socket.close()
        with suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()
        self._remove_folders()

    def _remove_folders(self) -> None:
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _listening(path: Path) -> socket.socket:
    # Two services that start at the same time must not each remove the other's socket. The lock
    # ends with the descriptor, whatever happens to the process.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketRefused("another service is just starting there") from None
        _remove_stale(path)
        return _bind(path)
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; raise `SocketRefused` for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketRefused("there is something else than a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full
    raise SocketRefused("another running service listens there")


def _bind(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        before = os.umask(_UMASK)
        try:
            opened.bind(os.fsencode(path))
        finally:
            os.umask(before)
        opened.listen(_BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


@implementer(IReadDescriptor)
class _Reader:
    """Accepts connections, one in a turn of the reactor."""

    def __init__(
        self, reactor: Any, listening: socket.socket, factory: IProtocolFactory
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._rest = Timer(reactor)
        reactor.addReader(self)

    def stop(self) -> None:
        self._rest.stop()
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Accept one connection."""
        try:
            accepted, _ = self._socket.accept()
            with accepted:
                accepted.setblocking(False)
                # This duplicates the descriptor.
                self._reactor.adoptStreamConnection(
                    accepted.fileno(), socket.AF_UNIX, self._factory
                )
        except BlockingIOError:
            pass  # the peer has left
        except OSError:
            self._reactor.removeReader(self)
            self._rest.start(_REST, self._reactor.addReader, self)

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "control"

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`; the listener closes the socket."""
