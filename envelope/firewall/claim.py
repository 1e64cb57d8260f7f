"""The claim to be the only envelope in a network namespace, held by the kernel.

A queue of nfnetlink_queue has at most one owner in a network namespace. Only a process with
CAP_NET_ADMIN there can own one, and it has an owner as long as the socket that bound it is open,
`kill -9` or not. So we own one, and no rule ever sends a packet to it. See
docs/decisions/claim-by-queue.md, and linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import Final

# Any number that nobody else is likely to use.
QUEUE: Final = 59934

_NETLINK_NETFILTER: Final = 12
_NFNL_SUBSYS_QUEUE: Final = 3
_NFQNL_MSG_CONFIG: Final = 2
_NFQA_CFG_CMD: Final = 1
_NFQNL_CFG_CMD_BIND: Final = 1
# Obsolete: succeeds without effect, so it tells whether we may ask at all.
_NFQNL_CFG_CMD_PF_BIND: Final = 3
_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
# Seconds. The kernel answers before `send` returns.
_ANSWER_WITHIN: Final = 1.0


class ClaimTaken(Exception):
    """Another process holds the claim."""


class ClaimUnavailable(Exception):
    """The claim cannot be made here; the text says why."""


class Claim:
    """Holds the claim of this network namespace until `release`, or until the process ends.

    Making one raises `ClaimTaken` or `ClaimUnavailable`.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise ClaimUnavailable(error.strerror) from None
        try:
            self._socket.settimeout(_ANSWER_WITHIN)
            self._socket.bind((0, 0))
            self._bind_queue()
        except OSError as error:
            self.release()
            raise ClaimUnavailable(error.strerror or str(error)) from None
        except ClaimTaken:
            self.release()
            raise

    def release(self) -> None:
        """Give it up."""
        with suppress(OSError):
            self._socket.close()

    def _bind_queue(self) -> None:
        self._ask(_NFQNL_CFG_CMD_PF_BIND)
        try:
            self._ask(_NFQNL_CFG_CMD_BIND)
        except OSError as error:
            # The owner is compared before anything else (nfqnl_recv_config).
            if error.errno in (errno.EPERM, errno.EBUSY):
                raise ClaimTaken from None
            raise

    def _ask(self, command: int) -> None:
        body = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(QUEUE))
        body += struct.pack("=HHBBH", 8, _NFQA_CFG_CMD, command, 0, 0)
        kind = _NFNL_SUBSYS_QUEUE << 8 | _NFQNL_MSG_CONFIG
        self._socket.send(
            struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body)
        answer = self._socket.recv(4096)
        code: int = struct.unpack_from("=i", answer, 16)[0]
        if code:
            raise OSError(-code, os.strerror(-code))
