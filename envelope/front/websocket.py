"""WebSocket frames: Autobahn parses them, and an `IFrameHandler` is told what they mean.

No policy is here. Nothing is sent but a pong for a ping, and the one close frame when
`Channel.send_close` is called. Autobahn by itself would answer a close frame, or bytes that break
the protocol, and drop the connection at once. But the client's grant has to be revoked first. So
the three methods that do this in Autobahn (`sendCloseFrame`, `dropConnection`, `_fail_connection`)
are overridden and tell the handler instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Protocol

# Autobahn's C code checks UTF-8 and unmasks long messages. Neither is needed here, and loading it
# takes 1.3 MB of memory and imports a compiler for C declarations.
os.environ.setdefault("AUTOBAHN_USE_NVX", "0")

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.xormasker import XorMaskerNull

from envelope.runtime.internals import require, require_use

POLICY_VIOLATION: Final = 1008

# The undocumented parts of Autobahn that this module leans on: where they are used in Autobahn.
require(WebSocketServerProtocol, "CONFIG_ATTRS", "STATE_CLOSED", "STATE_OPEN")
require_use(
    WebSocketServerProtocol.processData,
    "current_frame", "current_frame_masker", "data", "inside_message",
)
require_use(WebSocketServerProtocol._connectionMade, "_connectionMade")
require_use(WebSocketServerProtocol.consumeData, "processData", "state")
require_use(WebSocketServerProtocol.dataReceived, "_dataReceived")
require_use(WebSocketServerProtocol._dataReceived, "data", "consumeData")
require_use(WebSocketServerProtocol.sendFrame, "sendData")
require_use(WebSocketServerProtocol.onCloseFrame, "sendCloseFrame", "dropConnection")
for _method in (
    WebSocketServerProtocol._protocol_violation, WebSocketServerProtocol._invalid_payload,
):
    require_use(_method, "_fail_connection", "failByDrop")


class IFrameHandler(Protocol):
    """Is told what a channel's peer sends, and carries the channel's bytes to the peer."""

    def write(self, data: bytes) -> None:
        """Send these bytes."""

    def data_frame(self) -> None:
        """The head of a data frame has arrived; its payload will be discarded."""

    def close_frame(self) -> None:
        """The peer sent a valid close frame first; nothing more is read."""

    def close_reply(self) -> None:
        """The peer answered our close frame; nothing more is read."""

    def violation(self, code: int) -> None:
        """The peer broke the protocol (`code`: RFC 6455 section 7.4); nothing more is read."""


class _NullLogger:
    """Replaces Autobahn's logger, which formats every message even if nothing is logged."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        return self._drop

    def _drop(self, *_: object, **__: object) -> None:
        """Drop a message."""


class Channel(WebSocketServerProtocol):
    """One open WebSocket connection; its transport is an `IFrameHandler`."""

    # Autobahn would copy these from the factory to each instance, and print them.
    CONFIG_ATTRS = ()
    logOctets = False
    logFrames = False
    trackTimings = False
    utf8validateIncoming = False
    requireMaskedClientFrames = True
    maskServerFrames = False
    applyMask = True
    # Autobahn then stops parsing at the first violation instead of skipping the frame.
    failByDrop = True
    echoCloseCodeReason = False
    # Autobahn's timers run on the global reactor, not on the one it was given.
    openHandshakeTimeout = 0
    closeHandshakeTimeout = 0
    autoPingInterval = 0
    # RFC 6455's version.
    websocket_version = 13

    log = _NullLogger()
    transport: Any
    factory: ChannelFactory
    reading: bool = True
    _second: float = 0.0
    _frames: int = 0

    def connectionMade(self) -> None:
        """Expect frames at once: the front has done the opening handshake.

        Autobahn's own method would also describe the connection for its log.
        """
        WebSocketProtocol._connectionMade(self)
        self.state = self.STATE_OPEN
        self.current_frame = None
        self.inside_message = False

    def send_close(self, code: int, reason: str = "") -> bool:
        """Send the close frame; return False if it was sent before. `reason`: at most 123 bytes."""
        if self.close_sent:
            return False
        super().sendCloseFrame(code=code, reasonUtf8=reason.encode())
        return True

    @property
    def close_sent(self) -> bool:
        """Whether our close frame was sent."""
        return bool(self.state != self.STATE_OPEN)

    def sendData(self, data: bytes, *_: Any, **__: Any) -> None:
        """Send the bytes of a frame; Autobahn's own method describes them for its log too."""
        self.transport.write(data)

    def connectionLost(self, *_: Any) -> None:
        """Stop; Autobahn's own would refer to the channel from one of its Deferreds, a cycle."""
        self.state = self.STATE_CLOSED
        self.stop_reading()

    def dataReceived(self, data: bytes) -> None:
        """Parse these bytes, unless reading has stopped."""
        if self.reading:
            # Autobahn's own method colours a description of the bytes for its log first.
            self.data += data
            self.consumeData()

    def stop_reading(self) -> None:
        """Ignore what arrives from now on."""
        self.reading = False
        self.data = b""

    # -- what Autobahn has parsed ----------------------------------------------------------

    def onMessageBegin(self, isBinary: bool) -> None:
        """Do nothing: messages are not put together."""

    def onMessageFrameBegin(self, _length: int) -> None:
        """Report a data frame when its head is complete."""
        # Unmasking a payload that is discarded would only cost time.
        self.current_frame_masker = XorMaskerNull()
        if self._within_rate():
            self.transport.data_frame()

    def onMessageFrameData(self, payload: bytes) -> None:
        """Discard a piece of a data frame's payload."""

    def onMessageFrameEnd(self) -> None:
        """Do nothing."""

    def onMessageEnd(self) -> None:
        """Do nothing."""

    def onPing(self, payload: bytes) -> None:
        """Answer a ping."""
        if self._within_rate():
            self.sendPong(payload)

    def onPong(self, _payload: bytes) -> None:
        """Ignore a pong: none was asked for (RFC 6455 section 5.5.3)."""
        self._within_rate()

    def _within_rate(self) -> bool:
        """Count a frame; too many within a second break the protocol."""
        now = self.factory.seconds()
        if now - self._second >= 1:
            self._second, self._frames = now, 0
        self._frames += 1
        if self._frames <= self.factory.frames_per_second:
            return True
        self._fail_connection(POLICY_VIOLATION)
        return False

    # -- how Autobahn would end the connection ---------------------------------------------

    def sendCloseFrame(self, *_: Any, **__: Any) -> None:
        """Report a close frame; `send_close` answers it later."""
        self.stop_reading()
        self.transport.close_frame()

    def dropConnection(self, *_: Any, **__: Any) -> None:
        """Report that both close frames are exchanged, if so; the handler drops the connection."""
        if self.close_sent and self.reading:
            self.stop_reading()
            self.transport.close_reply()

    def _fail_connection(self, code: int, *_: Any) -> None:
        self.stop_reading()
        self.transport.violation(code)


class ChannelFactory(WebSocketServerFactory):
    """Opens channels; a peer may send `frames_per_second`, of any kind.

    `seconds` is the reactor's clock.
    """

    protocol = Channel
    noisy = False
    log = _NullLogger()

    def __init__(self, seconds: Callable[[], float], frames_per_second: int, reactor: Any) -> None:
        super().__init__(reactor=reactor)
        self.seconds = seconds
        self.frames_per_second = frames_per_second

    def open(self, handler: IFrameHandler) -> Channel:
        """Return a new open channel that reports to `handler`."""
        channel: Channel = self.buildProtocol(None)
        channel.makeConnection(handler)
        return channel
