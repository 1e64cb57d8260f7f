"""Server-sent events: the whole `/status` object at once, and again when it has changed.

The object is made and serialised once for all clients, and only while there are any. A session that
opens or ends makes an event at once, or a second after the last event. Everything else is compared
with the last event once a second. A client that does not read fast enough misses events, and gets
the newest one when it has read what it was sent; one that reads nothing is dropped. So a client
costs at most one event of memory beyond what its transport holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from envelope.admin.httpsite import Feed, Outlet, Stream
from envelope.runtime.timers import Timer

_log = Logger(namespace="envelope.admin")

# Seconds from one event to the next at least, and until a client that reads nothing is dropped.
PERIOD: Final = 1.0
PATIENCE: Final = 30.0
# Seconds without an event after which an empty comment is sent, which proxies take for life.
QUIET: Final = 15.0
# Seconds that sums of the reactor's times may differ by.
ROUNDING: Final = 1e-3
# Members of the object that change by themselves, and make no event.
CLOCKS: Final = ("now", "uptime")


class StatusStream:
    """Makes events of what `make` returns; `clock` (reactor seconds) tells when."""

    def __init__(self, make: Callable[[], dict[str, Any]], clock: IReactorTime) -> None:
        self._make = make
        self._clock = clock
        self._clients: dict[_Client, None] = {}
        self._content = b""
        self._event = b""
        self._sent_at = 0.0
        self._told = False
        self._timer = Timer(clock)

    @property
    def stream(self) -> Stream:
        """The stream for a site."""
        return Stream("text/event-stream", self._begin)

    def changed(self) -> None:
        """Make an event soon, even if the object is by then as it was before."""
        if self._clients and not self._told:
            self._told = True
            wait = self._sent_at + PERIOD - self._clock.seconds()
            self._timer.start(max(0.0, wait), self._tick)

    def _begin(self, outlet: Outlet) -> Feed:
        client = _Client(outlet, self._clock.seconds, self._left)
        if not self._clients:
            # Otherwise the event is at most `PERIOD` old.
            self._refresh()
            self._sent_at = self._clock.seconds()
            self._timer.start(PERIOD, self._tick)
        self._clients[client] = None
        client.offer(self._event)
        return client

    def _left(self, client: _Client) -> None:
        self._clients.pop(client, None)
        if not self._clients:
            self._timer.stop()
            self._told = False
            self._content = self._event = b""

    def _refresh(self) -> bool:
        """Make the event anew; whether it says something new."""
        made = self._make()
        clocks = {name: made.pop(name) for name in CLOCKS}
        before, self._content = self._content, _json(made)
        # Both are objects; the second's members follow those of the first.
        whole = _json(clocks)[:-1] + b"," + self._content[1:]
        self._event = b"data: " + whole + b"\n\n"
        return self._content != before

    def _tick(self) -> None:
        told, self._told = self._told, False
        try:
            changed = self._refresh() or told
        except Exception:
            _log.failure("the status stream broke")
            for client in [*self._clients]:
                client.abort()
            return
        for client in [*self._clients]:
            if changed:
                client.offer(self._event)
            client.tick()
        if changed:
            self._sent_at = self._clock.seconds()
        if self._clients:
            self._timer.start(PERIOD, self._tick)


def _json(value: object) -> bytes:
    # ASCII without line ends, which would end an event.
    return json.dumps(value, separators=(",", ":")).encode("ascii")


@implementer(IPushProducer)
class _Client:
    """One client; `now` returns reactor seconds."""

    def __init__(
        self, outlet: Outlet, now: Callable[[], float], left: Callable[[_Client], None]
    ) -> None:
        self._outlet = outlet
        self._now = now
        self._left = left
        self._waiting: bytes | None = None
        self._paused_at: float | None = None
        self._wrote_at = -PERIOD
        outlet.registerProducer(self, True)

    @property
    def stalls(self) -> bool:
        """See `Feed`."""
        return self._paused_at is not None

    def close(self) -> None:
        """See `Feed`."""
        self._left(self)

    def abort(self) -> None:
        """End the connection."""
        self._outlet.abort()

    def offer(self, event: bytes) -> None:
        """Send an event as soon as it may be sent, unless a newer one comes first."""
        self._waiting = event
        self._send()

    def tick(self) -> None:
        """Send what waits, or a sign of life; drop a client that has read nothing for long."""
        if self._paused_at is not None and self._now() - self._paused_at >= PATIENCE:
            self.abort()
            return
        self._send()
        if self._paused_at is None and self._now() - self._wrote_at >= QUIET:
            self._write(b":\n\n")

    def _send(self) -> None:
        due = self._now() - self._wrote_at >= PERIOD - ROUNDING
        if self._waiting is not None and self._paused_at is None and due:
            event, self._waiting = self._waiting, None
            self._write(event)

    def _write(self, data: bytes) -> None:
        self._wrote_at = self._now()
        self._outlet.write(data)

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused_at = self._now()

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused_at = None
        self._send()

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
