"""Sends as many small UDP packets as one core can, by sendmmsg(2) through ctypes.

The core that sends on a veth device also runs the receiver's rules. So expensive rules slow the
sender down, and the rate that arrives is the rate that the rules allow.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

_BATCH = 64
_PAYLOAD = 32
# IPV6_FREEBIND of linux/in6.h: a route makes the address local, no device has it.
_FREE_BIND = 78


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    # struct mmsghdr: a msghdr, and the number of bytes sent.
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Iovec)), ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint),
    )


def flood(source: str, sink: tuple[str, int], seconds: float) -> tuple[int, float]:
    """Send from `source` for so long; returns the number of packets and the exact seconds."""
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    payload = ctypes.create_string_buffer(_PAYLOAD)
    vector = _Iovec(ctypes.addressof(payload), _PAYLOAD)
    messages = (_Message * _BATCH)()
    for message in messages:
        message.vector, message.vector_length = ctypes.pointer(vector), 1
    sent = 0
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        if family == socket.AF_INET6:
            out.setsockopt(socket.IPPROTO_IPV6, _FREE_BIND, 1)
        out.bind((source, 0))
        out.connect(sink)
        began = time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            done = send(out.fileno(), messages, _BATCH, 0)
            if done < 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            sent += done
    return sent, spent


def main(source: str, host: str, port: str, seconds: str) -> None:
    """Flood, and print the exact seconds."""
    _, spent = flood(source, (host, int(port)), float(seconds))
    print(spent)


if __name__ == "__main__":
    main(*sys.argv[1:])
