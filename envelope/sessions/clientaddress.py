"""Whether a grant for a client's address can let the client in."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Set
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.addresses import Address

_log = Logger(namespace="envelope.sessions")

# The loopback device, which packets between this host's own addresses go over.
LOOPBACK: Final = "lo"

# Seconds until the addresses are read again. Reading takes 0.1 ms, or 28 ms with 1,000 addresses,
# and blocks the reactor; it may take at most this part of the time.
MAX_AGE: Final = 5.0
MOST_OF_THE_TIME: Final = 0.005


class HostAddresses:
    """The addresses of this host; read again when they are asked for and older than `MAX_AGE`.

    `clock` is the reactor's. `read` returns the addresses of each device.
    """

    def __init__(
        self, clock: IReactorTime, read: Callable[[], Mapping[str, Set[Address]]]
    ) -> None:
        self._clock = clock
        self._read = read
        self._held: frozenset[Address] = frozenset()
        self._stale_at = clock.seconds()

    def __contains__(self, address: object) -> bool:
        if self._clock.seconds() >= self._stale_at:
            self._read_again()
        return address in self._held

    def _read_again(self) -> None:
        began = time.perf_counter()
        try:
            self._held = frozenset().union(*self._read().values())
        except OSError as error:
            _log.warn("the addresses of this host cannot be read: {why}", why=error.strerror)
        took = time.perf_counter() - began
        self._stale_at = self._clock.seconds() + max(MAX_AGE, took / MOST_OF_THE_TIME)


def can_be_let_in(address: Address | None, own: Container[Address] | None) -> bool:
    """Whether a grant for `address` can let a client in; if not, the log says why.

    `own` are the addresses of this host. Packets from these and from loopback addresses arrive over
    the loopback device; None when that is the guarded one, for a trial on one machine. An
    unspecified or multicast address is never a packet's sender.
    """
    if address is None:
        fault = "its proxy did not send its address"
    elif own is not None and (address.is_loopback or address in own):
        fault = (
            f"its address is {address}, this host's own; if it came through a proxy on this host, "
            "the proxy has to send a PROXY header, and --listen needs haproxy: before the endpoint"
        )
    elif address.is_unspecified or address.is_multicast:
        fault = f"its proxy sent {address}, which is no client's address"
    else:
        return True
    _log.warn("refused a client: {fault}", fault=fault)
    return False
