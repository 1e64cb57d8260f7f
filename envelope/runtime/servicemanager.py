"""Tells a service manager such as systemd how the service is (sd_notify(3)).

Each message is one datagram of lines. It is sent without blocking, since a manager that is busy
must not hold up clients.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

from envelope.runtime.timers import Timer

# Seconds between two looks at whether the status line has changed.
STATUS_PERIOD: Final = 1.0
# Seconds until a message is sent again that the manager had no room for.
RETRY_AFTER: Final = 0.1


def notify_address(environ: Mapping[str, str]) -> str | None:
    """The address in NOTIFY_SOCKET: a path, or an abstract name with a zero byte before it."""
    text = environ.get("NOTIFY_SOCKET", "")
    if len(text) < 2 or text[0] not in "/@":
        return None
    return text if text[0] == "/" else "\0" + text[1:]


def watchdog_period(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two signs of life, half of WATCHDOG_USEC; None when none are awaited."""
    try:
        interval = int(environ.get("WATCHDOG_USEC", "0"))
        awaited = int(environ.get("WATCHDOG_PID", pid)) == pid
    except ValueError:
        return None
    return interval / 2e6 if interval > 0 and awaited else None


class ServiceManager:
    """The service's side of the conversation; without NOTIFY_SOCKET, every method does nothing.

    `status` returns the line that the manager shows.
    """

    def __init__(
        self, reactor: IReactorTime, environ: Mapping[str, str], status: Callable[[], str]
    ) -> None:
        self._address = notify_address(environ)
        self._watchdog_period = watchdog_period(environ, os.getpid())
        self._status = status
        self._told = ""
        self._unsent: deque[str] = deque(maxlen=16)
        self._retry = Timer(reactor)
        self._watchdog = Timer(reactor)
        self._looking = Timer(reactor)
        self._ready = False
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """Say that clients are let in; show the status and give signs of life from now on."""
        if self._address is None:
            return
        self._ready = True
        self._send("READY=1")
        self._show()
        if self._watchdog_period is not None:
            self._live(self._watchdog_period)

    def reloaded(self, reload: Callable[[], None]) -> None:
        """Call `reload`, and say so before and after, as `Type=notify-reload` asks for.

        A manager asks for it after `ready`, but anybody may send the signal before.
        """
        if not self._ready:
            reload()
            return
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            reload()
        finally:
            # The manager waits for it.
            self._send("READY=1")

    def stopping(self) -> None:
        """Say that the stop has begun. Signs of life go on until `close`."""
        self._ready = False
        self._send("STOPPING=1\nSTATUS=stopping")
        self._looking.stop()

    def close(self) -> None:
        """Say no more."""
        for timer in (self._retry, self._watchdog, self._looking):
            timer.stop()
        if self._address is not None:
            self._socket.close()
            self._address = None

    def _show(self) -> None:
        self._looking.start(STATUS_PERIOD, self._show)
        status = self._status()
        if status != self._told and not self._unsent:
            self._told = status
            self._send(f"STATUS={status}")

    def _live(self, period: float) -> None:
        self._watchdog.start(period, self._live, period)
        if not self._unsent:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is not None:
            self._unsent.append(message)
            self._send_all()

    def _send_all(self) -> None:
        while self._unsent:
            try:
                self._socket.sendto(self._unsent[0].encode(), self._address or "")
            except BlockingIOError:
                self._retry.start(RETRY_AFTER, self._send_all)
                return
            except OSError:
                pass  # the manager is gone, or does not take it
            self._unsent.popleft()
