"""The claim to be the only envelope in a network namespace, held by the kernel.

A queue of nfnetlink_queue has at most one owner in a network namespace. Only a process with
CAP_NET_ADMIN there can own one, and it has an owner as long as the socket that bound it is open,
`kill -9` or not. So we own one, and no rule ever sends a packet to it. See
docs/decisions/claim-by-queue.md, and linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from envelope.netlink import NETLINK_NETFILTER, Netlink, attribute

# Any number that nobody else is likely to use.
QUEUE: Final = 59934

_NFNL_SUBSYS_QUEUE: Final = 3
_NFQNL_MSG_CONFIG: Final = 2
_NFQA_CFG_CMD: Final = 1
_NFQNL_CFG_CMD_BIND: Final = 1
# Obsolete: succeeds without effect, so it tells whether we may ask at all.
_NFQNL_CFG_CMD_PF_BIND: Final = 3


class ClaimTaken(Exception):
    """Another process holds the claim."""


class ClaimUnavailable(Exception):
    """The claim cannot be made here; the text says why."""


class Claim:
    """Holds the claim of this network namespace until `release`, or until the process ends.

    Making one raises `ClaimTaken` or `ClaimUnavailable`.
    """

    def __init__(self) -> None:
        # Its one socket stays open between requests, and is the queue's owner.
        self._kernel = Netlink(NETLINK_NETFILTER)
        try:
            self._ask(_NFQNL_CFG_CMD_PF_BIND)
            self._bind_queue()
        except OSError as error:
            self.release()
            raise ClaimUnavailable(error.strerror or str(error)) from None
        except ClaimTaken:
            self.release()
            raise

    def release(self) -> None:
        """Give it up."""
        self._kernel.close()

    def _bind_queue(self) -> None:
        try:
            self._ask(_NFQNL_CFG_CMD_BIND)
        except OSError as error:
            # The owner is compared before anything else (nfqnl_recv_config).
            if error.errno in (errno.EPERM, errno.EBUSY):
                raise ClaimTaken from None
            raise

    def _ask(self, command: int) -> None:
        body = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(QUEUE))
        body += attribute(_NFQA_CFG_CMD, struct.pack("=BBH", command, 0, 0))
        self._kernel.do(_NFNL_SUBSYS_QUEUE << 8 | _NFQNL_MSG_CONFIG, body)
