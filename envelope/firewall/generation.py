"""How often the rules of nftables were changed in this network, as the kernel counts it.

Each transaction of anybody's, in whatever table, makes a new generation (nf_tables(7) calls it the
generation ID; `nft monitor` shows it). Asking takes some 10 µs, however many rules there are.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

# linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER: Final = 12
_REQUEST: Final = 1
_GETGEN, _NEWGEN = 10 << 8 | 16, 10 << 8 | 15
_ID: Final = 1
_HEADER: Final = struct.Struct("=IHHIIBBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ASKING: Final = _HEADER.pack(_HEADER.size, _GETGEN, _REQUEST, 0, 0, socket.AF_UNSPEC, 0, 0)


class GenerationCounter:
    """Asks the kernel, over one socket that stays open.

    Closing such a socket waits until the kernel has destroyed whatever was deleted last (nf_tables'
    nft_rcv_nl_event): some 15 ms behind a revocation, in which the reactor would stand still.
    """

    def __init__(self) -> None:
        self._kernel: socket.socket | None = None

    def number(self) -> int | None:
        """The number of the generation in force; None when the kernel does not tell."""
        try:
            if self._kernel is None:
                self._kernel = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
                )
            self._kernel.send(_ASKING)
            return read_answer(self._kernel.recv(4096))
        except OSError:
            # An answer that comes late would be taken for that of the next question.
            self.close()
            return None

    def close(self) -> None:
        """Close the socket; the next question opens another one."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()


def read_answer(message: bytes) -> int | None:
    """The number in the kernel's answer; None when it is another one. Pure."""
    if len(message) < _HEADER.size:
        return None
    length, kind, *_ = _HEADER.unpack_from(message)
    position = _HEADER.size
    while kind == _NEWGEN and position + _ATTRIBUTE.size <= min(length, len(message)):
        size, name = _ATTRIBUTE.unpack_from(message, position)
        value = message[position + _ATTRIBUTE.size:position + size]
        if name == _ID and len(value) == 4:
            return int.from_bytes(value, "big")
        # Attributes are aligned to four bytes.
        position += max(_ATTRIBUTE.size, size + 3 & ~3)
    return None
