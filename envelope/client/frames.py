"""WebSocket frames (RFC 6455 section 5), as far as a client needs them that only holds. Pure.

The server of an envelope sends pings, pongs and its close frame, and nothing else. So this reader
puts no messages together: the head of a data frame breaks the protocol, and the buffer never holds
more than one control frame. Autobahn's client would bring its own timers on the global reactor, and
drops a connection that is refused before its text and `Retry-After` can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
# Section 5.5: the longest payload of a control frame, in bytes.
_MOST: Final = 125
# Section 7.4.1: codes below 3000 that a close frame may carry (and 1012 to 1014, registered since).
_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})


class BrokenFrame(Exception):
    """The bytes are no frame that the server of an envelope may send."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A control frame: `opcode` is `CLOSE`, `PING` or `PONG`; `code` is a close frame's, if any."""

    opcode: int
    payload: bytes
    code: int | None = None


class FrameReader:
    """Reads the frames of a server from any pieces of its bytes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._closed = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes, and return the frames that are complete; raise `BrokenFrame`.

        What follows a close frame is ignored (section 1.4).
        """
        rest = self._buffer + data
        frames: list[Frame] = []
        while rest and not self._closed:
            size = _size(rest)
            if size is None or len(rest) < size:
                break
            frames.append(_frame(rest[0] & 0xF, rest[2:size]))
            rest = rest[size:]
            self._closed = frames[-1].opcode == CLOSE
        self._buffer = b"" if self._closed else rest
        return frames


def _size(data: bytes) -> int | None:
    """The bytes of the frame that begins here; None while its head is not complete."""
    # Section 5.2: no reserved bit without an extension; section 5.5: no control frame in pieces.
    if data[0] not in (_FINAL | CLOSE, _FINAL | PING, _FINAL | PONG):
        raise BrokenFrame
    if len(data) < 2:
        return None
    # Section 5.1: a server masks nothing.
    if data[1] & _MASKED or data[1] > _MOST:
        raise BrokenFrame
    return 2 + data[1]


def _frame(opcode: int, payload: bytes) -> Frame:
    if opcode != CLOSE or not payload:
        return Frame(opcode, payload)
    # Section 5.5.1: two bytes of code, then UTF-8.
    code = int.from_bytes(payload[:2])
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise BrokenFrame from None
    if len(payload) < 2 or not (code in _CODES or 3000 <= code <= 4999):
        raise BrokenFrame
    return Frame(opcode, payload, code)


def masked_frame(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """A control frame of a client; `mask` is 4 unpredictable bytes (section 5.3)."""
    hidden = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([_FINAL | opcode, _MASKED | len(payload)]) + mask + hidden
