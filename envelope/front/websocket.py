"""WebSocket frames, translated: Autobahn reads them, an `IListener` hears what they mean.

No policy is here, and nothing is ever sent unasked: a pong answers a ping, and the one close
frame goes out when `Channel.finish` says so. Autobahn would answer a close frame, or bytes that
are no frames, by itself and at once; its own ways out (`sendCloseFrame`, `dropConnection`,
`_fail_connection`) are overridden, because the grant has to be gone first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.xormasker import XorMaskerNull
from zope.interface import Interface

POLICY_VIOLATION: Final = 1008
_FIRST_CONTROL_OPCODE: Final = 8
# A third of what Autobahn keeps for a connection; of no use to one that is open and silent.
_SPENT: Final = (
    "_transport_details", "_wskey", "http_response_data", "send_queue", "utf8validator",
    "websocket_extensions", "websocket_protocols",
)


class IListener(Interface):
    """Hears what a channel's peer does, and carries the channel's bytes to it."""

    def write(data: bytes) -> None:
        """Send these bytes."""

    def data_begun() -> None:
        """Called when the head of a data frame has come; its payload is thrown away."""

    def close_asked() -> None:
        """Called when a proper close frame has come first; nothing is read any more."""

    def close_answered() -> None:
        """Called when the peer has answered our close frame."""

    def broken(code: int) -> None:
        """Called when the peer broke the rules (`code`, RFC 6455 7.4); nothing is read any more."""


class _Silence:
    """In place of Autobahn's logger: it describes every frame, whether anyone listens or not."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        return self._drop

    def _drop(self, *_: object, **__: object) -> None:
        """Drop a message."""


class Channel(WebSocketServerProtocol):
    """One open WebSocket connection; its "transport" is an `IListener`.

    With the listener for transport Autobahn does not see whether TLS is below, and so does not
    spend time and memory on the details of it.
    """

    # Options stand here once instead of being copied to (and printed for) each instance.
    CONFIG_ATTRS = ()
    logOctets = False
    logFrames = False
    trackTimings = False
    utf8validateIncoming = False
    requireMaskedClientFrames = True
    maskServerFrames = False
    applyMask = True
    # Only then does Autobahn stop parsing at the first fault instead of guessing on.
    failByDrop = True
    echoCloseCodeReason = False
    # Autobahn's timers ignore the reactor that they are given.
    openHandshakeTimeout = 0
    closeHandshakeTimeout = 0
    autoPingInterval = 0

    log = _Silence()
    transport: Any
    factory: ChannelFactory
    current_frame: Any
    deaf: bool = False
    _second: float = 0.0
    _frames: int = 0

    def connectionMade(self) -> None:
        """Begin; Autobahn would first gather details of the transport, and log them."""
        self._connectionMade()

    def open(self) -> None:
        """Begin to read frames; the 101 has been sent already, by whoever has sent it."""
        self.websocket_version = 13
        self.websocket_protocols: list[str] = []
        self.websocket_extensions: list[Any] = []
        self._wskey = ""
        self.succeedHandshake(None)
        for name in _SPENT:
            delattr(self, name)

    def finish(self, code: int, reason: str = "") -> bool:
        """Send the close frame; False if that was done before. `reason`: at most 123 bytes."""
        if self.finished:
            return False
        super().sendCloseFrame(code=code, reasonUtf8=reason.encode())
        return True

    @property
    def finished(self) -> bool:
        """Whether the close frame is sent."""
        return bool(self.state != self.STATE_OPEN)

    def sendData(self, data: bytes, *_: Any, **__: Any) -> None:
        """Send a frame; drop Autobahn's own 101."""
        if self.state != self.STATE_CONNECTING:
            self.transport.write(data)

    def connectionLost(self, *_: Any) -> None:
        """Be of no more use; Autobahn would keep the channel in a Deferred of the channel's."""
        self.state = self.STATE_CLOSED
        self._go_deaf()
        self.is_closed = None

    def dataReceived(self, data: bytes) -> None:
        """Read frames, until there is nothing left to hear."""
        if not self.deaf:
            # Autobahn's own would describe the bytes to a log that is not kept.
            self.data += data
            self.consumeData()

    def _go_deaf(self) -> None:
        self.deaf = True
        self.data = b""

    # -- what Autobahn reads ---------------------------------------------------------------

    def onFrameBegin(self) -> None:
        """Bound the flood; hear of data as soon as a frame's head is in."""
        now = self.factory.seconds()
        if now - self._second >= 1:
            self._second, self._frames = now, 0
        self._frames += 1
        if self._frames > self.factory.frames_per_second:
            self._fail_connection(POLICY_VIOLATION)
        elif self.current_frame.opcode >= _FIRST_CONTROL_OPCODE:
            super().onFrameBegin()
        else:
            self.inside_message = True
            self.current_frame_masker = XorMaskerNull()
            self.transport.data_begun()

    def onFrameData(self, payload: bytes) -> bool | None:
        """Keep what control frames carry (125 bytes at most), and nothing else; False stops."""
        if self.deaf:
            return False
        if self.current_frame.opcode < _FIRST_CONTROL_OPCODE:
            return None
        return super().onFrameData(payload)

    def onFrameEnd(self) -> bool | None:
        """Act on a control frame; forget a data frame."""
        if self.current_frame.opcode >= _FIRST_CONTROL_OPCODE:
            return super().onFrameEnd()
        self.inside_message = not self.current_frame.fin
        self.current_frame = None
        return None

    def onPong(self, payload: bytes) -> None:
        """Ignore it: none was asked for (RFC 6455 section 5.5.3)."""

    # -- how Autobahn would end it ---------------------------------------------------------

    def sendCloseFrame(self, *_: Any, **__: Any) -> None:
        """Hear that the peer's close frame wants its answer; `finish` gives it later."""
        self._go_deaf()
        self.transport.close_asked()

    def dropConnection(self, *_: Any, **__: Any) -> None:
        """Hear that both close frames are exchanged, if so; the listener drops the connection."""
        if self.finished and not self.deaf:
            self._go_deaf()
            self.transport.close_answered()

    def _fail_connection(self, code: int, *_: Any) -> None:
        self._go_deaf()
        self.transport.broken(code)


class ChannelFactory(WebSocketServerFactory):
    """Makes channels; a peer may send `frames_per_second`, of whatever kind."""

    protocol = Channel
    noisy = False
    log = _Silence()

    def __init__(self, seconds: Callable[[], float], frames_per_second: int, reactor: Any) -> None:
        # Without server= each answer would name Autobahn and its version.
        super().__init__(server=None, reactor=reactor)
        self.seconds = seconds
        self.frames_per_second = frames_per_second
        self._opened: dict[str, Any] = {}

    def make(self, listener: Any) -> Channel:
        """Return an open channel that `listener` hears.

        Autobahn takes a fiftieth of a visit to get there, the same way each time. So all are as
        the first one was then; what they have in common with it is never changed for one of them.
        """
        if not self._opened:
            first: Channel = self.buildProtocol(None)
            first.makeConnection(None)
            first.open()
            self._opened = first.__dict__
        channel = Channel.__new__(Channel)
        channel.__dict__.update(self._opened)
        channel.transport = listener
        return channel
