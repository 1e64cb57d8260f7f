"""
Autobahn's WebSocket, reduced to what an envelope needs: frames in, one close frame out.

It holds no policy. Whatever makes Autobahn want to close, a close frame of the client's or a
violation, the session is told first and the close frame waits until the grant is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred

from envelope.admission import SUBPROTOCOL

PINGS_PER_SECOND: Final = 50
_POLICY_VIOLATION: Final = 1008


class _Silence:
    """A logger that drops everything; Autobahn's own says too much, and costs 16 % of the CPU."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_fields: None


class EnvelopeSocket(WebSocketServerProtocol):
    """One held socket; `front` tells it how to reach the session and how to hang up."""

    log = _Silence()

    def attach(
        self,
        closing: Callable[[], Deferred[None]],
        data: Callable[[], None],
        hang_up: Callable[[], None],
        seconds: Callable[[], float],
    ) -> None:
        """Say what to call when the client closes, sends data, or has to be hung up on."""
        self._closing, self._data, self._hang_up, self._seconds = closing, data, hang_up, seconds
        self.waits_for_grant = False
        self._frame_allowed = False
        self._pings = 0
        self._pings_since = 0.0

    def open(self, key: str, subprotocol: str | None, early: bytes) -> None:
        """Answer 101 to a handshake that has been checked already; `early` bytes follow it."""
        self.websocket_version = 13
        self.websocket_extensions = []
        self.websocket_protocols = [SUBPROTOCOL]
        self._wskey = key
        self.data = early
        self.succeedHandshake(subprotocol)

    def _onOpen(self) -> None:  # noqa: N802 (Autobahn's looks up certificates nobody asks for)
        self.onOpen()

    def close(self, code: int, reason: str) -> None:
        """Send the close frame: the grant is gone."""
        self._frame_allowed = True
        self.waits_for_grant = False
        super().sendCloseFrame(code, reason.encode() or None)

    def sendCloseFrame(  # noqa: N802
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False  # noqa: N803
    ) -> None:
        """Hold every close frame back until the grant is gone."""
        if self._frame_allowed:
            super().sendCloseFrame(code, reasonUtf8, isReply)
            return
        if self.waits_for_grant:
            return
        self.waits_for_grant = True

        def gone(_: Any) -> None:
            if self.waits_for_grant:
                self.close(code or 1000, (reasonUtf8 or b"").decode())
            self._hang_up()

        self._closing().addCallback(gone)

    def dropConnection(self, abort: bool = False) -> None:  # noqa: N802
        """Autobahn is done: hang up, unless the close frame is still to be sent."""
        if not self.waits_for_grant:
            self._hang_up()

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: N802, N803
        """Any data message ends the session, at its first byte."""
        self._data()

    def onMessageFrameBegin(self, length: int) -> None:  # noqa: N802
        """Nothing of a message is kept."""

    def onMessageFrameData(self, payload: bytes) -> None:  # noqa: N802
        """Nothing of a message is kept."""

    def onMessageFrameEnd(self) -> None:  # noqa: N802
        """Nothing of a message is kept."""

    def onMessageEnd(self) -> None:  # noqa: N802
        """Nothing of a message is kept."""

    def onPing(self, payload: bytes) -> None:  # noqa: N802
        """Answer it, unless they come in floods."""
        now = self._seconds()
        if now - self._pings_since >= 1:
            self._pings, self._pings_since = 0, now
        self._pings += 1
        if self._pings > PINGS_PER_SECOND:
            self.sendCloseFrame(_POLICY_VIOLATION, b"too many pings")
        else:
            super().onPing(payload)


def socket_factory(reactor: Any) -> WebSocketServerFactory:
    """The factory of `EnvelopeSocket`, with Autobahn's timers and limits off: we keep our own."""
    factory = WebSocketServerFactory(protocols=[SUBPROTOCOL], reactor=reactor)
    factory.protocol = EnvelopeSocket
    factory.noisy = False
    factory.server = None
    factory.log = _Silence()
    factory.setProtocolOptions(
        openHandshakeTimeout=0, closeHandshakeTimeout=0, autoPingInterval=0, failByDrop=False,
        echoCloseCodeReason=False, allowNullOrigin=True,
    )
    return factory
