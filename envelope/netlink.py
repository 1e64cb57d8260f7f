"""Requests to the kernel over netlink, its answers, and what it tells unasked (netlink(7)).

The kernel answers within the call, so nothing here waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

NETLINK_ROUTE: Final = 0
NETLINK_SOCK_DIAG: Final = 4
NETLINK_NETFILTER: Final = 12

# linux/netlink.h
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
# Two bits of an attribute's type say how it is written.
_TYPE: Final = 0x3FFF
_NESTED: Final = 0x8000
# As much as the kernel puts into one datagram of a dump, and some more.
_DATAGRAM: Final = 1 << 16
# SO_RCVBUFFORCE of asm-generic/socket.h, which `socket` does not name.
_FORCE_BUFFER: Final = 33
# Seconds; only an answer that was lost for want of memory takes any.
_PATIENCE: Final = 1.0


class Netlink:
    """One subsystem of the kernel; every call may raise `OSError`.

    Sockets stay open for the next call: closing one to netfilter may wait until the kernel has
    destroyed what was deleted last (nf_tables' nft_rcv_nl_event), some 15 ms.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._idle: list[socket.socket] = []
        self._busy: set[socket.socket] = set()
        self._numbers = count(1)
        self._closed = False

    def open(self) -> None:
        """Open the socket that is kept, so that no later call fails for want of a descriptor."""
        self._give_back(self._take())

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of the messages that answer a request for a list, read as they are asked for.
        """
        with self._asking(kind, _DUMP, body) as answers:
            for what, message in answers:
                if what == _DONE:
                    return
                yield message

    def ask(self, kind: int, body: bytes) -> bytes:
        """The body of the one message that answers a request."""
        with self._asking(kind, 0, body) as answers:
            return next(answers)[1]

    def do(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Make a change; returns once it is made."""
        with self._asking(kind, _ACK | flags, body) as answers:
            next(answers)

    def close(self) -> None:
        """Close all sockets, for good: work that is still under way fails (EBADF)."""
        self._closed = True
        for kernel in (*self._idle, *self._busy):
            kernel.close()
        self._idle.clear()
        self._busy.clear()

    @contextmanager
    def _asking(
        self, kind: int, flags: int, body: bytes
    ) -> Iterator[Iterator[tuple[int, bytes]]]:
        kernel, number = self._take(), next(self._numbers)
        try:
            size = _HEADER.size + len(body)
            kernel.send(_HEADER.pack(size, kind, _REQUEST | flags, number, 0) + body)
            yield _answers(kernel, number)
        except _Refused as error:
            self._give_back(kernel)
            raise OSError(error.errno, error.strerror) from None
        except BaseException:
            # An answer that is still to come would be taken for that of the next question.
            self._busy.discard(kernel)
            kernel.close()
            raise
        else:
            self._give_back(kernel)

    def _take(self) -> socket.socket:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._idle:
            kernel = self._idle.pop()
        else:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            kernel = socket.socket(socket.AF_NETLINK, kind, self._protocol)
            kernel.settimeout(_PATIENCE)
        self._busy.add(kernel)
        return kernel

    def _give_back(self, kernel: socket.socket) -> None:
        # Unless all were closed meanwhile.
        if kernel in self._busy:
            self._busy.remove(kernel)
            # One is kept; others were opened by questions that overlapped.
            if self._idle:
                kernel.close()
            else:
                self._idle.append(kernel)


class Events:
    """What the kernel tells one group of listeners; raises `OSError` where it does not.

    `buffer` is how many bytes may wait to be read; 0 for the system's default. A larger one than
    net.core.rmem_max needs CAP_NET_ADMIN outside of user namespaces; without, that is the limit.
    """

    def __init__(self, protocol: int, group: int, buffer: int = 0) -> None:
        self._kernel = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            protocol,
        )
        if buffer:
            try:
                self._kernel.setsockopt(socket.SOL_SOCKET, _FORCE_BUFFER, buffer)
            except OSError:
                self._kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        # The groups are bits, the first one the lowest.
        self._kernel.bind((0, 1 << group - 1))

    def fileno(self) -> int:
        """The descriptor that is readable when there are messages."""
        return self._kernel.fileno()

    def read(self) -> list[tuple[int, bytes]]:
        """The messages of one datagram, each as its kind and its body.

        Raises `OSError` once (ENOBUFS) when some were lost.
        """
        try:
            data = self._kernel.recv(_DATAGRAM)
        except BlockingIOError:
            return []
        return [(what, body) for what, _, body in _messages(data)]

    def close(self) -> None:
        """Listen no more."""
        self._kernel.close()


class _Refused(OSError):
    """The kernel's answer is no, and nothing else is to come."""


def _answers(kernel: socket.socket, number: int) -> Iterator[tuple[int, bytes]]:
    while True:
        for what, answered, message in _messages(kernel.recv(_DATAGRAM)):
            if answered == number:
                if what == _ERROR:
                    _check(message)
                yield what, message


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages of a datagram: each one's kind, the request that it answers, and its body."""
    position, last = 0, len(data) - _HEADER.size
    while position <= last:
        size, what, _, answered, _ = _HEADER.unpack_from(data, position)
        yield what, answered, data[position + _HEADER.size:position + size]
        position += size + 3 & ~3 if size > _HEADER.size else _HEADER.size


def _check(message: bytes) -> None:
    code, = struct.unpack_from("=i", message)
    if code:
        raise _Refused(-code, os.strerror(-code))


def attributes(data: bytes, position: int = 0) -> dict[int, bytes]:
    """The attributes of a message from `position` on, by their type. Pure."""
    found: dict[int, bytes] = {}
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        found[kind & _TYPE] = data[position + _ATTRIBUTE.size:position + size]
        # Attributes are aligned to four bytes.
        position += max(_ATTRIBUTE.size, size + 3 & ~3)
    return found


def listed(data: bytes) -> Iterator[bytes]:
    """The values of attributes that are all of one type, such as the elements of a list. Pure."""
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        size, _ = _ATTRIBUTE.unpack_from(data, position)
        yield data[position + _ATTRIBUTE.size:position + size]
        position += max(_ATTRIBUTE.size, size + 3 & ~3)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute as it is written into a message. Pure."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds others. Pure."""
    return attribute(kind | _NESTED, b"".join(parts))
